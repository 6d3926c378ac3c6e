"""The exported graphs, run by ONNX Runtime as the service runs them: what parity, tables and figures are made with.

Axes are those of the bundle's graphs.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnxruntime
from jaxtyping import Int

from bundle.manifest import SpecialIds
from bundle.search import ALL_CANDIDATES, EncodedBatch, State, StepOutput
from bundle.sessions import encoder_inputs, own_states, session_entries
from bundle.step import WITH_EMISSION, GivenAttention

_TRACED = ("attention_scores", "attention_weights", "attention_query")


class OnnxModel:
    """The two graphs of a bundle; calling it is one step of the search contract (``bundle.search.StepFunction``).

    Attributes:
        step_outputs: Names of what the step can give.
    """

    def __init__(self, graphs: Mapping[str, bytes], special_ids: SpecialIds, threads: int = 0) -> None:
        """Load the graphs, given as the content of their files; 0 threads means as many as there are processors."""
        self.graphs, self.special_ids = dict(graphs), special_ids
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        for name, value in session_entries().items():
            options.add_session_config_entry(name, value)
        self._sessions = {
            name: onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            for name, content in graphs.items()
        }
        self._run_options = onnxruntime.RunOptions()
        encoder_outputs = [output.name for output in self._sessions["encoder"].get_outputs()]
        self.step_outputs = {output.name for output in self._sessions["decoder_step"].get_outputs()}
        self.state_names = [n.removeprefix("initial_") for n in encoder_outputs if n.startswith("initial_")]
        step_inputs = {value.name for value in self._sessions["decoder_step"].get_inputs()}
        self._optional = {value.name for value in self._sessions["decoder_step"].get_overridable_initializers()}
        self.encoder_side = [name for name in encoder_outputs if name in step_inputs]
        self._traced = [name for name in _TRACED if name in self.step_outputs]

    def run(self, graph: str, inputs: Mapping[str, np.ndarray], fetches: Sequence[str]) -> dict[str, np.ndarray]:
        """Return tensors of one graph by name; asked for an input, it gives it back."""
        outputs = [name for name in fetches if name not in inputs]
        found = dict(zip(outputs, self._sessions[graph].run(outputs, dict(inputs), self._run_options), strict=True))
        return {name: found[name] if name in found else inputs[name] for name in fetches}

    def encode(self, sources: Sequence[Sequence[int]]) -> EncodedBatch:
        """Return the encoder side of sentences given as ids, end of sentence included."""
        inputs = encoder_inputs(sources, self.special_ids.pad)
        names = [*self.encoder_side, *(f"initial_{name}" for name in self.state_names)]
        outputs = self.run("encoder", inputs, names)
        return EncodedBatch(
            inputs["source_lengths"],
            {name: outputs[name] for name in self.encoder_side},
            {name: outputs[f"initial_{name}"] for name in self.state_names},
        )

    def __call__(
        self, encoded: EncodedBatch, previous_token_ids: Int[np.ndarray, "batch beam"], state: State, candidates: int
    ) -> StepOutput:
        """Return the best tokens of every hypothesis with the attention; ``ALL_CANDIDATES`` fills the whole list."""
        everything = candidates == ALL_CANDIDATES
        names = ["candidate_token_ids", "candidate_log_probabilities", *self.next_state, *self._traced]
        inputs = self._step_inputs(encoded, previous_token_ids, state, 1 if everything else candidates)
        found = self.run("decoder_step", inputs, [*names, "log_probabilities"] if everything else names)
        return StepOutput(
            found["candidate_token_ids"],
            found["candidate_log_probabilities"],
            {name: found[f"next_{name}"] for name in self.state_names},
            *(found.get(name) for name in (*_TRACED, "log_probabilities")),
        )

    def step(
        self,
        encoded: EncodedBatch,
        previous_token_ids: Int[np.ndarray, "batch beam"],
        state: State,
        fetches: Sequence[str],
        given: GivenAttention | None = None,
    ) -> dict[str, np.ndarray]:
        """Return tensors of the step graph by name; ``given`` is attention to use instead of the model's own."""
        inputs = self._step_inputs(encoded, previous_token_ids, state, candidates=1)
        inputs |= given.graph_inputs if given else {}
        if "emission_scores" in fetches:
            inputs |= {name: array for name, array in WITH_EMISSION.items() if name in self._optional}
        return self.run("decoder_step", inputs, fetches)

    def forced(
        self, encoded: EncodedBatch, target_input_ids: Int[np.ndarray, "batch target"], fetches: Sequence[str]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield tensors of the step graph, beam axis 1, for each column of ``target_input_ids``."""
        state = {name: array[:, None] for name, array in encoded.initial_state.items()}
        for position in range(target_input_ids.shape[1]):
            column = target_input_ids[:, position : position + 1]
            found = self.step(encoded, column, state, [*dict.fromkeys([*fetches, *self.next_state])])
            state = {name: found[f"next_{name}"] for name in self.state_names}
            yield found

    @property
    def next_state(self) -> list[str]:
        """The names under which a step returns the next state."""
        return [f"next_{name}" for name in self.state_names]

    def _step_inputs(
        self, encoded: EncodedBatch, previous_token_ids: Int[np.ndarray, "batch beam"], state: State, candidates: int
    ) -> dict[str, np.ndarray]:
        return {
            "previous_token_ids": previous_token_ids,
            "source_lengths": encoded.source_lengths,
            "candidates": np.array([candidates], np.int64),
            **encoded.encoder_side,
            **own_states(state),
        }
