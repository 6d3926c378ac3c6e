"""A checkpoint folder: what is needed to rebuild the model or to go on training, and nothing else.

    config.toml          the run, as it was started
    tokenizer.model      SentencePiece, normalization inside
    model.safetensors    the weights to use (the moving average, where the run keeps one)
    progress.json        step, best figures, what the corpus was
    resume.safetensors   raw weights and optimizer moments (``last`` only)

A folder is written beside its place and renamed: it is either whole or absent.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import sentencepiece
from torch import Tensor

from training.config import RunConfig, parse_config
from training.errors import InvalidCheckpoint
from training.models.interface import TranslationModel
from training.models.registry import build_model


@dataclass(frozen=True)
class Progress:
    """How far a run is. ``best_value`` and ``stale_validations`` are what early stopping compares."""

    step: int = 0
    best_value: float | None = None
    stale_validations: int = 0
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; ``model`` is in evaluation mode on the CPU, in float32."""

    config: RunConfig
    config_text: str
    model: TranslationModel
    vocabulary: bytes
    progress: Progress


def save_checkpoint(
    folder: Path,
    config_text: str,
    vocabulary: bytes,
    progress: Progress,
    weights: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Write a checkpoint; ``weights`` maps a file stem (model, resume) to its tensors by name."""
    partial = folder.with_name(folder.name + ".partial")
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.toml").write_text(config_text, encoding="utf-8")
    (partial / "tokenizer.model").write_bytes(vocabulary)
    (partial / "progress.json").write_text(json.dumps(asdict(progress), indent=1), encoding="utf-8")
    for stem, tensors in weights.items():
        distinct = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        safetensors.torch.save_file(distinct, str(partial / f"{stem}.safetensors"))
    # A folder cannot be replaced in one move: the old one steps aside, and ``recover`` brings it back after a crash.
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    partial.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put the previous checkpoint back in place if a crash came between the two renames of ``save_checkpoint``.

    For the trainer alone: a reader must not rename what a trainer may be about to write.
    """
    if _whole(folder) != folder:
        _whole(folder).rename(folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Return the model of a checkpoint folder, ready to translate.

    Raises:
        InvalidCheckpoint: A file is missing or damaged, or weights and configuration disagree.
    """
    folder = _whole(folder)
    try:
        config_text = (folder / "config.toml").read_text(encoding="utf-8")
        vocabulary = (folder / "tokenizer.model").read_bytes()
    except OSError as error:
        raise InvalidCheckpoint(f"{folder} is not a whole checkpoint: {error}.") from error
    progress = read_progress(folder)
    config = parse_config(config_text)
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=vocabulary).get_piece_size()
    except RuntimeError as error:
        raise InvalidCheckpoint(f"{folder / 'tokenizer.model'} is damaged: {error}.") from error
    model = build_model(config.model, pieces)
    load_weights(model, read_tensors(folder, "model"))
    return Checkpoint(config, config_text, model.eval(), vocabulary, progress)


def read_progress(folder: Path) -> Progress:
    """Return how far the run of a checkpoint was.

    Raises:
        InvalidCheckpoint: The file is missing or damaged.
    """
    try:
        return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidCheckpoint(f"{folder / 'progress.json'} cannot be read: {error}.") from error


def read_tensors(folder: Path, stem: str) -> dict[str, Tensor]:
    """Return the tensors of one file of a checkpoint.

    Raises:
        InvalidCheckpoint: The file is missing or damaged.
    """
    try:
        return dict(safetensors.torch.load_file(str(folder / f"{stem}.safetensors")))
    except (OSError, safetensors.SafetensorError) as error:
        raise InvalidCheckpoint(f"{folder / stem}.safetensors cannot be read: {error}.") from error


def load_weights(model: TranslationModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the parameters of the same names.

    Raises:
        InvalidCheckpoint: A name or a shape does not match.
    """
    own = dict(model.named_parameters())
    faults = [f"{name} missing" for name in own.keys() - tensors.keys()]
    faults += [f"{name} unknown" for name in tensors.keys() - own.keys()]
    faults += [
        f"{name} is {tuple(tensors[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if own[name].shape != tensors[name].shape
    ]
    if faults:
        raise InvalidCheckpoint(f"weights do not fit the model: {'; '.join(sorted(faults))}.")
    for name, parameter in own.items():
        parameter.data.copy_(tensors[name])


def _whole(folder: Path) -> Path:
    """Return where the checkpoint stands now: in its place, or beside it between the two renames of a save."""
    previous = folder.with_name(folder.name + ".previous")
    return previous if previous.exists() and not folder.exists() else folder
