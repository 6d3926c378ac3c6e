"""float32 graphs to int8: weights by output channel, activations with scales fixed once for all.

Every product with constant weights becomes QuantizeLinear → DequantizeLinear → MatMul, which ONNX Runtime fuses into
one integer product. The scale of an activation is a constant and never taken from the batch, so a row's result depends
on that row alone: batch invariance survives. Embeddings are int8 by row; a table that is also the output projection is
stored once. What stays float32 at run time (the weights of the GRU operator and of the products that make the decoder's
first state) is stored as float16.

An activation x is rounded to s·round(x/s), s = bound / 127. The bound is the largest absolute value that the activation
takes on calibration text, times ``MARGIN``; what lies beyond is clipped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from jaxtyping import Float, Int8

from bundle.sessions import encoder_inputs
from exporters.graphs import Graphs
from exporters.runtime import OnnxModel
from training.corpus import Batch

MARGIN = 1.05
_LEVELS = 127
_WORTH_HALVING = 65_536  # elements; a smaller float32 constant stays as it is

Bounds = dict[str, dict[str, float]]  # by graph, then by activation


def calibrate(graphs: Graphs, model: OnnxModel, batches: Iterable[Batch]) -> Bounds:
    """Return the bound of every activation that is multiplied with constant weights, measured on ``batches``.

    Args:
        graphs: The float32 graphs.
        model: The same graphs, loaded; only its special ids are used.
        batches: Calibration text; targets are forced.
    """
    wanted = {name: [product.activation for product in _products(graph)] for name, graph in graphs.models.items()}
    observed = OnnxModel(_with_outputs(graphs, wanted), model.special_ids)
    largest = {name: dict.fromkeys(activations, 0.0) for name, activations in wanted.items()}

    def note(graph: str, tensors: Mapping[str, np.ndarray]) -> None:
        for name in wanted[graph]:
            largest[graph][name] = max(largest[graph][name], float(np.abs(tensors[name]).max()))

    for batch in batches:
        sources = [row[:length] for row, length in zip(batch.source_ids, batch.source_lengths, strict=True)]
        note("encoder", observed.run("encoder", encoder_inputs(sources, observed.special_ids.pad), wanted["encoder"]))
        for tensors in observed.forced(observed.encode(sources), batch.target_input_ids, wanted["decoder_step"]):
            note("decoder_step", tensors)
    return {graph: {name: MARGIN * value for name, value in values.items()} for graph, values in largest.items()}


def quantize(graphs: Graphs, bounds: Bounds) -> Graphs:
    """Return the int8 graphs; ``graphs`` stay as they were."""
    return Graphs(
        {name: _Quantizer(model.clone(), bounds[name]).quantized() for name, model in graphs.models.items()},
        graphs.signature,
    )


@dataclass(frozen=True)
class _Product:
    """A matrix product ``activation × weights``; ``by_row``: the rows of the weights are its output channels."""

    node: onnx_ir.Node
    weights: onnx_ir.Value
    by_row: bool

    @property
    def activation(self) -> str:
        return _name(self.node.inputs[0])


def _products(model: onnx_ir.Model) -> list[_Product]:
    """Return the matrix products with constant weights, in graph order.

    Gemm is left out: it comes from vectors of a sentence (the decoder's first state), is run once, and ONNX Runtime
    fuses no integer product there.
    """
    found = []
    for node in model.graph:
        if node.op_type != "MatMul":
            continue
        weights = node.inputs[1]
        origin = weights.producer() if weights is not None else None
        by_row = origin is not None and origin.op_type == "Transpose"
        if origin is not None and by_row:
            weights = origin.inputs[0]
        if weights is not None and weights.is_initializer():
            found.append(_Product(node, weights, by_row))
    return found


def _with_outputs(graphs: Graphs, wanted: Mapping[str, Iterable[str]]) -> dict[str, bytes]:
    """Return the graphs with the ``wanted`` values among their outputs."""
    models = {}
    for name, model in graphs.models.items():
        models[name] = model.clone()
        graph = models[name].graph
        values = {_name(value): value for node in graph for value in node.outputs}
        present = {_name(value) for value in graph.outputs}
        graph.outputs.extend(values[wish] for wish in dict.fromkeys(wanted[name]) if wish in values.keys() - present)
    return Graphs(models, graphs.signature).serialized()


class _Quantizer:
    """Rewrites one graph in place; what several nodes share is quantized once."""

    def __init__(self, model: onnx_ir.Model, bounds: Mapping[str, float]) -> None:
        self._model, self._graph, self._bounds = model, model.graph, bounds
        self._activations: dict[str, onnx_ir.Value] = {}
        self._weights: dict[tuple[str, bool], tuple[onnx_ir.Value, onnx_ir.Value]] = {}
        self._zero = self._constant("int8_zero", np.int8(0))

    def quantized(self) -> onnx_ir.Model:
        for product in _products(self._model):
            self._quantize_product(product)
        for node in [node for node in self._graph if node.op_type == "Gather"]:
            table = node.inputs[0]
            if table is not None and table.is_initializer() and table.dtype == onnx_ir.DataType.FLOAT:
                self._quantize_embedding(node, table)
        self._remove_unused()
        self._halve_constants()
        return self._model

    def _quantize_product(self, product: _Product) -> None:
        node = product.node
        weights, scale = self._quantized_weights(product.weights, product.by_row)
        if product.by_row:
            weights = self._before(node, "Transpose", [weights], {"perm": [1, 0]})
        # ONNX Runtime wants the zero points spelt out where it makes weights unsigned (x86 without VNNI).
        zeros = self._constant(f"{_name(scale)}_zeros", np.zeros(_array(scale).shape, np.int8))
        weights = self._before(node, "DequantizeLinear", [weights, scale, zeros], {"axis": 1})
        self._replace(node, self._before(node, "MatMul", [self._rounded(node, node.inputs[0]), weights]))

    def _quantize_embedding(self, node: onnx_ir.Node, table: onnx_ir.Value) -> None:
        rows, scale = self._quantized_weights(table, by_row=True)
        ids = node.inputs[1]
        taken = self._before(node, "Cast", [self._before(node, "Gather", [rows, ids])], {"to": onnx_ir.DataType.FLOAT})
        last = self._constant("last_axis", np.array([-1]))
        scales = self._before(node, "Unsqueeze", [self._before(node, "Gather", [scale, ids]), last])
        self._replace(node, self._before(node, "Mul", [taken, scales]))

    def _rounded(self, node: onnx_ir.Node, activation: onnx_ir.Value | None) -> onnx_ir.Value:
        name = _name(activation)
        if name not in self._activations:
            scale = self._constant(f"{name}_activation_scale", np.float32(self._bounds[name] / _LEVELS))
            levels = self._before(node, "QuantizeLinear", [activation, scale, self._zero])
            self._activations[name] = self._before(node, "DequantizeLinear", [levels, scale, self._zero])
        return self._activations[name]

    def _quantized_weights(self, weights: onnx_ir.Value, by_row: bool) -> tuple[onnx_ir.Value, onnx_ir.Value]:
        key = (_name(weights), by_row)
        if key not in self._weights:
            levels, scale = _by_channel(_array(weights), axis=0 if by_row else 1)
            suffix = "" if by_row else "_by_column"
            self._weights[key] = (
                self._constant(f"{key[0]}_int8{suffix}", levels),
                self._constant(f"{key[0]}_scale{suffix}", scale),
            )
        return self._weights[key]

    def _halve_constants(self) -> None:
        first = self._graph[0]
        for name, value in list(self._graph.initializers.items()):
            array = _array(value)
            if array.dtype == np.float32 and array.size >= _WORTH_HALVING:
                half = self._constant(f"{name}_float16", array.astype(np.float16))
                whole = self._before(first, "Cast", [half], {"to": onnx_ir.DataType.FLOAT})
                value.replace_all_uses_with(whole)
                del self._graph.initializers[name]

    def _remove_unused(self) -> None:
        for node in reversed(list(self._graph)):
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                self._graph.remove(node, safe=True)
        for name, value in list(self._graph.initializers.items()):
            if not value.uses():
                del self._graph.initializers[name]

    def _before(
        self,
        node: onnx_ir.Node,
        operator: str,
        inputs: Sequence[onnx_ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
    ) -> onnx_ir.Value:
        new = onnx_ir.node(operator, inputs, attributes)
        node.prepend(new)
        return new.outputs[0]

    def _constant(self, name: str, array: np.ndarray | np.generic) -> onnx_ir.Value:
        if name not in self._graph.initializers:
            tensor = onnx_ir.tensor(np.asarray(array), name=name)
            shape, kind = onnx_ir.Shape(np.shape(array)), onnx_ir.TensorType(tensor.dtype)
            self._graph.register_initializer(onnx_ir.Value(name=name, const_value=tensor, shape=shape, type=kind))
        return self._graph.initializers[name]

    def _replace(self, node: onnx_ir.Node, result: onnx_ir.Value) -> None:
        old = node.outputs[0]
        name, result.shape, result.type = old.name, old.shape, old.type
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        result.name = name


def _by_channel(
    weights: Float[np.ndarray, "rows columns"], axis: int
) -> tuple[Int8[np.ndarray, "rows columns"], Float[np.ndarray, "channels"]]:
    """Return symmetric 8-bit levels and the scale of each channel along ``axis``."""
    largest = np.abs(weights).max(axis=1 - axis, keepdims=True)
    scale = (largest / _LEVELS).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 1.0  # a channel of zeros, or as good as zeros
    return np.rint(weights / scale).clip(-_LEVELS, _LEVELS).astype(np.int8), scale.reshape(-1)


def _array(value: onnx_ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()


def _name(value: onnx_ir.Value | None) -> str:
    assert value is not None and value.name is not None
    return value.name
