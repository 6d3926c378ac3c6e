from collections import Counter

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from bundle.sessions import own_states
from exporters.graphs import export_graphs
from exporters.half import HalfGraphs, halve
from exporters.runtime import OnnxModel
from tests.exporters.conftest import Exported
from tests.exporters.text import random_sources
from training.evaluation import SPECIAL_IDS
from training.models.registry import build_model
from training.translation import TorchStep

EVERY_EMISSION = {"emission_limit": np.array([np.iinfo(np.int64).max])}


@pytest.fixture(scope="session")
def halved(narrow: Exported) -> HalfGraphs:
    return halve(narrow.graphs)


@pytest.fixture(scope="session")
def half(halved: HalfGraphs) -> OnnxModel:
    return OnnxModel(halved.serialized(), SPECIAL_IDS, threads=1)


def graph(graphs: HalfGraphs, name: str) -> onnx.GraphProto:
    model = onnx.load_from_string(graphs.serialized()[name])
    onnx.checker.check_model(model, full_check=True)
    return model.graph


def types(graph: onnx.GraphProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph))
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    known = {value.name: value.type.tensor_type.elem_type for value in values}
    return known | {tensor.name: tensor.data_type for tensor in graph.initializer}


def emission(model: OnnxModel, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return model.run("decoder_step", inputs, ["emission_scores"])["emission_scores"]


def step_inputs(model: OnnxModel, lengths: list[int], beam: int) -> dict[str, np.ndarray]:
    encoded = model.encode(random_sources(40, lengths, seed=1))
    state = {name: array[:, None].repeat(beam, axis=1) for name, array in encoded.initial_state.items()}
    tokens = np.random.default_rng(2).integers(4, 40, (len(lengths), beam))
    fixed = {"previous_token_ids": tokens, "source_lengths": encoded.source_lengths, "candidates": np.array([4])}
    return fixed | encoded.encoder_side | own_states(state)


@pytest.mark.parametrize("name", ["encoder", "decoder_step"])
def test_products_with_weights_are_float16_and_everything_else_is_float32(halved: HalfGraphs, name: str) -> None:
    found = graph(halved, name)
    kinds = types(found)
    constants = {tensor.name for tensor in found.initializer}
    made_by = {output: node for node in found.node for output in node.output}

    def is_weight(value: str) -> bool:
        origin = made_by.get(value)
        turned = origin is not None and origin.op_type == "Transpose" and is_weight(origin.input[0])
        return value in constants or turned

    for node in found.node:
        if node.op_type in ("MatMul", "Gemm") and is_weight(node.input[1]):
            assert kinds[node.input[0]] == kinds[node.input[1]] == TensorProto.FLOAT16, node.name
        elif node.op_type not in ("Cast", "Gather", "Transpose", "Identity"):
            assert TensorProto.FLOAT16 not in {kinds.get(value) for value in (*node.input, *node.output)}, node.name


def test_the_sums_of_attention_and_of_probabilities_are_float32(halved: HalfGraphs) -> None:
    found = graph(halved, "decoder_step")
    kinds = types(found)
    sums = [node for node in found.node if node.op_type in ("Softmax", "LogSoftmax", "TopK")]
    assert Counter(node.op_type for node in sums) == {"Softmax": 1, "LogSoftmax": 1, "TopK": 1}
    assert {kinds[node.input[0]] for node in sums} == {TensorProto.FLOAT}


def test_inputs_and_outputs_are_those_of_float32(narrow: Exported, halved: HalfGraphs) -> None:
    assert halved.signature == narrow.graphs.signature
    for name, declared in halved.signature.items():
        outputs = {(value.name, value.type.tensor_type.elem_type) for value in graph(halved, name).output}
        numbers = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
        assert outputs == {(tensor.name, numbers[tensor.dtype]) for tensor in declared.outputs}


def test_no_large_weight_is_stored_in_more_than_two_bytes(wide: Exported) -> None:
    halved = halve(wide.graphs)
    for name in halved.models:
        for tensor in graph(halved, name).initializer:
            assert tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims, dtype=int) < 65_536, tensor.name


def test_a_step_that_is_recorded_has_no_choice_in_it(halved: HalfGraphs) -> None:
    assert not {node.op_type for node in graph(halved, "decoder_step").node} & {"If", "Loop", "Scan"}


def test_the_float32_graphs_stay_as_they_were(narrow: Exported) -> None:
    before = narrow.graphs.serialized()
    halve(narrow.graphs)
    assert narrow.graphs.serialized() == before


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5), beam=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_float16_is_near_what_torch_computes(
    narrow: Exported, half: OnnxModel, lengths: list[int], beam: int, seed: int
) -> None:
    sources = random_sources(40, lengths, seed)
    twin = TorchStep(narrow.trained)
    ours, theirs = half.encode(sources), twin.encode(sources)
    tokens = np.random.default_rng(seed).integers(4, 40, (len(lengths), beam))
    states = [{name: a[:, None].repeat(beam, 1) for name, a in e.initial_state.items()} for e in (ours, theirs)]
    step, twin_step = half(ours, tokens, states[0], 40), twin(theirs, tokens, states[1], 40)
    for name, array in twin_step.state.items():
        np.testing.assert_allclose(step.state[name], array, atol=5e-3)
    np.testing.assert_allclose(step.candidate_log_probabilities, twin_step.candidate_log_probabilities, atol=5e-2)
    assert step.attention_weights is not None and twin_step.attention_weights is not None
    for row, length in enumerate(lengths):
        mine, other = step.attention_weights[row, :, :length], twin_step.attention_weights[row, :, :length]
        np.testing.assert_allclose(mine, other, atol=2e-2)
        np.testing.assert_allclose(mine.sum(axis=1), 1, atol=1e-6)


def test_emission_scores_are_made_when_they_are_asked_for_and_only_then(narrow: Exported, half: OnnxModel) -> None:
    inputs = step_inputs(half, [5, 17], beam=3)
    assert emission(half, inputs).size == 0
    found = emission(half, inputs | EVERY_EMISSION)
    exact = emission(narrow.float32, inputs | {"emission_wanted": np.array([True])})
    assert found.shape == exact.shape
    for row, length in enumerate((5, 17)):
        np.testing.assert_allclose(found[row, :, :length], exact[row, :, :length], atol=5e-2)


def test_what_was_float16_is_not_rounded_again() -> None:
    torch.manual_seed(1)
    model = build_model({"architecture": "aed", "embedding": 16, "hidden": 32, "key": 16}, 40).eval()
    step = halve(export_graphs(model)).models["decoder_step"].graph
    half = onnx_ir.DataType.FLOAT16
    read = {node.inputs[0] for node in step if node.op_type == "Cast" and node.attributes["to"].value == half}
    assert read
    assert not {value for value in read if value is not None and (made := value.producer()) and made.op_type == "Cast"}
