"""float32 graphs to int8: weights by output channel, activations with scales fixed once for all.

Every product with constant weights becomes QuantizeLinear → MatMulIntegerToFloat, ONNX Runtime's own operator for an
integer product with its scales and bias. The scale of an activation is a constant and never taken from the batch, so a
row's result depends on that row alone: batch invariance survives. Recurrent layers become loops of such products
(``exporters.recurrence``). Embeddings are int8 by row; a table that is also the output projection is stored once. What
stays float32 at run time (the products that make the decoder's first state) is stored as float16.

An activation x is rounded to s·round(x/s), s = bound / 127. The bound is the largest absolute value that the activation
takes on calibration text, times ``MARGIN``; what lies beyond is clipped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir

from bundle.sessions import encoder_inputs
from exporters.editing import GraphEditor, array_of, name_of
from exporters.graphs import Graphs
from exporters.integers import DOMAIN, LEVELS, IntegerProducts
from exporters.recurrence import grus, loop_of_products
from exporters.runtime import OnnxModel
from training.corpus import Batch

MARGIN = 1.05
_WORTH_HALVING = 65_536  # elements; a smaller float32 constant stays as it is

Bounds = dict[str, dict[str, float]]  # by graph, then by activation


def calibrate(graphs: Graphs, model: OnnxModel, batches: Iterable[Batch]) -> Bounds:
    """Return the bound of every activation that is multiplied with constant weights, measured on ``batches``.

    Args:
        graphs: The float32 graphs.
        model: The same graphs, loaded; only its special ids are used.
        batches: Calibration text; targets are forced.
    """
    wanted = {
        name: [name_of(node.inputs[0]) for node in (*(product.node for product in _products(graph)), *grus(graph))]
        for name, graph in graphs.models.items()
    }
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
    """A matrix product ``activation × weights + bias``; ``by_row``: the rows of the weights are its output channels.

    ``result`` is what is left of it for others to read: its own output, or that of the addition of the bias.
    """

    node: onnx_ir.Node
    weights: onnx_ir.Value
    by_row: bool
    bias: onnx_ir.Value | None
    result: onnx_ir.Value


def _products(model: onnx_ir.Model) -> list[_Product]:
    """Return the matrix products with constant weights, in graph order.

    Gemm is left out: it comes from vectors of a sentence (the decoder's first state) and is run once.
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
            found.append(_Product(node, weights, by_row, *_biased(node.outputs[0])))
    return found


def _biased(product: onnx_ir.Value) -> tuple[onnx_ir.Value | None, onnx_ir.Value]:
    """Return the constant vector that is added to ``product``, and the sum; no vector if other things become of it."""
    uses = list(product.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not product.is_graph_output():
        addition = uses[0].node
        for value in addition.inputs:
            if value is not None and value.is_initializer() and array_of(value).ndim == 1:
                return value, addition.outputs[0]
    return None, product


def _with_outputs(graphs: Graphs, wanted: Mapping[str, Iterable[str]]) -> dict[str, bytes]:
    """Return the graphs with the ``wanted`` values among their outputs."""
    models = {}
    for name, model in graphs.models.items():
        models[name] = model.clone()
        graph = models[name].graph
        values = {name_of(value): value for node in graph for value in node.outputs}
        present = {name_of(value) for value in graph.outputs}
        graph.outputs.extend(values[wish] for wish in dict.fromkeys(wanted[name]) if wish in values.keys() - present)
    return Graphs(models, graphs.signature).serialized()


class _Quantizer:
    """Rewrites one graph in place; what several nodes share is quantized once."""

    def __init__(self, model: onnx_ir.Model, bounds: Mapping[str, float]) -> None:
        self._model, self._graph, self._bounds = model, model.graph, bounds
        self._editor = GraphEditor(self._graph)
        self._integers = IntegerProducts(self._editor)

    def quantized(self) -> onnx_ir.Model:
        for product in _products(self._model):
            scale = self._scale(product.node.inputs[0])
            levels = self._integers.rounded(product.node, product.node.inputs[0], scale)
            weights = self._integers.weights(product.node, product.weights, product.by_row)
            result = self._integers.product(product.node, levels, weights, product.bias)
            self._editor.replace(product.result, result)
        for gru in grus(self._model):
            loop_of_products(self._editor, self._integers, gru, self._scale(gru.inputs[0]))
        for node in [node for node in self._graph if node.op_type == "Gather"]:
            table = node.inputs[0]
            if table is not None and table.is_initializer() and table.dtype == onnx_ir.DataType.FLOAT:
                self._quantize_embedding(node, table)
        self._editor.remove_unused()
        self._halve_constants()
        self._model.opset_imports[DOMAIN] = 1
        return self._model

    def _scale(self, activation: onnx_ir.Value | None) -> float:
        return self._bounds[name_of(activation)] / LEVELS

    def _quantize_embedding(self, node: onnx_ir.Node, table: onnx_ir.Value) -> None:
        before = self._editor.before
        rows, scale = self._integers.levels(table, by_row=True)
        ids = node.inputs[1]
        taken = before(node, "Cast", [before(node, "Gather", [rows, ids])], {"to": onnx_ir.DataType.FLOAT})
        last = self._editor.constant("last_axis", np.array([-1]))
        scales = before(node, "Unsqueeze", [before(node, "Gather", [scale, ids]), last])
        self._editor.replace(node.outputs[0], before(node, "Mul", [taken, scales]))

    def _halve_constants(self) -> None:
        first = self._graph[0]
        for name, value in list(self._graph.initializers.items()):
            array = array_of(value)
            if array.dtype == np.float32 and array.size >= _WORTH_HALVING:
                half = self._editor.constant(f"{name}_float16", array.astype(np.float16))
                whole = self._editor.before(first, "Cast", [half], {"to": onnx_ir.DataType.FLOAT})
                value.replace_all_uses_with(whole)
                del self._graph.initializers[name]
