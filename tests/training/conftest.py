import random
from pathlib import Path

import pytest

CONFIG = """
seed = 3

[data]
source_language = "x-digits"
target_language = "x-reversed"
train = [{{ source = "{train}" }}]
dev = [{{ source = "{dev}" }}]

[vocabulary]
size = 15
character_coverage = 1.0

[model]
architecture = "aed"
embedding = 16
hidden = 32
key = 16
encoder_layers = 1
decoder_layers = 1

[schedule]
steps = 12
batch_tokens = 400
learning_rate = 3e-3
warmup_steps = 2
decay_steps = 4
validate_every = 6
validation_sentences = 8
"""


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of a second or two: spoken-out digits to be reversed."""
    folder = tmp_path_factory.mktemp("reversal")
    generator = random.Random(5)
    for name, count in (("train", 400), ("dev", 20)):
        lines = []
        for _ in range(count):
            digits = [str(generator.randrange(10)) for _ in range(generator.randint(2, 8))]
            lines.append(" ".join(digits) + "\t" + " ".join(reversed(digits)))
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CONFIG.format(train=folder / "train.tsv", dev=folder / "dev.tsv")


@pytest.fixture
def config_file(small_run: str, tmp_path: Path) -> Path:
    file = tmp_path / "run.toml"
    file.write_text(small_run, encoding="utf-8")
    return file
