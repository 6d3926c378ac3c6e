from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from bundle.manifest import SpecialIds, StateTensor
from bundle.sessions import encoder_inputs
from bundle.step import GivenAttention
from exporters.graphs import Graphs, export_graphs
from exporters.half import halve
from service.decoder_state import Wanted
from service.device_memory import Bucket, Device, bucket_for
from service.device_state import DeviceState, PendingSources
from service.runtime import cuda_options, left_behind
from training.models.registry import build_model

BEAM = 3
VOCABULARY = 40
ALL = {"emission_wanted": np.array([True]), "emission_limit": np.array([np.iinfo(np.int64).max])}


class Graph:
    """A session that counts what is bound."""

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self.session, name)


class Model:
    """Graphs of one random model, a device to run them on, and what becomes of a sentence that is alone."""

    def __init__(self, graphs: Graphs) -> None:
        state = [tensor for tensor in graphs.signature["encoder"].outputs if tensor.name.startswith("initial_")]
        self.state_names = [tensor.name.removeprefix("initial_") for tensor in state]
        self.graphs = {name: Graph(content) for name, content in graphs.serialized().items()}
        self.manifest: Any = SimpleNamespace(
            graphs=graphs.signature,
            state=tuple(StateTensor(name, 32) for name in self.state_names),
            sizes={"vocabulary": VOCABULARY, "embedding": 16, "hidden": 32, "key": 16},
            special_ids=SpecialIds(0, 1, 2, 3),
        )
        self.optional = {v.name for v in self.graphs["decoder_step"].get_overridable_initializers()}
        self.seconds: list[tuple[str, float]] = []

    def device(self) -> Device:
        return Device(onnxruntime, self.graphs, self.manifest, "cpu", lambda *call: self.seconds.append(call))

    def run(self, graph: str, inputs: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
        return dict(zip(names, self.graphs[graph].session.run(names, dict(inputs)), strict=True))


class Alone:
    """One sentence, decoded without anything between it and the graphs."""

    def __init__(self, model: Model, source: tuple[int, ...]) -> None:
        self.model, self.length = model, len(source)
        inputs = encoder_inputs([source], 0)
        side = ["encoder_states", "attention_keys", "emission_context"]
        names = [*side, *(f"initial_{name}" for name in model.state_names)]
        found = model.run("encoder", inputs, names)
        self.keys = found["attention_keys"][0, : self.length]
        self.fixed = {name: found[name] for name in side} | {"source_lengths": inputs["source_lengths"]}
        self.state = {name: np.repeat(found[f"initial_{name}"], BEAM, axis=0) for name in model.state_names}

    def step(self, previous: np.ndarray, given: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        inputs = self.fixed | self.state | (given or {}) | {n: a for n, a in ALL.items() if n in self.model.optional}
        inputs |= {
            "previous_token_ids": previous[None],
            "state_rows": np.arange(BEAM)[None],
            "candidates": np.array([4]),
        }
        names = [tensor.name for tensor in self.model.manifest.graphs["decoder_step"].outputs]
        return {name: array[0] for name, array in self.model.run("decoder_step", inputs, names).items()}

    def go_on(self, found: Mapping[str, np.ndarray], parents: np.ndarray) -> None:
        self.state = {name: found[f"next_{name}"][parents] for name in self.model.state_names}


@pytest.fixture(scope="session")
def graphs() -> Graphs:
    torch.manual_seed(5)
    sizes = {"embedding": 16, "hidden": 32, "key": 16}
    return export_graphs(build_model({"architecture": "aed", **sizes}, VOCABULARY).eval())


@pytest.fixture(scope="session")
def model(graphs: Graphs) -> Model:
    return Model(graphs)


@pytest.fixture(scope="session")
def half_model(graphs: Graphs) -> Model:
    return Model(halve(graphs))


def some_sources(random: np.random.Generator, number: int, longest: int = 60) -> PendingSources:
    lengths = random.integers(1, longest, number)
    return PendingSources(tuple(tuple(random.integers(4, VOCABULARY, length).tolist()) for length in lengths))


def some_tokens(random: np.random.Generator, sentences: int) -> np.ndarray:
    return random.integers(0, VOCABULARY, (sentences, BEAM))


def walk(model: Model, seed: int, tolerance: float) -> set[Bucket]:
    """Let sentences come, leave, change places and go on; compare each with itself alone."""
    random = np.random.default_rng(seed)
    state, alone, buckets = DeviceState(model.device(), BEAM), list[Alone](), set()
    for _ in range(40):
        chance = random.random()
        if chance < 0.4 or not alone:
            sources = some_sources(random, int(random.integers(1, 6)))
            state.join(sources)
            alone += [Alone(model, source) for source in sources.source_ids]
        elif chance < 0.7:
            rows = random.permutation([row for row in range(len(alone)) if random.random() < 0.6]).astype(int).tolist()
            state.keep(rows)
            alone = [alone[row] for row in rows]
        if not alone:
            continue
        buckets.add(bucket_for(BEAM, len(alone), int(state.source_lengths.max())))
        previous = some_tokens(random, len(alone))
        wanted = Wanted(4, attention=bool(random.random() < 0.5), whole_vocabulary=bool(random.random() < 0.3))
        if random.random() < 0.3:
            state.attend(previous)
        output = state.step(previous, wanted)
        assert state.columns == bucket_for(BEAM, 1, state.columns).columns >= state.source_lengths.max()
        parents = random.integers(0, BEAM, (len(alone), BEAM))
        for row, sentence in enumerate(alone):
            found = sentence.step(previous[row])
            near(output.candidate_log_probabilities[row], found["candidate_log_probabilities"], tolerance)
            if wanted.attention:
                for name in ("attention_scores", "attention_weights", "emission_scores"):
                    columns = slice(0, sentence.length)
                    near(getattr(output, name)[row][:, columns], found[name][:, columns], tolerance)
            if wanted.whole_vocabulary:
                assert output.log_probabilities is not None
                near(output.log_probabilities[row], found["log_probabilities"], tolerance)
            near(state.attention_keys(row), sentence.keys, tolerance)
            sentence.go_on(found, parents[row])
        state.reorder(parents)
    return buckets


def near(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", range(4))
def test_a_sentence_gets_the_bits_it_gets_alone_whoever_comes_and_leaves(model: Model, seed: int) -> None:
    assert len(walk(model, seed, tolerance=0)) > 2


def test_so_it_is_with_float16_but_for_rounding(half_model: Model) -> None:
    assert len(walk(half_model, 7, tolerance=5e-3)) > 2


def test_a_step_that_was_made_before_binds_nothing_anew(model: Model) -> None:
    random = np.random.default_rng(0)
    state = DeviceState(model.device(), BEAM)
    state.join(some_sources(random, 3))
    for _ in range(2):  # one for each half of the state
        state.step(some_tokens(random, 3), Wanted(4))
    for graph in model.graphs.values():
        graph.calls.clear()
    for _ in range(10):
        state.step(some_tokens(random, 3), Wanted(4))
    assert model.graphs["decoder_step"].calls == {"run_with_iobinding": 10}
    assert not model.graphs["encoder"].calls


def test_every_call_is_noted_with_its_seconds(model: Model) -> None:
    random = np.random.default_rng(0)
    state = DeviceState(model.device(), BEAM)
    model.seconds.clear()
    state.join(some_sources(random, 2))
    state.step(some_tokens(random, 2), Wanted(4))
    assert [graph for graph, _ in model.seconds] == ["encoder", "decoder_step"]
    assert min(seconds for _, seconds in model.seconds) > 0


def test_sentences_that_leave_gaps_are_followed_by_one_call_of_the_encoder(model: Model) -> None:
    random = np.random.default_rng(0)
    state = DeviceState(model.device(), BEAM)
    state.join(some_sources(random, 8, longest=15))
    state.keep([0, 2, 4, 6, 7])
    calls = model.graphs["encoder"].calls["run_with_iobinding"]
    state.join(some_sources(random, 3, longest=15))
    assert model.graphs["encoder"].calls["run_with_iobinding"] == calls + 1


def test_a_batch_that_is_empty_gives_its_memory_to_the_next(model: Model) -> None:
    random, device = np.random.default_rng(0), model.device()
    first, second = DeviceState(device, BEAM), DeviceState(device, BEAM)
    first.join(some_sources(random, 3, longest=10))
    first.keep([])
    pools = {bucket: list(pools) for bucket, pools in device.idle.items() if pools}
    assert list(pools) == [Bucket(BEAM, 4, 16)]
    second.join(some_sources(random, 4, longest=10))
    assert not device.idle[Bucket(BEAM, 4, 16)]
    second.keep([])
    assert device.idle[Bucket(BEAM, 4, 16)] == pools[Bucket(BEAM, 4, 16)]


def test_a_few_that_are_left_of_many_do_not_keep_the_memory_of_many(model: Model) -> None:
    random, device = np.random.default_rng(0), model.device()
    state = DeviceState(device, BEAM)
    state.join(some_sources(random, 20, longest=10))
    state.keep([3])
    state.join(some_sources(random, 1, longest=10))
    assert device.idle[Bucket(BEAM, 32, 16)]


def test_given_attention_is_used_where_it_is_given(model: Model) -> None:
    random = np.random.default_rng(0)
    sources = some_sources(random, 3, longest=14)
    state, alone = DeviceState(model.device(), BEAM), [Alone(model, source) for source in sources.source_ids]
    state.join(sources)
    previous = some_tokens(random, 3)
    attended = state.attend(previous)
    given = GivenAttention(np.zeros((3, BEAM), bool), np.zeros_like(attended.weights))
    given.replaced[1] = True
    given.weights[1, :, 0] = 1.0
    output = state.step(previous, Wanted(4, attention=True), given)
    for row, sentence in enumerate(alone):
        inputs = {name: array[row : row + 1] for name, array in given.graph_inputs.items()}
        found = sentence.step(previous[row], inputs)
        near(output.candidate_log_probabilities[row], found["candidate_log_probabilities"], 0)
        assert output.attention_weights is not None
        assert (output.attention_weights[row, :, 0] == 1).all() == (row == 1)


def test_only_as_many_candidates_are_returned_as_are_wanted(model: Model) -> None:
    random = np.random.default_rng(0)
    state = DeviceState(model.device(), BEAM)
    state.join(some_sources(random, 2))
    for wanted, found in ((1, 1), (5, 5), (1000, VOCABULARY)):
        output = state.step(some_tokens(random, 2), Wanted(wanted))
        assert output.candidate_token_ids.shape == output.candidate_log_probabilities.shape == (2, BEAM, found)


def test_a_device_that_is_told_to_end_makes_no_further_call(model: Model) -> None:
    device = model.device()
    state = DeviceState(device, BEAM)
    state.join(some_sources(np.random.default_rng(0), 2))
    state.step(np.full((2, BEAM), 2), Wanted(4))
    device.terminate()
    with pytest.raises(Exception, match="terminate"):
        for _ in range(2):
            state.step(np.full((2, BEAM), 2), Wanted(4))


def test_every_call_that_is_recorded_has_a_number_of_its_own(model: Model) -> None:
    options = {"CUDAExecutionProvider": cuda_options(0, captures=True)}
    recording: Any = SimpleNamespace(get_provider_options=lambda: options, get_overridable_initializers=lambda: [])
    device = Device(onnxruntime, {"decoder_step": recording}, model.manifest, "cuda:0", lambda *_: None)
    assert device.captures
    numbers = [device.run_options(captured).get_run_config_entry("gpu_graph_id") for captured in (True, False, True)]
    assert numbers[1] == "-1" and len({*numbers}) == 3
    assert not model.device().captures


def test_operators_left_on_the_processor_are_named_but_for_those_that_work_out_sizes() -> None:
    def part(name: str, *operators: str) -> Any:
        nodes = [SimpleNamespace(op_type=operator) for operator in operators]
        return SimpleNamespace(ep_name=name, get_nodes=lambda: nodes)

    parts = [
        part("CUDAExecutionProvider", "MatMul", "Scan"),
        part("CPUExecutionProvider", "Squeeze", "MatMulIntegerToFloat"),
        part("CPUExecutionProvider", "Concat", "QuantizeLinear", "MatMulIntegerToFloat"),
    ]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)
    assert left_behind(session) == ["MatMulIntegerToFloat", "QuantizeLinear"]
