import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bundle.search import ALL_CANDIDATES, EncodedBatch
from bundle.sessions import own_states
from exporters.graphs import export_graphs
from exporters.runtime import OnnxModel
from tests.exporters.conftest import Exported
from tests.exporters.text import random_sources
from training.evaluation import SPECIAL_IDS
from training.models.interface import Encoded
from training.translation import TorchStep

EMISSION = {"emission_wanted": np.array([True])}
LENGTHS = st.lists(st.integers(1, 150), min_size=1, max_size=9)


def previous_tokens(vocabulary: int, rows: int, beam: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(2, vocabulary, (rows, beam))


def first_state(encoded: EncodedBatch, beam: int) -> dict[str, np.ndarray]:
    """Give the rows of a beam different states, as they have after a step."""
    scales = np.linspace(1.0, 0.5, beam, dtype=np.float32)[:, None]
    return {name: array[:, None] * scales for name, array in encoded.initial_state.items()}


@given(lengths=LENGTHS, beam=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_onnx_runtime_computes_what_torch_computes(narrow: Exported, lengths: list[int], beam: int, seed: int) -> None:
    sources = random_sources(40, lengths, seed)
    twin = TorchStep(narrow.trained)
    ours, theirs = narrow.float32.encode(sources), twin.encode(sources)
    for name, array in theirs.encoder_side.items():
        for row, length in enumerate(lengths):
            np.testing.assert_allclose(ours.encoder_side[name][row, :length], array[row, :length], atol=2e-6)
    tokens = previous_tokens(40, len(lengths), beam, seed)
    step = narrow.float32(ours, tokens, first_state(ours, beam), 40)
    twin_step = twin(theirs, tokens, first_state(theirs, beam), 40)
    for name, array in twin_step.state.items():
        np.testing.assert_allclose(step.state[name], array, atol=2e-6)
    np.testing.assert_allclose(step.candidate_log_probabilities, twin_step.candidate_log_probabilities, atol=2e-5)
    assert step.attention_query is not None and twin_step.attention_query is not None
    np.testing.assert_allclose(step.attention_query, twin_step.attention_query, atol=2e-6)
    for row, length in enumerate(lengths):
        for part in ("attention_scores", "attention_weights"):
            mine, other = getattr(step, part)[row, :, :length], getattr(twin_step, part)[row, :, :length]
            np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@given(lengths=LENGTHS, beam=st.sampled_from([1, 4]), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_sentence_alone_is_bit_identical_to_itself_in_any_batch(
    wide: Exported, precision: str, lengths: list[int], beam: int, seed: int
) -> None:
    model: OnnxModel = getattr(wide, precision)
    sources = random_sources(1000, lengths, seed)
    together = model.encode(sources)
    tokens = previous_tokens(1000, len(lengths), beam, seed)
    state = first_state(together, beam)
    step = model(together, tokens, state, 6)
    for row, length in enumerate(lengths):
        alone = model.encode([sources[row]])
        for name, array in alone.encoder_side.items():
            assert np.array_equal(array[0, :length], together.encoder_side[name][row, :length]), name
        for name, array in alone.initial_state.items():
            assert np.array_equal(array[0], together.initial_state[name][row]), name
        one = model(alone, tokens[[row]], {name: array[[row]] for name, array in state.items()}, 6)
        for name in ("candidate_token_ids", "candidate_log_probabilities", "attention_query"):
            assert np.array_equal(getattr(one, name)[0], getattr(step, name)[row]), name
        for name in ("attention_scores", "attention_weights"):
            assert np.array_equal(getattr(one, name)[0, :, :length], getattr(step, name)[row, :, :length]), name
        for name, array in one.state.items():
            assert np.array_equal(array[0], step.state[name][row]), name


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_attention_is_the_softmax_of_query_times_keys_and_exactly_zero_on_padding(
    narrow: Exported, precision: str
) -> None:
    model: OnnxModel = getattr(narrow, precision)
    lengths = [1, 7, 30]
    encoded = model.encode(random_sources(40, lengths, seed=1))
    step = model(encoded, previous_tokens(40, 3, 2, seed=1), first_state(encoded, 2), 3)
    assert step.attention_query is not None and step.attention_weights is not None
    assert step.attention_scores is not None
    scores = step.attention_query @ encoded.encoder_side["attention_keys"].swapaxes(1, 2)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(
            step.attention_scores[row, :, :length], scores[row, :, :length], rtol=1e-5, atol=1e-6
        )
        powers = np.exp(scores[row, :, :length] - scores[row, :, :length].max(axis=1, keepdims=True))
        expected = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(step.attention_weights[row, :, :length], expected, atol=1e-6)
        assert not step.attention_weights[row, :, length:].any()
    assert np.isfinite(step.attention_scores).all()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_step_takes_attention_in_place_of_its_own_and_without_any_it_is_the_plain_step(
    narrow: Exported, precision: str
) -> None:
    model: OnnxModel = getattr(narrow, precision)
    session = onnxruntime.InferenceSession(model.graphs["decoder_step"], providers=["CPUExecutionProvider"])
    encoded = model.encode(random_sources(40, [7, 30], seed=3))
    inputs = {
        "previous_token_ids": previous_tokens(40, 2, 3, seed=3),
        "source_lengths": encoded.source_lengths,
        "candidates": np.array([1]),
        **encoded.encoder_side,
        **own_states(first_state(encoded, 3)),
    }
    names = ["log_probabilities", "attention_weights", "context"]
    plain, own, _ = session.run(names, inputs)
    told = {"attention_replaced": np.ones((2, 3, 1), bool), "given_attention_weights": own}
    np.testing.assert_array_equal(session.run(names, inputs | told)[0], plain)
    told["given_attention_weights"] = np.zeros_like(own)
    told["given_attention_weights"][:, :, 2] = 1.0
    other, weights, context = session.run(names, inputs | told)
    np.testing.assert_array_equal(weights, told["given_attention_weights"])
    states = encoded.encoder_side["encoder_states"]
    np.testing.assert_allclose(context, np.repeat(states[:, 2:3], 3, axis=1), atol=1e-6)
    assert (other != plain).any(axis=2).all()


@pytest.mark.parametrize("precision", ["float32", "int8"])
@given(
    rows=arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=4), elements=st.integers(0, 5)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=20, deadline=None)
def test_each_hypothesis_goes_on_from_the_row_that_it_names(
    narrow: Exported, precision: str, rows: np.ndarray, seed: int
) -> None:
    """Rows repeated, dropped and put in any order are what a step on copies of them gives."""
    model: OnnxModel = getattr(narrow, precision)
    batch, beam = rows.shape
    encoded = model.encode(random_sources(40, [5] * batch, seed))
    generator = np.random.default_rng(seed)
    stored = {name: generator.uniform(-1, 1, (6, 32)).astype(np.float32) for name in model.state_names}
    inputs = {
        "previous_token_ids": previous_tokens(40, batch, beam, seed),
        "source_lengths": encoded.source_lengths,
        "candidates": np.array([3]),
        **encoded.encoder_side,
        **EMISSION,
    }
    names = [*sorted(model.step_outputs)]
    chosen = model.run("decoder_step", inputs | stored | {"state_rows": rows}, names)
    copies = own_states({name: tensor[rows] for name, tensor in stored.items()})
    for name, expected in model.run("decoder_step", inputs | copies, names).items():
        np.testing.assert_array_equal(chosen[name], expected, name)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_emission_scores_are_made_only_on_demand_and_alone_as_in_company(narrow: Exported, precision: str) -> None:
    model: OnnxModel = getattr(narrow, precision)
    lengths = [7, 30, 12]
    sources = random_sources(40, lengths, seed=4)
    tokens = previous_tokens(40, 3, 2, seed=4)

    def outputs(rows: list[int], demand: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        encoded = model.encode([sources[row] for row in rows])
        inputs = {"previous_token_ids": tokens[rows], "source_lengths": encoded.source_lengths, **encoded.encoder_side}
        inputs |= {"candidates": np.array([1]), **own_states(first_state(encoded, 2))}
        return model.run("decoder_step", inputs | demand, [*sorted(model.step_outputs)])

    plain, asked = outputs([0, 1, 2], {}), outputs([0, 1, 2], EMISSION)
    assert plain.pop("emission_scores").size == 0
    together = asked.pop("emission_scores")
    assert together.shape == (3, 2, 32)
    for name, tensor in plain.items():
        np.testing.assert_array_equal(asked[name], tensor, name)
    for row, length in enumerate(lengths):
        alone = outputs([row], EMISSION)["emission_scores"]
        np.testing.assert_array_equal(alone[0, :, :length], together[row, :, :length])


def test_emission_scores_are_those_of_torch(narrow: Exported) -> None:
    lengths = [7, 30]
    twin = TorchStep(narrow.trained)
    sources = random_sources(40, lengths, seed=6)
    tokens = previous_tokens(40, 2, 3, seed=6)
    encoded, ours = twin.encode(sources), narrow.float32.encode(sources)
    state = first_state(encoded, 3)
    found = narrow.float32.step(ours, tokens, first_state(ours, 3), ["emission_scores"])["emission_scores"]
    side = {name: torch.from_numpy(array) for name, array in encoded.encoder_side.items()}
    with torch.no_grad():
        expected = narrow.trained.step(
            torch.from_numpy(tokens),
            {name: torch.from_numpy(array) for name, array in state.items()},
            Encoded(torch.from_numpy(encoded.source_lengths), side, {}),
        ).emission_scores
    assert expected is not None
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(found[row, :, :length], expected[row, :, :length], atol=2e-5)


def test_as_many_candidates_come_back_as_are_asked_for_best_first(narrow: Exported) -> None:
    encoded = narrow.float32.encode(random_sources(40, [5, 9], seed=2))
    tokens, state = previous_tokens(40, 2, 3, seed=2), first_state(encoded, 3)
    everything = narrow.float32(encoded, tokens, state, ALL_CANDIDATES).log_probabilities
    assert everything is not None
    np.testing.assert_allclose(np.exp(everything).sum(axis=2), 1.0, atol=1e-5)
    for candidates in (1, 6, 40):
        step = narrow.float32(encoded, tokens, state, candidates)
        assert step.candidate_token_ids.shape == (2, 3, candidates)
        expected = -np.sort(-everything, axis=2)[:, :, :candidates]
        assert np.array_equal(step.candidate_log_probabilities, expected)
        assert np.array_equal(np.take_along_axis(everything, step.candidate_token_ids, 2), expected)


def test_equal_candidates_come_back_lower_id_first(narrow: Exported) -> None:
    model: Any = copy.deepcopy(narrow.trained)
    with torch.no_grad():
        model.output.weight[[31, 20, 8]] = model.output.weight[5].clone()
        model.output.bias[[31, 20, 8, 5]] = 30.0
    runner = OnnxModel(export_graphs(model).serialized(), SPECIAL_IDS, threads=1)
    encoded = runner.encode(random_sources(40, [5, 9], seed=2))
    step = runner(encoded, previous_tokens(40, 2, 3, seed=2), first_state(encoded, 3), 5)
    assert (step.candidate_token_ids[:, :, :4] == [5, 8, 20, 31]).all()


def test_the_graphs_have_the_inputs_and_outputs_that_the_signature_declares(narrow: Exported) -> None:
    for name, content in narrow.float32.graphs.items():
        onnx.checker.check_model(content, full_check=True)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        declared = narrow.graphs.signature[name]
        for expected, found in (
            (declared.inputs, session.get_inputs()),
            (declared.outputs, session.get_outputs()),
        ):
            assert [tensor.name for tensor in expected] == [value.name for value in found]
            for tensor, value in zip(expected, found, strict=True):
                assert value.type == {"float32": "tensor(float)", "int64": "tensor(int64)"}[tensor.dtype]
                dynamic = [axis if axis in ("batch", "beam", "source", "k", "rows") else None for axis in tensor.axes]
                assert [axis if isinstance(axis, str) else None for axis in value.shape] == dynamic


def test_exporting_again_gives_the_same_bytes_and_leaves_the_model_as_it_was(narrow: Exported) -> None:
    model = copy.deepcopy(narrow.trained).train()
    assert export_graphs(model).serialized() == narrow.float32.graphs
    assert model.training
    assert all(torch.equal(tensor, narrow.trained.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_graph_tells_nothing_about_the_machine_that_made_it(narrow: Exported) -> None:
    for content in (*narrow.float32.graphs.values(), *narrow.int8.graphs.values()):
        assert str(Path.cwd()).encode() not in content
        assert b"site-packages" not in content
