"""A bidirectional GRU operator as a loop of integer products: ONNX Runtime has no 8-bit GRU.

Both directions read the input with one product for all positions, then go through the sentence together: the rows of
the loop's state are the batch as the forward reader sees it, followed by the batch as the backward reader sees it,
whose inputs are turned around in time. Where a reader is outside of its sentence it keeps its state, so the backward
reader begins at each sentence's own end. Gates are those of the operator with ``linear_before_reset`` (update, reset,
new).
"""

import numpy as np
import onnx_ir

from exporters.editing import GraphEditor, array_of, name_of
from exporters.integers import DOMAIN, LEVELS, OPERATOR, IntegerProducts, Levels, new_weights

_END = np.iinfo(np.int64).max


def grus(model: onnx_ir.Model) -> list[onnx_ir.Node]:
    """Return the GRU operators of a graph, in order."""
    return [node for node in model.graph if node.op_type == "GRU"]


def loop_of_products(editor: GraphEditor, integers: IntegerProducts, gru: onnx_ir.Node, scale: float) -> None:
    """Put a loop in the place of ``gru``; ``scale`` is the size of a level of its input."""
    inputs, lengths = gru.inputs[0], gru.inputs[4]
    hidden = array_of(gru.inputs[2]).shape[2]
    before = editor.before

    def numbers(*values: int) -> onnx_ir.Value:
        return _numbers(editor, *values)

    def turned(value: onnx_ir.Value) -> onnx_ir.Value:  # around in time
        return before(gru, "Slice", [value, numbers(-1), numbers(-_END), numbers(0), numbers(-1)])

    gates = _input_gates(editor, integers, gru, integers.rounded(gru, inputs, scale))
    forward, backward = editor.all_before(gru, "Split", [gates], {"axis": 2, "num_outputs": 2}, outputs=2)
    both = before(gru, "Concat", [forward, turned(backward)], {"axis": 1})
    sizes = before(gru, "Shape", [inputs], {"start": 0, "end": 2})
    time, batch = editor.all_before(gru, "Split", [sizes], {"axis": 0, "num_outputs": 2}, outputs=2)
    zero, one = editor.constant("zero", np.int64(0)), editor.constant("one", np.int64(1))
    ends = before(gru, "Cast", [lengths], {"to": onnx_ir.DataType.INT64})
    places = before(gru, "Range", [zero, before(gru, "Squeeze", [time]), one])
    inside = before(gru, "Less", [before(gru, "Unsqueeze", [places, numbers(1)]), ends])
    inside = before(gru, "Unsqueeze", [before(gru, "Concat", [inside, turned(inside)], {"axis": 1}), numbers(2)])
    start_shape = before(gru, "Concat", [before(gru, "Mul", [batch, numbers(2)]), numbers(hidden)], {"axis": 0})
    start = before(gru, "ConstantOfShape", [start_shape], {"value": onnx_ir.tensor(np.zeros(1, np.float32))})
    last, states = editor.all_before(
        gru, "Scan", [start, both, inside], {"body": _body(editor, integers, gru), "num_scan_inputs": 2}, outputs=2
    )
    states = before(gru, "Where", [inside, states, editor.constant("float_zero", np.float32(0))])
    forward, backward = editor.all_before(gru, "Split", [states], {"axis": 1, "num_outputs": 2}, outputs=2)
    halves = [before(gru, "Unsqueeze", [value, numbers(1)]) for value in (forward, turned(backward))]
    results = before(gru, "Concat", halves, {"axis": 1}), before(gru, "Reshape", [last, numbers(2, -1, hidden)])
    for old, new in zip(gru.outputs, results, strict=False):  # nobody may read the last states
        editor.replace(old, new)


def _input_gates(editor: GraphEditor, integers: IntegerProducts, gru: onnx_ir.Node, inputs: Levels) -> onnx_ir.Value:
    """Return what the input adds to the gates of both readers, ``[time batch 2·3·hidden]``, biases included.

    The bias of the recurrent product is among them, but for the new gate, where it stands inside the reset.
    """
    read, biases = array_of(gru.inputs[1]), array_of(gru.inputs[3])
    outside = read.shape[1]
    added = biases[:, :outside].copy()
    added[:, : outside * 2 // 3] += biases[:, outside : outside + outside * 2 // 3]
    name = name_of(gru.inputs[1])
    weights = new_weights(editor, name, np.concatenate(list(read)).T)
    return integers.product(gru, inputs, weights, editor.constant(f"{name}_bias", added.reshape(-1)))


def _body(editor: GraphEditor, integers: IntegerProducts, gru: onnx_ir.Node) -> onnx_ir.Graph:
    """Return one position of both readers: state, input gates and whether they are inside → state, and state again."""
    recurrent, biases = array_of(gru.inputs[2]), array_of(gru.inputs[3])
    hidden = recurrent.shape[2]
    name = name_of(gru.inputs[2])
    real = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    state = onnx_ir.Value(name=f"{name}_state", type=real, shape=onnx_ir.Shape([None, hidden]))
    gates = onnx_ir.Value(name=f"{name}_gates", type=real, shape=onnx_ir.Shape([None, 3 * hidden]))
    inside = onnx_ir.Value(
        name=f"{name}_inside", type=onnx_ir.TensorType(onnx_ir.DataType.BOOL), shape=onnx_ir.Shape([None, 1])
    )
    body = onnx_ir.Graph([state, gates, inside], [], nodes=[], name=f"{name}_position")
    scale = editor.constant("state_scale", np.float32(1 / LEVELS))  # states lie in [-1, 1]
    split = _numbers(editor, 2 * hidden, hidden)

    def add(
        operator: str, values: list[onnx_ir.Value], outputs: int = 1, domain: str = "", **attributes: int
    ) -> list[onnx_ir.Value]:
        node = onnx_ir.node(operator, values, attributes, domain=domain, num_outputs=outputs)
        for place, value in enumerate(node.outputs):  # a name of the graph around must not come again
            value.name = f"{name}_{len(body)}_{place}"
        body.append(node)
        return list(node.outputs)

    own = GraphEditor(body)
    levels = add("Split", add("QuantizeLinear", [state, scale, integers.zero]), 2, axis=0, num_outputs=2)
    products = []
    for direction in range(2):
        weights = new_weights(own, f"{name}_{direction}", recurrent[direction].T)
        bias = np.zeros(3 * hidden, np.float32)
        bias[2 * hidden :] = biases[direction, 5 * hidden :]
        added = own.constant(f"{name}_{direction}_bias", bias)
        products += add(OPERATOR, integers.inputs(Levels(levels[direction], scale), weights, added), domain=DOMAIN)
    input_gates, input_new = add("Split", [gates, split], 2, axis=1)
    state_gates, state_new = add("Split", [*add("Concat", products, axis=0), split], 2, axis=1)
    opened = add("Sigmoid", add("Add", [input_gates, state_gates]))
    update, reset = add("Split", opened, 2, axis=1, num_outputs=2)
    new = add("Tanh", add("Add", [input_new, *add("Mul", [reset, state_new])]))
    kept = add("Mul", [update, *add("Sub", [state, *new])])
    after = add("Where", [inside, *add("Add", [*new, *kept]), state])
    body.outputs.extend([*after, *add("Identity", after)])
    return body


def _numbers(editor: GraphEditor, *values: int) -> onnx_ir.Value:
    return editor.constant("integers_" + "_".join(map(str, values)), np.array(values))
