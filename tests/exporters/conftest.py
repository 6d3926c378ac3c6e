"""Models to export: random ones, narrow (fast) and wide (as wide as the shipped one), and a checkpoint."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bundle.manifest import Limits
from exporters.decoding import Translator
from exporters.graphs import Graphs, export_graphs
from exporters.quantization import calibrate, quantize
from exporters.runtime import OnnxModel
from tests.exporters.text import random_batch
from training.evaluation import SPECIAL_IDS
from training.loop import train
from training.models.interface import TranslationModel
from training.models.registry import build_model

CONFIG = """
seed = 3

[data]
source_language = "x-digits"
target_language = "x-reversed"
train = [{{ source = "{folder}/train.tsv" }}]
dev = [{{ source = "{folder}/dev.tsv" }}]
max_source_tokens = 20
max_target_tokens = 20
licence = "CC0-1.0"
credit = "Made by a test."

[vocabulary]
size = 15
character_coverage = 1.0

[model]
architecture = "aed"
embedding = 16
hidden = 32
key = 16

[schedule]
steps = 60
batch_tokens = 800
learning_rate = 8e-3
warmup_steps = 5
decay_steps = 20
validate_every = 60
validation_sentences = 8
"""


@dataclass(frozen=True)
class Exported:
    """One model in three forms."""

    trained: TranslationModel
    graphs: Graphs
    float32: OnnxModel
    int8: OnnxModel

    def translator(self, precision: str) -> Translator:
        return Translator(getattr(self, precision), SPECIAL_IDS, Limits(64, 24))


def exported(vocabulary: int, **sizes: int) -> Exported:
    torch.manual_seed(5)
    model = build_model({"architecture": "aed", **sizes}, vocabulary).eval()
    with torch.no_grad():  # torch's own start is too timid to tell right from wrong
        for parameter in model.parameters():
            parameter.mul_(2.0)
    graphs = export_graphs(model)
    float32 = OnnxModel(graphs.serialized(), SPECIAL_IDS, threads=1)
    bounds = calibrate(graphs, float32, [random_batch(vocabulary, seed) for seed in range(4)])
    return Exported(model, graphs, float32, OnnxModel(quantize(graphs, bounds).serialized(), SPECIAL_IDS, threads=1))


@pytest.fixture(scope="session")
def narrow() -> Exported:
    return exported(40, embedding=16, hidden=32, key=16)


@pytest.fixture(scope="session")
def wide() -> Exported:
    return exported(1000, embedding=384, hidden=512, key=128)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits to be reversed, after a few seconds of training."""
    folder = tmp_path_factory.mktemp("digits")
    generator = random.Random(5)
    for name, count in (("train", 1500), ("dev", 30)):
        strings = ["".join(generator.choices("0123456789", k=generator.randint(2, 8))) for _ in range(count)]
        (folder / f"{name}.tsv").write_text("".join(f"{text}\t{text[::-1]}\n" for text in strings), encoding="utf-8")
    (folder / "run.toml").write_text(CONFIG.format(folder=folder), encoding="utf-8")
    train(folder / "run.toml", folder / "run")
    return folder / "run" / "last"
