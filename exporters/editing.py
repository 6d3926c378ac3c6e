"""Rewrites an ONNX graph in place: new nodes before old ones, constants by name, one value in place of another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir


class GraphEditor:
    """Edits one graph; a constant asked for twice under one name is the same constant."""

    def __init__(self, graph: onnx_ir.Graph) -> None:
        self.graph = graph

    def before(
        self,
        node: onnx_ir.Node,
        operator: str,
        inputs: Sequence[onnx_ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> onnx_ir.Value:
        """Insert an operator before ``node`` and return its only output."""
        new = onnx_ir.node(operator, inputs, attributes, domain=domain)
        node.prepend(new)
        return new.outputs[0]

    def all_before(
        self,
        node: onnx_ir.Node,
        operator: str,
        inputs: Sequence[onnx_ir.Value | None],
        attributes: Mapping[str, Any],
        outputs: int,
    ) -> Sequence[onnx_ir.Value]:
        """Insert an operator of several ``outputs`` before ``node`` and return them."""
        new = onnx_ir.node(operator, inputs, attributes, num_outputs=outputs)
        node.prepend(new)
        return new.outputs

    def constant(self, name: str, array: np.ndarray | np.generic) -> onnx_ir.Value:
        """Return the constant ``name``, made of ``array`` if there is none yet."""
        if name not in self.graph.initializers:
            tensor = onnx_ir.tensor(np.asarray(array), name=name)
            shape, kind = onnx_ir.Shape(np.shape(array)), onnx_ir.TensorType(tensor.dtype)
            self.graph.register_initializer(onnx_ir.Value(name=name, const_value=tensor, shape=shape, type=kind))
        return self.graph.initializers[name]

    def replace(self, old: onnx_ir.Value, new: onnx_ir.Value) -> None:
        """Let ``new`` be what ``old`` was to all its readers, by its name; the node that made ``old`` may go."""
        name, new.shape, new.type = old.name, old.shape, old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name, new.name = f"{name}_before", name

    def remove_unused(self) -> None:
        """Remove nodes and constants that nothing depends on."""
        for node in reversed(list(self.graph)):
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                self.graph.remove(node, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses():
                del self.graph.initializers[name]


def array_of(value: onnx_ir.Value | None) -> np.ndarray:
    """Return what a constant holds."""
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def name_of(value: onnx_ir.Value | None) -> str:
    """Return the name of a value that has one."""
    assert value is not None and value.name is not None
    return value.name


def split_constants(graph: onnx_ir.Graph) -> None:
    """Let halves of a constant be constants, so that products with them are those with weights."""
    for node in [node for node in graph if node.op_type == "Split"]:
        whole = node.inputs[0]
        if whole is None or whole.const_value is None:
            continue
        parts = np.split(whole.const_value.numpy(), len(node.outputs), axis=node.attributes["axis"].as_int())
        for place, (value, part) in enumerate(zip(node.outputs, parts, strict=True)):
            name = f"{whole.name}_{place}"
            constant = onnx_ir.Value(
                name=name,
                const_value=onnx_ir.tensor(part, name=name),
                shape=onnx_ir.Shape(part.shape),
                type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT),
            )
            graph.register_initializer(constant)
            value.replace_all_uses_with(constant)
        graph.remove(node, safe=True)
