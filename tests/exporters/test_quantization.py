from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto

from exporters.editing import name_of
from exporters.integers import by_channel
from exporters.quantization import MARGIN, calibrate
from tests.exporters.conftest import Exported
from tests.exporters.text import random_batch, random_sources


@dataclass(frozen=True)
class Optimized:
    """A graph as ONNX Runtime runs it.

    Attributes:
        operators: How often each stands in it, inner graphs included.
        products: Of each integer product, which constants of its own graph are its weights and their zeros; ``None``
            for what is no constant of that graph.
    """

    operators: Counter[str]
    products: list[tuple[str | None, str | None]]


def graphs_within(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_within(attribute.g)


def optimized(content: bytes, file: Path) -> Optimized:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(file)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = Optimized(Counter(), [])
    for place, graph in enumerate(graphs_within(onnx.load(file).graph)):
        constants = {tensor.name for tensor in graph.initializer}
        found.operators.update(node.op_type for node in graph.node)
        for node in graph.node:
            if node.op_type == "MatMulIntegerToFloat":
                weights, zeros = (f"{place}:{node.input[i]}" if node.input[i] in constants else None for i in (1, 5))
                found.products.append((weights, zeros))
    return found


def test_every_product_with_constant_weights_runs_as_one_integer_product(narrow: Exported, tmp_path: Path) -> None:
    step = optimized(narrow.int8.graphs["decoder_step"], tmp_path / "step.onnx").operators
    # Two layers of two, query, read-out, output; for emission the read-out of the state.
    assert step["MatMulIntegerToFloat"] == 4 + 3 + 1
    encoder = optimized(narrow.int8.graphs["encoder"], tmp_path / "encoder.onnx").operators
    assert encoder["MatMulIntegerToFloat"] == 2 * (1 + 2) + 2  # two layers: inputs, each reader's state; keys; emission
    assert encoder["Scan"] == 2
    for operators, others in ((step, 2), (encoder, 0)):  # scores and context multiply what the sentence gives
        assert operators["MatMul"] + operators["FusedMatMul"] == others
        assert operators["GRU"] == operators["DequantizeLinear"] == operators["DynamicQuantizeLinear"] == 0


@pytest.mark.parametrize("name", ["encoder", "decoder_step"])
def test_each_integer_product_has_weights_and_zeros_of_its_own_in_its_own_graph(
    narrow: Exported, tmp_path: Path, name: str
) -> None:
    """Or ONNX Runtime could not make them unsigned on x86 without VNNI: sums would saturate, or loading would fail."""
    products = optimized(narrow.int8.graphs[name], tmp_path / "graph.onnx").products
    weights, zeros = zip(*products, strict=True)
    assert None not in weights + zeros
    assert len({*weights}) == len({*zeros}) == len(products)


def test_large_weights_are_stored_once_and_in_one_or_two_bytes(wide: Exported) -> None:
    tables = 0
    for content in wide.int8.graphs.values():
        for graph in graphs_within(onnx.load_from_string(content).graph):
            for tensor in graph.initializer:
                if np.prod(tensor.dims, dtype=int) >= 65_536:
                    assert tensor.data_type in (TensorProto.INT8, TensorProto.FLOAT16), tensor.name
                    tables += sorted(tensor.dims) == [384, 1000]
    assert tables == 2  # one a graph: what the embedding reads and the output multiplies with


def test_the_shipped_sizes_fit_into_24_megabytes_with_tables(wide: Exported) -> None:
    graphs = sum(len(content) for content in wide.int8.graphs.values())
    embeddings = 2 * (8000 - 1000) * 384  # the fixture has a smaller vocabulary
    tables = 2 * 2 * (8000 + 128) * 128
    tokenizer = 400_000
    assert graphs + embeddings + tables + tokenizer < 24e6


@given(
    arrays.arrays(np.float32, (5, 3), elements=st.floats(-4, 4, width=32)),
    st.sampled_from([0, 1]),
)
def test_a_weight_is_off_by_half_a_level_of_its_own_channel_at_most(weights: np.ndarray, axis: int) -> None:
    levels, scale = by_channel(weights, axis)
    broadcast = np.expand_dims(scale, 1 - axis).astype(np.float64)
    assert scale.shape == (weights.shape[axis],)
    assert (np.abs(levels * broadcast - weights) <= broadcast * 0.5001).all()


def reads_a_table(node: onnx_ir.Node) -> bool:
    table = node.inputs[0] if node.op_type == "Gather" else None
    return table is not None and table.is_initializer()


def test_a_bound_is_the_largest_activation_on_the_calibration_text_and_a_margin(narrow: Exported) -> None:
    batch = random_batch(40, seed=3)
    bounds = calibrate(narrow.graphs, narrow.float32, [batch])
    embedding = narrow.trained.get_parameter("source_embedding.weight").detach().numpy()
    largest = np.abs(embedding[np.unique(batch.target_input_ids)]).max()
    read = next(node for node in narrow.graphs.models["decoder_step"].graph if reads_a_table(node))
    assert bounds["decoder_step"][name_of(read.outputs[0])] == pytest.approx(MARGIN * largest)
    sources = [row[:length] for row, length in zip(batch.source_ids, batch.source_lengths, strict=True)]
    states = narrow.float32.encode(sources).encoder_side["encoder_states"]
    assert bounds["encoder"]["encoder_states"] == pytest.approx(MARGIN * np.abs(states).max())


def test_int8_stays_near_float32(wide: Exported) -> None:
    sources = random_sources(1000, [3, 20, 33], seed=4)
    target = np.random.default_rng(4).integers(4, 1000, (3, 10))
    names = ["log_probabilities", "attention_weights"]
    steps = [list(model.forced(model.encode(sources), target, names)) for model in (wide.float32, wide.int8)]
    for exact, rounded in zip(*steps, strict=True):
        assert not np.array_equal(exact["log_probabilities"], rounded["log_probabilities"])
        assert np.abs(exact["log_probabilities"] - rounded["log_probabilities"]).mean() < 0.1
        assert np.abs(exact["attention_weights"] - rounded["attention_weights"]).sum(axis=2).max() / 2 < 0.1
