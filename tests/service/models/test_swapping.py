"""Models change while they are at work: no call is lost, and none is answered by two models."""

import asyncio
import itertools
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from service.models.folder import ModelFolder, opened
from service.settings import read_settings
from service.translation import TranslationOptions
from tests.service.models.bundles import renamed
from tests.tiny_bundle import SENTENCES, TinyBundle

CALLERS = 4
OPTIONS = TranslationOptions(alignment=True)


async def answer(folder: ModelFolder, text: str) -> tuple[str, bytes, float]:
    """Return the version that answered, and its answer to the bit."""
    with folder.models.leased("", "", "") as model:
        best = (await model.translator.translate(text, OPTIONS)).hypotheses[0]
        assert best.alignment is not None
        matrix = best.alignment.piece_weights.tobytes()
        return model.manifest.version, best.text.encode() + matrix, best.log_probability


@pytest.fixture
def root(tiny_bundle: Path, tmp_path: Path) -> Path:
    """Two versions that translate differently."""
    root = tmp_path / "models"
    root.mkdir()
    renamed(tiny_bundle, root / "1")
    renamed(TinyBundle(hidden=48).write(tmp_path / "large"), root / "2", version="2")
    return root


async def swap_under_load(root: Path, swaps: int) -> int:
    """Swap two versions under load, by loading and by activating, and return how many calls were answered."""
    settings = read_settings(models=root, models_poll_seconds=0.0, threads=1)
    async with opened(settings, Metrics.on(CollectorRegistry())) as folder:
        expected = {}
        for version, text in itertools.product(("1", "2"), SENTENCES):
            folder.activate("tiny", version)
            expected[version, text] = await answer(folder, text)
        assert all(expected["1", text][1:] != expected["2", text][1:] for text in SENTENCES)
        answered, stopped = 0, asyncio.Event()

        async def call() -> None:
            nonlocal answered
            for text in itertools.cycle(SENTENCES):
                if stopped.is_set():
                    return
                found = await answer(folder, text)
                assert found == expected[found[0], text]
                answered += 1
                await asyncio.sleep(0.005)  # the examination needs a processor, too

        with folder.models.leased("tiny@1", "", "") as first:  # one that is replaced before it is used
            async with asyncio.TaskGroup() as callers:
                for _ in range(CALLERS):
                    callers.create_task(call())
                for number in range(swaps):
                    version = str(number % 2 + 1)
                    model, _ = await folder.load(version)
                    assert model.manifest.version == version == (await answer(folder, SENTENCES[0]))[0]
                    folder.activate("tiny", "")
                stopped.set()
            best = (await first.translator.translate(SENTENCES[1], OPTIONS)).hypotheses[0]
            assert best.log_probability == expected["1", SENTENCES[1]][2]
        async with asyncio.timeout(10):
            while folder.models.size_bytes != sum(model.size_bytes for model in folder.models.listed()):
                await asyncio.sleep(0.01)  # until those that were replaced are closed
        return answered


async def test_every_answer_is_that_of_the_version_that_began_it(root: Path) -> None:
    # fifty swaps under load: python -m tests.reliability.faults --only hot_swaps
    assert await swap_under_load(root, swaps=4) > 100
