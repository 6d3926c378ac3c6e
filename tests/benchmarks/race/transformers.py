"""CTranslate2 models with random weights, made from nothing; run by the rivals' Python: FOLDER."""

import sys
from pathlib import Path
from typing import Any

import ctranslate2  # type: ignore[import-not-found]  # it is in the rivals' environment, not in ours
import numpy as np

from tests.benchmarks.race.work import EQUAL, OPUS, VOCABULARY, Transformer

_POSITIONS = 512


def write(folder: Path, sizes: Transformer, precision: str) -> None:
    """Write a model; ``precision`` is that of its stored weights, ``float32`` or ``int8``."""
    spec = ctranslate2.specs.TransformerSpec.from_config(
        (sizes.encoder_layers, sizes.decoder_layers), sizes.heads, pre_norm=True
    )
    weights = _Weights(sizes.width)
    embedding = weights.matrix(VOCABULARY, sizes.width)
    positions = weights.matrix(_POSITIONS, sizes.width)
    for side in (spec.encoder, spec.decoder):
        for layer in side.layer:
            attentions = [layer.self_attention] + ([layer.attention] if side is spec.decoder else [])
            for attention in attentions:
                weights.attend(attention, crossed=attention is not layer.self_attention)
            weights.normalize(layer.ffn.layer_norm)
            weights.connect(layer.ffn.linear_0, sizes.feed_forward, sizes.width)
            weights.connect(layer.ffn.linear_1, sizes.width, sizes.feed_forward)
        weights.normalize(side.layer_norm)
        side.position_encodings.encodings = positions
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = embedding
    spec.decoder.projection.weight, spec.decoder.projection.bias = embedding, np.zeros(VOCABULARY, np.float32)
    names = ["<unk>", "<s>", "</s>", *(f"t{number}" for number in range(3, VOCABULARY))]
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.validate()
    spec.optimize(quantization=None if precision == "float32" else precision)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))


class _Weights:
    """Draws weights so small that nothing overflows, and puts them where a layer wants them."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._random = np.random.default_rng(4)

    def matrix(self, rows: int, columns: int) -> np.ndarray:
        return np.asarray(self._random.standard_normal((rows, columns)) * columns**-0.5, np.float32)

    def connect(self, layer: Any, rows: int, columns: int) -> None:
        layer.weight, layer.bias = self.matrix(rows, columns), np.zeros(rows, np.float32)

    def normalize(self, layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(self._width, np.float32), np.zeros(self._width, np.float32)

    def attend(self, layer: Any, crossed: bool) -> None:
        self.normalize(layer.layer_norm)
        parts = (1, 2, 1) if crossed else (3, 1)  # query, keys and values, output; or the first two in one
        for linear, part in zip(layer.linear, parts, strict=True):
            self.connect(linear, part * self._width, self._width)


def main() -> None:
    """Write every model of the race."""
    for name, sizes in (("equal", EQUAL), ("opus", OPUS)):
        for precision in ("float32", "int8"):
            write(Path(sys.argv[1]) / f"{name}-{precision}", sizes, precision)


if __name__ == "__main__":
    main()
