"""A GRU operator as a loop of integer products, against the operator itself run by ONNX Runtime."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exporters.editing import GraphEditor
from exporters.graphs import OPSET
from exporters.integers import DOMAIN, LEVELS, IntegerProducts
from exporters.recurrence import grus, loop_of_products

INPUT, HIDDEN = 24, 32
BOUND = 3.0  # of the input
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=7)


@dataclass(frozen=True)
class Layer:
    """One bidirectional layer in two forms, which read ``[time batch input]`` and lengths."""

    operator: onnxruntime.InferenceSession
    loop: onnxruntime.InferenceSession


def operator() -> onnx_ir.Model:
    chance = np.random.default_rng(7)
    sizes = {"W": (2, 3 * HIDDEN, INPUT), "R": (2, 3 * HIDDEN, HIDDEN), "B": (2, 6 * HIDDEN)}
    weights = {name: chance.uniform(-0.5, 0.5, shape).astype(np.float32) for name, shape in sizes.items()}
    node = helper.make_node(
        "GRU",
        ["inputs", "W", "R", "B", "lengths"],
        ["states", "last"],
        direction="bidirectional",
        hidden_size=HIDDEN,
        linear_before_reset=1,
    )
    real = TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "layer",
        [
            helper.make_tensor_value_info("inputs", real, ["time", "batch", INPUT]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
        ],
        [
            helper.make_tensor_value_info("states", real, ["time", 2, "batch", HIDDEN]),
            helper.make_tensor_value_info("last", real, [2, "batch", HIDDEN]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10))


def session(model: onnx_ir.Model) -> onnxruntime.InferenceSession:
    content = onnx_ir.to_proto(model)
    onnx.checker.check_model(content, full_check=True)
    return onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def layer() -> Layer:
    exact, looped = operator(), operator()
    editor = GraphEditor(looped.graph)
    loop_of_products(editor, IntegerProducts(editor), grus(looped)[0], BOUND / LEVELS)
    editor.remove_unused()
    looped.opset_imports[DOMAIN] = 1
    assert not grus(looped)
    return Layer(session(exact), session(looped))


def run(
    session: onnxruntime.InferenceSession, sentences: list[np.ndarray], columns: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return states ``[batch time 2 hidden]`` and last states ``[batch 2 hidden]``; the input is padded with NaN."""
    lengths = [len(sentence) for sentence in sentences]
    inputs = np.full((max(*lengths, columns), len(sentences), INPUT), np.nan, np.float32)
    for row, sentence in enumerate(sentences):
        inputs[: len(sentence), row] = sentence
    states, last = session.run(None, {"inputs": inputs, "lengths": np.array(lengths, np.int32)})
    return states.transpose(2, 0, 1, 3), last.transpose(1, 0, 2)


def sentences(lengths: list[int], seed: int) -> list[np.ndarray]:
    chance = np.random.default_rng(seed)
    return [chance.uniform(-BOUND, BOUND, (length, INPUT)).astype(np.float32) for length in lengths]


@given(lengths=LENGTHS, seed=st.integers(0, 1000))
@example(lengths=[1], seed=0)
@example(lengths=[1, 40, 1], seed=1)
@settings(max_examples=40, deadline=None)
def test_the_loop_follows_the_operator_and_is_zero_past_each_end(layer: Layer, lengths: list[int], seed: int) -> None:
    text = sentences(lengths, seed)
    (states, last), (exact_states, exact_last) = run(layer.loop, text), run(layer.operator, text)
    for row, length in enumerate(lengths):
        gaps = np.abs(states[row, :length] - exact_states[row, :length])
        assert gaps.mean() < 0.01 and gaps.max() < 0.1
        assert np.abs(last[row] - exact_last[row]).max() < 0.1
        assert not states[row, length:].any()


@given(lengths=LENGTHS, seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_last_states_are_those_at_the_end_of_the_forward_and_at_the_start_of_the_backward_reader(
    layer: Layer, lengths: list[int], seed: int
) -> None:
    states, last = run(layer.loop, sentences(lengths, seed))
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(last[row], [states[row, length - 1, 0], states[row, 0, 1]])


@given(lengths=LENGTHS, seed=st.integers(0, 1000), more=st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_neither_neighbors_nor_padding_change_a_bit(layer: Layer, lengths: list[int], seed: int, more: int) -> None:
    text = sentences(lengths, seed)
    together, ends = run(layer.loop, text, max(lengths) + more)
    for row, length in enumerate(lengths):
        states, last = run(layer.loop, [text[row]])
        np.testing.assert_array_equal(together[row, :length], states[0])
        assert not together[row, length:].any()
        np.testing.assert_array_equal(ends[row], last[0])
