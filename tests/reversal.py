"""The smallest real task: reverse a string of digits. It trains in well under a minute, and its alignment is known."""

import random
from collections.abc import Callable
from pathlib import Path

from training.loop import train

SEED = 7
_CONFIG = """
seed = {seed}

[data]
source_language = "x-digits"
target_language = "x-reversed"
train = [{{ source = "{folder}/train.tsv" }}]
dev = [{{ source = "{folder}/dev.tsv" }}]
max_source_tokens = 20
max_target_tokens = 20
licence = "CC0-1.0"
credit = "Made by tests/reversal.py."

[vocabulary]
size = {vocabulary}
character_coverage = 1.0

[model]
architecture = "aed"
embedding = {embedding}
hidden = {hidden}
key = {key}
encoder_layers = {layers}
decoder_layers = {layers}
dropout = 0.0

[schedule]
steps = {steps}
batch_tokens = {batch_tokens}
learning_rate = {learning_rate}
warmup_steps = {warmup_steps}
decay_steps = {decay_steps}
label_smoothing = 0.0
average_decay = 0.9
validate_every = {validate_every}
validation_sentences = 8
"""
_LEARNS_IT = {
    "seed": 3,
    "vocabulary": 15,
    "embedding": 32,
    "hidden": 64,
    "key": 32,
    "layers": 1,
    "steps": 500,
    "batch_tokens": 1500,
    "learning_rate": "8e-3",
    "warmup_steps": 50,
    "decay_steps": 300,
    "validate_every": 250,
}


def digit_strings(count: int, seed: int) -> list[str]:
    """Return strings of 3 to 12 random digits."""
    generator = random.Random(seed)
    return ["".join(generator.choices("0123456789", k=generator.randint(3, 12))) for _ in range(count)]


def spelled(digits: str) -> str:
    """Return a letter for each digit, with spaces between: words of one piece, where digits are one word of many."""
    return " ".join("abcdefghij"[int(digit)] for digit in digits)


def write_run(folder: Path, pairs: int = 20_000, spelling: Callable[[str], str] = str, **changes: int | str) -> Path:
    """Write the task's text into ``folder`` and return its run; without changes the run learns the task."""
    for name, count, seed in (("train", pairs, SEED), ("dev", 50, SEED + 1)):
        lines = [f"{spelling(digits)}\t{spelling(digits[::-1])}\n" for digits in digit_strings(count, seed)]
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    config = folder / "run.toml"
    config.write_text(_CONFIG.format(folder=folder, **(_LEARNS_IT | changes)), encoding="utf-8")
    return config


def train_reversal(
    folder: Path, pairs: int = 20_000, spelling: Callable[[str], str] = str, **changes: int | str
) -> Path:
    """Train the task in ``folder``; return its last checkpoint. ``train.tsv`` there is the training text."""
    train(write_run(folder, pairs, spelling, **changes), folder / "run")
    return folder / "run" / "last"
