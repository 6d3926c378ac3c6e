from pathlib import Path

import pytest
import torch

from training.checkpoint import Progress, load_checkpoint, load_weights, recover, save_checkpoint
from training.config import VocabularyConfig, parse_config
from training.errors import InvalidCheckpoint
from training.models.registry import build_model
from training.vocabulary import train_vocabulary


@pytest.fixture
def saved(small_run: str, tmp_path: Path) -> Path:
    vocabulary = train_vocabulary(["0 1 2 3 4 5 6 7 8 9"] * 3, VocabularyConfig(size=15), seed=1)
    model = build_model(parse_config(small_run).model, 15)
    folder = tmp_path / "best"
    save_checkpoint(folder, small_run, vocabulary, Progress(step=7), {"model": dict(model.named_parameters())})
    return folder


def test_what_is_saved_is_loaded(saved: Path, small_run: str) -> None:
    checkpoint = load_checkpoint(saved)
    assert checkpoint.config_text == small_run and checkpoint.progress.step == 7
    assert not checkpoint.model.training
    again = saved.with_name("again")
    weights = {"model": dict(checkpoint.model.named_parameters())}
    save_checkpoint(again, small_run, checkpoint.vocabulary, checkpoint.progress, weights)
    assert (again / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_a_damaged_vocabulary_is_refused(saved: Path) -> None:
    (saved / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(InvalidCheckpoint, match=r"tokenizer\.model is damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", ["config.toml", "tokenizer.model", "progress.json", "model.safetensors"])
def test_an_incomplete_checkpoint_is_refused_by_the_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(InvalidCheckpoint, match=name.split(".")[0]):
        load_checkpoint(saved)


def test_a_truncated_checkpoint_is_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InvalidCheckpoint, match="model.safetensors"):
        load_checkpoint(saved)


def test_weights_of_another_shape_are_refused_by_name(saved: Path) -> None:
    model = load_checkpoint(saved).model
    weights: dict[str, torch.Tensor] = dict(model.named_parameters())
    weights["query.weight"] = torch.zeros(2, 2)
    del weights["key.weight"]
    with pytest.raises(InvalidCheckpoint, match=r"key\.weight missing; query\.weight is \(2, 2\)"):
        load_weights(model, weights)


def test_a_crash_between_the_two_renames_loses_nothing(saved: Path) -> None:
    saved.rename(saved.with_name("best.previous"))
    assert load_checkpoint(saved).progress.step == 7 and not saved.exists(), "a reader renames nothing"
    recover(saved)
    assert load_checkpoint(saved).progress.step == 7


def test_a_half_written_checkpoint_never_takes_the_place_of_a_whole_one(saved: Path, small_run: str) -> None:
    class Broken(dict[str, torch.Tensor]):
        def items(self):  # type: ignore[no-untyped-def]
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(saved, small_run, b"", Progress(step=8), {"model": Broken()})
    assert load_checkpoint(saved).progress.step == 7
