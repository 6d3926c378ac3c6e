"""What a graph may be made of, told without ONNX; ONNX itself makes the examples."""

import random
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from bundle.onnx_files import onnx_faults
from service.settings import EMBEDDED_BUNDLE

NUMBER = helper.make_tensor("number", onnx.TensorProto.FLOAT, [1], [1.0])


def model(*nodes: onnx.NodeProto, **more: object) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "graph", [], [], initializer=[NUMBER])
    return helper.make_model(graph, **more)


def outside() -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="far", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def nested(node: onnx.NodeProto, levels: int = 1) -> onnx.NodeProto:
    for _ in range(levels):
        inner = helper.make_graph([node], "inner", [], [])
        node = helper.make_node("If", ["number"], ["out"], then_branch=inner, else_branch=inner)
    return node


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder_step.onnx"])
@pytest.mark.parametrize("folder", ["tiny", "embedded"])
def test_the_graphs_of_our_bundles_have_no_faults(tiny_bundle: Path, folder: str, name: str) -> None:
    content = ({"tiny": tiny_bundle, "embedded": EMBEDDED_BUNDLE}[folder] / name).read_bytes()
    assert onnx_faults(content) == ()


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (model(helper.make_node("Gelu", ["number"], ["out"], domain="com.microsoft")), "the operator 'Gelu' of"),
        (
            model(nested(helper.make_node("Gelu", ["number"], ["out"], domain="com.microsoft"))),
            "the operator 'Gelu' of",
        ),
        (model(helper.make_node("MatMulIntegerToFloat", ["number"], ["out"], domain="evil")), "domain 'evil'"),
        (model(nested(helper.make_node("Gelu", ["number"], ["out"], domain="evil"))), "domain 'evil'"),
        (model(opset_imports=[helper.make_opsetid("evil", 1)]), "domain 'evil'"),
        (model(helper.make_node("Constant", [], ["out"], value=outside())), "data is in another file"),
        (model(nested(helper.make_node("Constant", [], ["out"], value=outside()), 3)), "data is in another file"),
        (
            model(functions=[helper.make_function("local", "f", [], [], [], [helper.make_opsetid("", 21)])]),
            "functions of its own",
        ),
        (model(nested(helper.make_node("Relu", ["number"], ["out"]), 9)), "graphs nest deeper than 8"),
        (onnx.ModelProto(), "holds no graph"),
    ],
)
def test_what_is_not_standard_or_not_inside_is_refused(broken: onnx.ModelProto, fault: str) -> None:
    assert any(fault in found for found in onnx_faults(broken.SerializeToString()))


@pytest.mark.parametrize("levels", [0, 1])
def test_one_operator_of_the_runtime_is_allowed(levels: int) -> None:
    product = helper.make_node("MatMulIntegerToFloat", ["number"], ["out"], domain="com.microsoft")
    domains = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
    assert onnx_faults(model(nested(product, levels), opset_imports=domains).SerializeToString()) == ()


def test_weights_outside_and_training_graphs_are_refused() -> None:
    far = model()
    far.graph.initializer.append(outside())
    sparse = model()
    sparse.graph.sparse_initializer.add().values.CopyFrom(outside())
    trained = model()
    trained.training_info.add()
    for broken, fault in ((far, "another file"), (sparse, "another file"), (trained, "training graphs")):
        assert fault in " ".join(onnx_faults(broken.SerializeToString()))


DOMAIN, OPERATOR = 7, 4  # fields of a node


def field(number: int, text: str) -> bytes:
    """Return a field of a message as protobuf writes a short text."""
    return bytes([number << 3 | 2, len(text)]) + text.encode()


def with_node(content: bytes) -> bytes:
    """Return a model whose only node is ``content``, which may be what ONNX would not write."""
    node = bytes([1 << 3 | 2, len(content)]) + content
    return bytes([7 << 3 | 2, len(node)]) + node


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ([(DOMAIN, ""), (DOMAIN, "evil")], "domain 'evil'"),
        ([(DOMAIN, "com.microsoft"), (DOMAIN, "evil")], "domain 'evil'"),
        ([(OPERATOR, "MatMulIntegerToFloat"), (OPERATOR, "Gelu"), (DOMAIN, "com.microsoft")], "the operator 'Gelu' of"),
        ([(OPERATOR, "Gelu"), (DOMAIN, ""), (DOMAIN, "com.microsoft")], "the operator 'Gelu' of"),
    ],
)
def test_what_only_one_of_two_readers_would_see_is_seen(fields: list[tuple[int, str]], fault: str, order: int) -> None:
    """A field may come twice, and readers take the last, or both together; nothing gets through to either."""
    content = with_node(b"".join(field(number, text) for number, text in fields[::order]))
    onnx.ModelProto.FromString(content)
    assert any(fault in found for found in onnx_faults(content))


def test_graphs_that_come_twice_are_both_looked_at() -> None:
    content = model(helper.make_node("Relu", ["number"], ["out"])).SerializeToString()
    twice = content + model(helper.make_node("Relu", ["number"], ["out"], domain="evil")).SerializeToString()
    assert any("evil" in fault for fault in onnx_faults(twice))


@given(st.binary(max_size=300))
def test_any_bytes_are_looked_at_without_an_error(content: bytes) -> None:
    onnx_faults(content)


def test_damaged_graphs_are_looked_at_without_an_error(tiny_bundle: Path) -> None:
    good = (tiny_bundle / "decoder_step.onnx").read_bytes()
    chance = random.Random(1)
    for _ in range(300):
        content = bytearray(good)
        content[chance.randrange(len(content))] = chance.randrange(256)
        assert isinstance(onnx_faults(bytes(content[: chance.randrange(len(content))])), tuple)


def test_a_field_that_only_a_reader_of_32_bits_would_see_is_refused() -> None:
    node = helper.make_node("Gelu", ["number"], ["out"], domain="com.microsoft").SerializeToString()
    hidden = bytearray()
    key = (1 << 3 | 2) + (1 << 32)  # a node of a graph, to whoever takes the lowest 32 bits
    while key:
        hidden.append(key & 0x7F | (0x80 if key >> 7 else 0))
        key >>= 7
    graph = bytes(hidden) + bytes([len(node)]) + node
    content = model().SerializeToString() + bytes([7 << 3 | 2, len(graph)]) + graph
    assert any("32 bits" in fault for fault in onnx_faults(content))
