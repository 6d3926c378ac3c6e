"""Models to export: random ones, narrow (fast) and wide (as wide as the shipped one), and a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from exporters.graphs import Graphs, export_graphs
from exporters.quantization import calibrate, quantize
from exporters.runtime import OnnxModel
from tests.exporters.text import random_batch
from tests.reversal import train_reversal
from training.evaluation import SPECIAL_IDS
from training.models.interface import TranslationModel
from training.models.registry import build_model
from training.translation import Translator


@dataclass(frozen=True)
class Exported:
    """One model in three forms."""

    trained: TranslationModel
    graphs: Graphs
    float32: OnnxModel
    int8: OnnxModel

    def translator(self, precision: str) -> Translator:
        return Translator(getattr(self, precision), SPECIAL_IDS, 24)


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
    return train_reversal(folder, 1500, embedding=16, hidden=32, key=16, layers=2, steps=60, validate_every=60)
