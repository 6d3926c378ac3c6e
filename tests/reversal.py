"""The smallest real task: reverse a string of digits. Trained in well under a minute, its alignment is known."""

import random
from pathlib import Path

from training.loop import train

SEED = 7
_CONFIG = """
seed = 3

[data]
source_language = "x-digits"
target_language = "x-reversed"
train = [{{ source = "{folder}/train.tsv" }}]
dev = [{{ source = "{folder}/dev.tsv" }}]
licence = "CC0-1.0"
credit = "Made by tests/reversal.py."

[vocabulary]
size = 15
character_coverage = 1.0

[model]
architecture = "aed"
embedding = 32
hidden = 64
key = 32
encoder_layers = 1
decoder_layers = 1
dropout = 0.0

[schedule]
steps = 500
batch_tokens = 1500
learning_rate = 8e-3
warmup_steps = 50
decay_steps = 300
label_smoothing = 0.0
average_decay = 0.9
validate_every = 250
validation_sentences = 50
"""


def digit_strings(count: int, seed: int) -> list[str]:
    """Return strings of 3 to 12 random digits."""
    generator = random.Random(seed)
    return ["".join(generator.choices("0123456789", k=generator.randint(3, 12))) for _ in range(count)]


def train_reversal(folder: Path) -> Path:
    """Train the task in ``folder``; return its best checkpoint. ``train.tsv`` there is the training text."""
    for name, count, seed in (("train", 20_000, SEED), ("dev", 100, SEED + 1)):
        lines = [f"{digits}\t{digits[::-1]}\n" for digits in digit_strings(count, seed)]
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    config = folder / "run.toml"
    config.write_text(_CONFIG.format(folder=folder), encoding="utf-8")
    train(config, folder / "run")
    return folder / "run" / "best"
