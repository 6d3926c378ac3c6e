"""A disk that is full, or a writer that may write no more, while a bundle is copied into the folder of models."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from service.models.folder import opened
from service.settings import read_settings
from service.translation import TranslationOptions
from tests.service.models.bundles import renamed

SLACK_KIB = 100


@pytest.fixture
def disk(tiny_bundle: Path, tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for one bundle and a bit."""
    room = SLACK_KIB + sum(-(-file.stat().st_size // 4096) * 4 for file in tiny_bundle.iterdir())
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a file system; test_a_writer_that_is_stopped covers the rest")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


async def test_a_full_disk_leaves_what_is_served_alone_and_room_brings_the_rest(
    disk: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    whole = renamed(tiny_bundle, tmp_path / "whole", version="2")
    renamed(tiny_bundle, disk / "first")
    settings = read_settings(models=disk, models_poll_seconds=0.0, threads=1)
    async with opened(settings, Metrics.on(CollectorRegistry())) as folder:
        with pytest.raises(shutil.Error, match="No space left"):
            shutil.copytree(whole, disk / "second")
        for _ in range(3):
            await folder.look()
        assert [model.manifest.version for model in folder.models.listed()] == ["1"]
        with folder.models.leased("", "", "") as model:
            assert (await model.translator.translate("The house is big.", TranslationOptions())).hypotheses
        renamed(tiny_bundle, tmp_path / "again")
        assert (await folder.load("first")).model.manifest.version == "1"  # nothing is written to load a bundle
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        shutil.copytree(whole, disk / "second", dirs_exist_ok=True)
        await folder.look()
        assert [model.manifest.version for model in folder.models.listed()] == ["2", "1"]


async def test_a_writer_that_is_stopped_leaves_a_bundle_that_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    whole = renamed(tiny_bundle, tmp_path / "whole", version="2")
    root = tmp_path / "models"
    root.mkdir()
    renamed(tiny_bundle, root / "first")
    settings = read_settings(models=root, models_poll_seconds=0.0, threads=1)
    async with opened(settings, Metrics.on(CollectorRegistry())) as folder:
        (root / "second").mkdir()
        for file in whole.iterdir():
            subprocess.run(["sh", "-c", 'ulimit -f 40; cp "$0" "$1"', file, root / "second"], capture_output=True)
        assert (root / "second" / "decoder_step.onnx").stat().st_size < (whole / "decoder_step.onnx").stat().st_size
        for _ in range(3):
            await folder.look()
        assert [model.manifest.version for model in folder.models.listed()] == ["1"]
