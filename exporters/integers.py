"""Integer products in a graph: weights as 8-bit levels by output channel, activations as levels of one fixed scale.

On x86 without VNNI, ONNX Runtime makes weights unsigned where it is told to be exact (``bundle.sessions``), but only
those that are constants of the very graph that the product stands in, with their zeros: so zeros are spelt out, and the
weights of a product inside a loop or a choice stand in there with it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir
from jaxtyping import Float, Int8

from exporters.editing import GraphEditor, array_of, name_of

OPERATOR, DOMAIN = "MatMulIntegerToFloat", "com.microsoft"
LEVELS = 127  # on either side of zero
_ZERO = 128  # of an activation: unsigned levels are what processors multiply fastest with signed weights


class Levels(NamedTuple):
    """An activation as 8-bit levels, and the size of a level."""

    levels: onnx_ir.Value
    scale: onnx_ir.Value


@dataclass(frozen=True)
class Weights:
    """Weights ``[inner channels]`` as signed levels, with a scale and a zero for each channel."""

    levels: onnx_ir.Value
    scale: onnx_ir.Value
    zeros: onnx_ir.Value


class IntegerProducts:
    """Writes integer products into one graph; what several of them share is written once."""

    def __init__(self, editor: GraphEditor) -> None:
        self._editor = editor
        self._rounded: dict[str, Levels] = {}
        self._levels: dict[tuple[str, bool], tuple[onnx_ir.Value, onnx_ir.Value]] = {}
        self.zero = editor.constant("activation_zero", np.uint8(_ZERO))

    def rounded(self, node: onnx_ir.Node, activation: onnx_ir.Value | None, scale: float) -> Levels:
        """Return ``activation``, rounded before ``node``."""
        name = name_of(activation)
        if name not in self._rounded:
            size = self._editor.constant(f"{name}_activation_scale", np.float32(scale))
            levels = self._editor.before(node, "QuantizeLinear", [activation, size, self.zero])
            self._rounded[name] = Levels(levels, size)
        return self._rounded[name]

    def weights(self, node: onnx_ir.Node, weights: onnx_ir.Value, by_row: bool) -> Weights:
        """Return constant ``weights`` for products before ``node``; ``by_row``: their rows are the channels."""
        levels, scale = self.levels(weights, by_row)
        if by_row:
            levels = self._editor.before(node, "Transpose", [levels], {"perm": [1, 0]})
        return Weights(levels, scale, _zeros(self._editor, scale))

    def levels(self, weights: onnx_ir.Value, by_row: bool) -> tuple[onnx_ir.Value, onnx_ir.Value]:
        """Return levels in the shape of ``weights``, and a scale for each row or column."""
        key = (name_of(weights), by_row)
        if key not in self._levels:
            levels, scale = by_channel(array_of(weights), axis=0 if by_row else 1)
            suffix = "" if by_row else "_by_column"
            self._levels[key] = (
                self._editor.constant(f"{key[0]}_int8{suffix}", levels),
                self._editor.constant(f"{key[0]}_scale{suffix}", scale),
            )
        return self._levels[key]

    def product(
        self, node: onnx_ir.Node, activation: Levels, weights: Weights, bias: onnx_ir.Value | None
    ) -> onnx_ir.Value:
        """Return ``activation × weights + bias`` in float32, worked out before ``node``."""
        return self._editor.before(node, OPERATOR, self.inputs(activation, weights, bias), domain=DOMAIN)

    def inputs(self, activation: Levels, weights: Weights, bias: onnx_ir.Value | None) -> list[onnx_ir.Value]:
        """Return what ``OPERATOR`` reads for ``activation × weights + bias``, in its order."""
        always = [activation.levels, weights.levels, activation.scale, weights.scale, self.zero, weights.zeros]
        return [*always, *([bias] if bias else [])]


def new_weights(editor: GraphEditor, name: str, weights: Float[np.ndarray, "inner channels"]) -> Weights:
    """Return ``weights`` as constants of the graph of ``editor``, which did not have them."""
    levels, scale = by_channel(weights, axis=1)
    size = editor.constant(f"{name}_scale", scale)
    return Weights(editor.constant(f"{name}_int8", levels), size, _zeros(editor, size))


def _zeros(editor: GraphEditor, scale: onnx_ir.Value) -> onnx_ir.Value:
    return editor.constant(f"{name_of(scale)}_zeros", np.zeros(array_of(scale).shape, np.int8))


def by_channel(
    weights: Float[np.ndarray, "rows columns"], axis: int
) -> tuple[Int8[np.ndarray, "rows columns"], Float[np.ndarray, "channels"]]:
    """Return symmetric 8-bit levels and the scale of each channel along ``axis``."""
    largest = np.abs(weights).max(axis=1 - axis, keepdims=True)
    scale = (largest / LEVELS).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 1.0  # a channel of zeros, or as good as zeros
    return np.rint(weights / scale).clip(-LEVELS, LEVELS).astype(np.int8), scale.reshape(-1)
