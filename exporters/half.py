"""float32 graphs to float16, for graphics processors: weights and what is multiplied with them, and nothing else.

A product with constant weights takes float16 and gives float16, and is summed in float32 inside. What comes of it is
float32 again: gates and state of the decoder, attention from scores to weights, logarithms of probabilities, and all
that a decomposition reads. Inputs and outputs are float32, so a reader needs to know nothing of it. The encoder's
recurrence runs in float32 with weights that are stored as float16.

A processor of graphics can record a step and play it again, if the graph holds no choice. So emission scores stand in
it for good, but for as many hypotheses and positions as an input says, by default for none.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir

from exporters.editing import GraphEditor, array_of, name_of
from exporters.graphs import Graphs, behind

_WORTH_HALVING = 65_536  # elements; a smaller float32 constant that is not multiplied with stays as it is
_FLOAT, _HALF = {"to": onnx_ir.DataType.FLOAT}, {"to": onnx_ir.DataType.FLOAT16}


@dataclass(frozen=True)
class HalfGraphs(Graphs):
    """Graphs whose emission scores are limited and no choice."""

    def serialized(self) -> dict[str, bytes]:
        """Return the content of each graph's file, by graph name; equal models give equal bytes."""
        return {
            name: onnx_ir.to_proto(model).SerializeToString(deterministic=True) for name, model in self.models.items()
        }


def halve(graphs: Graphs) -> HalfGraphs:
    """Return the float16 graphs; ``graphs`` stay as they were."""
    models = {name: model.clone() for name, model in graphs.models.items()}
    for model in models.values():
        _limit_emission(model.graph)
        _Halver(model.graph).halve()
    return HalfGraphs(models, graphs.signature)


class _Halver:
    """Rewrites one graph in place; what several nodes share is cast once."""

    def __init__(self, graph: onnx_ir.Graph) -> None:
        self._graph, self._editor = graph, GraphEditor(graph)
        self._cast: dict[onnx_ir.Value, onnx_ir.Value] = {}  # from what is float32 to the same in float16

    def halve(self) -> None:
        for node in list(self._graph):
            if node.op_type in ("MatMul", "Gemm") and (weights := self._weights(node)) is not None:
                self._halve_product(node, weights)
            elif node.op_type == "Gather" and _is_float(node.inputs[0]):
                rows = self._editor.before(node, "Gather", [self._constant(node.inputs[0]), node.inputs[1]])
                self._replace(node, rows)
        self._editor.remove_unused()
        self._store_in_half()

    def _weights(self, node: onnx_ir.Node) -> onnx_ir.Value | None:
        """Return what ``node`` multiplies with, in float16, if it is constant; a table may stand there turned."""
        weights = node.inputs[1]
        origin = weights.producer() if weights is not None else None
        if origin is not None and origin.op_type == "Transpose" and _is_float(origin.inputs[0]):
            return self._editor.before(node, "Transpose", [self._constant(origin.inputs[0])], {"perm": [1, 0]})
        return self._constant(weights) if _is_float(weights) else None

    def _halve_product(self, node: onnx_ir.Node, weights: onnx_ir.Value) -> None:
        rest = [self._constant(value) for value in node.inputs[2:]]  # the bias of Gemm
        inputs = [self._half(node, node.inputs[0]), weights, *rest]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        self._replace(node, self._editor.before(node, node.op_type, inputs, attributes))

    def _half(self, node: onnx_ir.Node, value: onnx_ir.Value | None) -> onnx_ir.Value:
        """Return ``value`` in float16, as it was before if it was."""
        assert value is not None
        if value not in self._cast:
            self._cast[value] = self._editor.before(node, "Cast", [value], _HALF)
        return self._cast[value]

    def _constant(self, value: onnx_ir.Value | None) -> onnx_ir.Value:
        return self._editor.constant(f"{name_of(value)}_float16", array_of(value).astype(np.float16))

    def _replace(self, node: onnx_ir.Node, half: onnx_ir.Value) -> None:
        whole = self._editor.before(node, "Cast", [half], _FLOAT)
        self._cast[whole] = half
        self._editor.replace(node.outputs[0], whole)

    def _store_in_half(self) -> None:
        first = self._graph[0]
        for name, value in list(self._graph.initializers.items()):
            if _is_float(value) and array_of(value).size >= _WORTH_HALVING:
                value.replace_all_uses_with(self._editor.before(first, "Cast", [self._constant(value)], _FLOAT))
                del self._graph.initializers[name]


def _is_float(value: onnx_ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.dtype == onnx_ir.DataType.FLOAT


def _limit_emission(graph: onnx_ir.Graph) -> None:
    """Work out emission scores for as many hypotheses and positions as the input ``emission_limit`` says, or none."""
    wanted = next((value for value in graph.outputs if value.name == "emission_scores"), None)
    if wanted is None:
        return
    alone = behind([wanted]) - behind([value for value in graph.outputs if value is not wanted])
    editor = GraphEditor(graph)
    limit, start, axis = (
        editor.constant(name, np.array([number]))
        for name, number in (("emission_limit", 0), ("emission_start", 0), ("emission_axis", 1))
    )
    graph.inputs.append(limit)
    cut: dict[onnx_ir.Value, onnx_ir.Value] = {}
    for node in [node for node in graph if node in alone]:
        for place, value in enumerate(node.inputs):
            if value is None or value.producer() in alone or not _is_batched(value):
                continue
            if value not in cut:  # hypotheses and positions are the second axis of everything that comes in
                cut[value] = editor.before(node, "Slice", [value, start, limit, axis])
            node.replace_input_with(place, cut[value])
        if node.op_type == "ReduceSum":
            _count_from_the_front(editor, node)


def _count_from_the_front(editor: GraphEditor, node: onnx_ir.Node) -> None:
    """Name the axes of a sum from the first on: named from the last, ONNX Runtime 1.31 leaves them in an empty sum."""
    assert node.inputs[0] is not None and node.inputs[0].shape is not None
    axes = array_of(node.inputs[1]) % len(node.inputs[0].shape)
    node.replace_input_with(1, editor.constant("axes_" + "_".join(map(str, axes.tolist())), axes))


def _is_batched(value: onnx_ir.Value) -> bool:
    """Return whether a value holds something for each sentence; weights and sizes do not."""
    return value.shape is not None and len(value.shape) > 1 and not isinstance(value.shape[0], int)
