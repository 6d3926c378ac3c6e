"""What stands in the folder of models is what is loaded; a bundle that is refused changes nothing."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.errors import BundleRefused, InvalidSettings, ModelInUse, ModelNotFound, ModelRefused
from service.metrics import Metrics
from service.models.folder import ModelFolder, opened
from service.settings import read_settings
from service.translation import TranslationOptions
from tests.service.edge import metric_value
from tests.service.models.bundles import renamed

TEXT = "The house is small, but the garden is big."


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@contextlib.asynccontextmanager
async def watched(root: Path | None, **overrides: object) -> AsyncIterator[ModelFolder]:
    """Serve what is in ``root``; by default it is looked at only when a test does."""
    settings = read_settings(**{"models": root, "models_poll_seconds": 0.0, "threads": 1, **overrides})
    async with opened(settings, Metrics.on(CollectorRegistry())) as folder:
        yield folder


def loaded(folder: ModelFolder) -> list[str]:
    return [model.manifest.qualified_name for model in folder.models.listed()]


def active(folder: ModelFolder) -> list[str]:
    models = folder.models
    return [model.manifest.qualified_name for model in models.listed() if models.standing(model).active]


def counted(folder: ModelFolder, result: str) -> float:
    return metric_value(folder._metrics, "interlinear_model_loads_total", result=result)


def refused_now(folder: ModelFolder) -> float:
    return metric_value(folder._metrics, "interlinear_bundles_refused")


async def translated(folder: ModelFolder, name: str = "") -> str:
    with folder.models.leased(name, "", "") as model:
        return (await model.translator.translate(TEXT, TranslationOptions())).hypotheses[0].text


async def test_at_the_start_the_newest_version_of_each_name_is_active(root: Path, tiny_bundle: Path) -> None:
    for name, version in (("tiny", "9"), ("tiny", "10"), ("other", "1")):
        renamed(tiny_bundle, root / f"{name}.{version}", bundle_id=name, version=version)
    renamed(tiny_bundle, root / ".hidden", bundle_id="hidden")
    (root / "notes").mkdir()
    (root / "file").touch()
    async with watched(root) as folder:
        assert loaded(folder) == ["other@1", "tiny@10", "tiny@9"]
        assert active(folder) == ["other@1", "tiny@10"]
        assert folder.models.ready
        assert await translated(folder, "tiny@9") == await translated(folder, "tiny")


async def test_an_empty_folder_is_served_and_not_ready_until_a_bundle_arrives(root: Path, tiny_bundle: Path) -> None:
    async with watched(root) as folder:
        assert not folder.models.ready
        renamed(tiny_bundle, root / "tiny")
        await folder.look()
        assert folder.models.ready and loaded(folder) == ["tiny@1"]


async def test_a_folder_that_does_not_exist_stops_the_start(root: Path) -> None:
    with pytest.raises(InvalidSettings, match="INTERLINEAR_MODELS=.*: there is no such folder"):
        async with watched(root / "nowhere"):
            pass


async def test_a_bundle_that_is_named_is_served_besides_and_is_the_default(root: Path, tiny_bundle: Path) -> None:
    renamed(tiny_bundle, root / "a", bundle_id="a")
    named = renamed(tiny_bundle, root.parent / "named", bundle_id="named")
    async with watched(root, bundle=named) as folder:
        assert loaded(folder) == ["named@1", "a@1"]
        assert folder.models.standing(folder.models.listed()[0]) == (True, True)
    async with watched(root) as folder:
        assert loaded(folder) == ["a@1"]
    async with watched(None) as folder:
        assert loaded(folder) == ["en-fr@3"]


async def test_a_bundle_that_is_named_and_damaged_stops_the_start(root: Path, tiny_bundle: Path) -> None:
    named = renamed(tiny_bundle, root / "named")
    (named / "encoder.onnx").write_bytes(b"")
    with pytest.raises(BundleRefused, match="encoder.onnx has 0 bytes"):
        async with watched(None, bundle=named):
            pass


async def test_a_version_that_arrives_answers_and_one_that_is_refused_does_not(root: Path, tiny_bundle: Path) -> None:
    renamed(tiny_bundle, root / "first")
    async with watched(root) as folder:
        renamed(tiny_bundle, root / "second", version="2")
        await folder.look()
        assert active(folder) == ["tiny@2"] and loaded(folder) == ["tiny@2", "tiny@1"]
        third = renamed(tiny_bundle, root / "third", version="3")
        (third / "tokenizer.model").write_bytes(b"changed")
        with capture_logs() as logs:
            for _ in range(4):
                await folder.look()
        assert active(folder) == ["tiny@2"]
        [refusal] = [event for event in logs if event["event"] == "bundle refused"]
        assert refusal["folder"] == "third" and "tokenizer.model has 7 bytes" in refusal["reason"]
        assert (counted(folder, "loaded"), counted(folder, "refused")) == (2, 1)
        renamed(tiny_bundle, root / "third", version="3")
        await folder.look()
        assert active(folder) == ["tiny@3"] and counted(folder, "refused") == 1


async def test_a_bundle_that_is_being_copied_is_left_alone(root: Path, tiny_bundle: Path) -> None:
    renamed(tiny_bundle, root / "tiny")
    async with watched(root) as folder:
        whole = renamed(tiny_bundle, root.parent / "whole", version="2")
        (root / "copied").mkdir()
        for file in sorted(whole.iterdir(), key=lambda file: file.name != "manifest.json"):
            shutil.copy(file, root / "copied")
            await folder.look()
        assert active(folder) == ["tiny@2"] and counted(folder, "refused") == 0


async def test_what_is_written_no_further_is_refused_with_the_reason(root: Path, tiny_bundle: Path) -> None:
    renamed(tiny_bundle, root / "tiny")
    async with watched(root) as folder:
        (renamed(tiny_bundle, root / "cut", version="2") / "encoder.onnx").unlink()
        await folder.look()
        assert counted(folder, "refused") == 0
        await folder.look()
        assert counted(folder, "refused") == 1 and active(folder) == ["tiny@1"]


async def test_a_folder_that_goes_takes_its_model_with_it_but_the_last_stays(root: Path, tiny_bundle: Path) -> None:
    for version in ("1", "2"):
        renamed(tiny_bundle, root / version, version=version)
    renamed(tiny_bundle, root / "other", bundle_id="other")
    async with watched(root) as folder:
        shutil.rmtree(root / "2")
        await folder.look()
        assert loaded(folder) == ["other@1", "tiny@1"] and "tiny@1" in active(folder)
        with capture_logs() as logs:
            root.rename(root.parent / "elsewhere")
            await folder.look()
            await folder.look()
            root.mkdir()
            await folder.look()
            await folder.look()
        assert loaded(folder) == ["tiny@1"] and await translated(folder)
        assert [event["event"] for event in logs if event["log_level"] == "warning"] == [
            "the folder of models is not as expected"
        ] * 2
        renamed(tiny_bundle, root / "new", bundle_id="new")
        await folder.look()
        assert loaded(folder) == ["new@1"]


async def test_what_is_edited_in_place_is_loaded_anew_and_what_is_renamed_stays(root: Path, tiny_bundle: Path) -> None:
    renamed(tiny_bundle, root / "a")
    renamed(tiny_bundle, root / "b", bundle_id="other")
    async with watched(root) as folder:
        before = folder.models.find("tiny", "1")
        renamed(tiny_bundle, root / "a", training={"data": "other", "licence": "none", "credit": "none"})
        await folder.look()
        after = folder.models.find("tiny", "1")
        assert after is not before and after.digest != before.digest
        renamed(tiny_bundle, root / "a", version="2")
        await folder.look()
        assert loaded(folder) == ["other@1", "tiny@2"]
        (root / "a").rename(root / "moved")
        await folder.look()
        assert loaded(folder) == ["other@1", "tiny@2"]
        assert folder.models.find("tiny", "2").folder == root / "moved"


async def test_an_activation_lasts_until_the_set_of_folders_changes(root: Path, tiny_bundle: Path) -> None:
    for version in ("1", "2"):
        renamed(tiny_bundle, root / version, version=version)
    async with watched(root) as folder:
        assert folder.activate("tiny", "").previous_version == "2"
        for _ in range(3):
            await folder.look()
        assert active(folder) == ["tiny@1"]
        renamed(tiny_bundle, root / "3", version="3")
        await folder.look()
        assert active(folder) == ["tiny@3"]


async def test_administrators_load_and_unload_by_the_same_rules(root: Path, tiny_bundle: Path) -> None:
    renamed(tiny_bundle, root / "first")
    async with watched(root) as folder:
        renamed(tiny_bundle, root / "second", version="2")
        model, previous = await folder.load("second")
        assert (model.manifest.version, previous) == ("2", "1")
        await folder.look()
        assert counted(folder, "loaded") == 2
        with pytest.raises(ModelInUse, match="activate another version first"):
            await folder.unload("tiny", "2")
        await folder.unload("tiny", "1")
        await folder.look()
        assert loaded(folder) == ["tiny@2"]  # its folder is still there, and has not changed
        assert (await folder.load("first")).previous_version == "2"
        for name in ("third", "../models/first", ".", "", "a/b", "x" * 200):
            with pytest.raises(ModelNotFound, match="no bundle in a folder of that name"):
                await folder.load(name)
        (root / "first" / "extra").touch()
        with pytest.raises(ModelRefused, match="extra is in the folder but not in the manifest"):
            await folder.load("first")
        assert active(folder) == ["tiny@1"]


async def test_without_a_folder_of_models_nothing_can_be_loaded() -> None:
    async with watched(None) as folder:
        with pytest.raises(ModelNotFound, match="which is not set, so nothing can be loaded"):
            await folder.load("first")
        with pytest.raises(ModelInUse, match="the only model there is"):
            await folder.unload("en-fr", "3")


async def test_two_folders_of_one_name_and_version_are_served_by_the_first(root: Path, tiny_bundle: Path) -> None:
    renamed(tiny_bundle, root / "a")
    renamed(tiny_bundle, root / "b")
    renamed(tiny_bundle, root / "c", bundle_id="other")
    async with watched(root) as folder:
        assert folder.models.find("tiny", "1").folder == root / "a"
        with pytest.raises(ModelRefused, match="is called tiny@1, as is the bundle in .*/a; give one of them another"):
            await folder.load("b")
        shutil.rmtree(root / "a")
        await folder.look()
        assert folder.models.find("tiny", "1").folder == root / "b"


async def test_what_does_not_fit_into_the_budget_waits_for_an_unloading(root: Path, tiny_bundle: Path) -> None:
    for version in ("1", "2"):
        renamed(tiny_bundle, root / version, version=version)
    size = sum(file.stat().st_size for file in tiny_bundle.iterdir())
    async with watched(root, models_memory_bytes=2 * size) as folder:
        renamed(tiny_bundle, root / "3", version="3")
        with pytest.raises(ModelRefused, match="INTERLINEAR_MODELS_MEMORY_BYTES allows"):
            await folder.load("3")
        await folder.look()
        assert active(folder) == ["tiny@2"]
        await folder.unload("tiny", "1")
        await asyncio.sleep(0.1)  # until it is closed
        await folder.look()
        assert active(folder) == ["tiny@3"]


async def test_the_watcher_looks_by_itself_and_survives_what_it_meets(root: Path, tiny_bundle: Path) -> None:
    renamed(tiny_bundle, root / "1")
    async with watched(root, models_poll_seconds=0.02) as folder:
        os.mkfifo(root / "fifo")
        (root / "loop").symlink_to(root / "loop")
        (root / "bad").mkdir()
        os.mkfifo(root / "bad" / "manifest.json")
        renamed(tiny_bundle, root / "2", version="2")
        async with asyncio.timeout(30):
            while active(folder) != ["tiny@2"] or counted(folder, "refused") < 1:
                assert await translated(folder)
                await asyncio.sleep(0.02)
        assert counted(folder, "refused") == 1


async def test_a_reverse_model_serves_the_models_that_it_is_the_reverse_of(root: Path, tiny_bundle: Path) -> None:
    back = renamed(tiny_bundle, root.parent / "back", bundle_id="back", source_language="fr", target_language="en")
    renamed(tiny_bundle, root / "1")
    renamed(tiny_bundle, root / "2", bundle_id="german", target_language="de")
    both = TranslationOptions(alignment=True, alignment_method="intersection")
    async with watched(root, reverse_bundle=back) as folder:
        assert [model.reverse_digest != "" for model in folder.models.listed()] == [False, True]
        with folder.models.leased("tiny", "", "") as model:
            renamed(tiny_bundle, root / "3", version="3")
            await folder.look()
            await folder.unload("tiny", "1")
            translation = await model.translator.translate(TEXT, both)
        assert translation.hypotheses[0].alignment is not None


async def test_a_bundle_that_is_only_touched_stays_as_it_is_and_undoes_no_roll_back(
    root: Path, tiny_bundle: Path
) -> None:
    for version in ("1", "2"):
        renamed(tiny_bundle, root / version, version=version)
    async with watched(root) as folder:
        folder.activate("tiny", "1")
        before = folder.models.listed()
        (root / "2" / "encoder.onnx").chmod(0o600)
        for _ in range(3):
            await folder.look()
        assert active(folder) == ["tiny@1"] and folder.models.listed() == before
        assert counted(folder, "loaded") == 2
        renamed(tiny_bundle, root / "2", version="2", source_language="de")
        await folder.look()
        assert active(folder) == ["tiny@2"] and counted(folder, "loaded") == 3
        folder.activate("tiny", "1")
        await folder.load("2")  # whoever asks for it gets it
        assert active(folder) == ["tiny@2"]


async def test_what_is_damaged_is_refused_once_however_many_other_models_go(root: Path, tiny_bundle: Path) -> None:
    for version in ("1", "2", "3"):
        renamed(tiny_bundle, root / version, version=version)
    (renamed(tiny_bundle, root / "cut", version="4") / "encoder.onnx").write_bytes(b"cut short")
    async with watched(root) as folder:
        assert (counted(folder, "refused"), refused_now(folder)) == (1, 1)
        await folder.unload("tiny", "1")
        shutil.rmtree(root / "2")
        for _ in range(3):
            await folder.look()
        assert loaded(folder) == ["tiny@3"]
        assert (counted(folder, "refused"), refused_now(folder)) == (1, 1)


async def test_the_gauge_tells_of_bundles_that_are_refused_until_they_are_mended_or_gone(
    root: Path, tiny_bundle: Path
) -> None:
    renamed(tiny_bundle, root / "a")
    renamed(tiny_bundle, root / "b")
    (renamed(tiny_bundle, root / "cut", version="2") / "encoder.onnx").write_bytes(b"cut short")
    async with watched(root) as folder:
        assert refused_now(folder) == 2
        renamed(tiny_bundle, root / "cut", version="2")
        await folder.look()
        assert refused_now(folder) == 1 and active(folder) == ["tiny@2"]
        shutil.rmtree(root / "a")
        await folder.look()
        assert refused_now(folder) == 0 and folder.models.find("tiny", "1").folder == root / "b"
        (root / "b" / "encoder.onnx").write_bytes(b"edited in place")
        for _ in range(3):
            await folder.look()
        assert refused_now(folder) == 1
        shutil.rmtree(root / "b")
        await folder.look()
        assert refused_now(folder) == 0
