"""Where a running batch keeps its tensors: the encoder side of its sentences, and the recurrent state of their rows.

Axes: ``batch`` (one row a sentence), ``beam``, ``source``, ``size``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from bundle.search import EncodedBatch, StepOutput
from bundle.sessions import padded
from bundle.step import GivenAttention

_ROOM = 1.25  # times as many sentences as needed, so that not every one that joins moves all others


@dataclass(frozen=True)
class Wanted:
    """What a step is asked for; what is not wanted is not returned, and changes nothing in what is.

    Attributes:
        candidates: Best continuations of every hypothesis; cut to the size of the vocabulary.
        attention: Attention scores, weights and queries, and emission scores where the bundle has them.
        whole_vocabulary: Log probabilities of every token, unsorted.
    """

    candidates: int
    attention: bool = False
    whole_vocabulary: bool = False


@dataclass(frozen=True)
class Attended:
    """The attention of one step; columns past a source's length hold anything in ``scores``, and 0 in ``weights``."""

    scores: Float[np.ndarray, "batch beam source"]
    weights: Float[np.ndarray, "batch beam source"]
    query: Float[np.ndarray, "batch beam key"]


class StepGraph(Protocol):
    """The decoder's step, as an engine runs it."""

    def step(
        self,
        encoded: EncodedBatch,
        previous_token_ids: Int[np.ndarray, "batch beam"],
        state: Mapping[str, np.ndarray],
        wanted: Wanted,
        given: GivenAttention | None = None,
    ) -> StepOutput:
        """Return the best continuations of every hypothesis, and the next state."""
        ...

    def attend(
        self, encoded: EncodedBatch, previous_token_ids: Int[np.ndarray, "batch beam"], state: Mapping[str, np.ndarray]
    ) -> Attended:
        """Return the attention that ``step`` would have."""
        ...


class DecoderState(Protocol):
    """The tensors of a running batch; a sentence keeps its row until ``keep`` says otherwise."""

    @property
    def source_lengths(self) -> Int[np.ndarray, "batch"]:
        """Tokens of each source, end of sentence included."""
        ...

    @property
    def columns(self) -> int:
        """Source positions of a row, padding included."""
        ...

    def join(self, encoded: Any) -> None:
        """Append sentences that have emitted nothing, as the engine encoded them."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these sentences, in this order."""
        ...

    def step(
        self, previous_token_ids: Int[np.ndarray, "batch beam"], wanted: Wanted, given: GivenAttention | None = None
    ) -> StepOutput:
        """Make a step of every hypothesis from its own state."""
        ...

    def attend(self, previous_token_ids: Int[np.ndarray, "batch beam"]) -> Attended:
        """Return the attention that ``step`` would have, and change nothing."""
        ...

    def reorder(self, parents: Int[np.ndarray, "batch beam"]) -> None:
        """Let each hypothesis go on from the state of that row of its sentence."""
        ...

    def attention_keys(self, row: int) -> Float[np.ndarray, "source key"]:
        """Return the keys of one sentence, padding removed."""
        ...


class HostState:
    """Tensors in the host's memory, in buffers that grow.

    Who joins is written behind the others, and the last ones move into the places of those who leave, so a step copies
    nothing that did not change. The state is not moved at all: the graph reads the row it is told to.
    """

    def __init__(self, graph: StepGraph, beam_size: int) -> None:
        self.columns = 0
        self._graph = graph
        self._beam_size = beam_size
        self._batch = 0
        self._lengths = np.zeros(0, np.int64)
        self._side: dict[str, np.ndarray] = {}
        self._state: dict[str, np.ndarray] = {}
        self._rows = np.zeros((0, beam_size), np.int64)  # of the state, for each hypothesis

    @property
    def source_lengths(self) -> Int[np.ndarray, "batch"]:
        """Tokens of each source, end of sentence included."""
        return self._lengths[: self._batch]

    def join(self, encoded: EncodedBatch) -> None:
        """Append sentences that have emitted nothing."""
        first, joined = self._batch, len(encoded.source_lengths)
        columns = padded(int(encoded.source_lengths.max()))
        if first + joined > len(self._lengths) or columns > self.columns:
            self._move(encoded, max(columns, self._needed_columns()), first + joined)
        self._batch += joined
        self._lengths[first : self._batch] = encoded.source_lengths
        for name, array in encoded.encoder_side.items():
            self._side[name][first : self._batch, :columns] = array[:, :columns]
            self._side[name][first : self._batch, columns:] = 0
        rows = len(next(iter(self._state.values()))) if self._state else 0
        initial = encoded.initial_state
        self._state = {
            name: np.concatenate([self._state[name], tensor]) if rows else tensor for name, tensor in initial.items()
        }
        start = np.arange(rows, rows + joined)[:, None].repeat(self._beam_size, axis=1)
        self._rows = np.concatenate([self._rows, start])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these sentences, in this order.

        Cheapest where those that go are replaced by the last ones, and the others keep their places.
        """
        index = np.asarray(rows, np.int64)
        moved = np.flatnonzero(index != np.arange(len(index)))
        for array in (self._lengths, *self._side.values()):
            array[moved] = array[index[moved]]
        self._rows = self._rows[index]
        self._batch = len(index)
        if self._batch and 2 * self._needed_columns() <= self.columns:
            self._move(None, self._needed_columns(), self._batch)

    def step(
        self, previous_token_ids: Int[np.ndarray, "batch beam"], wanted: Wanted, given: GivenAttention | None = None
    ) -> StepOutput:
        """Make a step of every hypothesis from its own state."""
        output = self._graph.step(self._encoded, previous_token_ids, self._inputs, wanted, given)
        rows = self._batch * self._beam_size
        self._state = {name: tensor.reshape(rows, -1) for name, tensor in output.state.items()}
        self._rows = np.arange(rows).reshape(self._batch, self._beam_size)
        return output

    def attend(self, previous_token_ids: Int[np.ndarray, "batch beam"]) -> Attended:
        """Return the attention that ``step`` would have, and change nothing."""
        return self._graph.attend(self._encoded, previous_token_ids, self._inputs)

    def reorder(self, parents: Int[np.ndarray, "batch beam"]) -> None:
        """Let each hypothesis go on from the state of that row of its sentence; right after a step."""
        self._rows = parents + np.arange(0, self._batch * self._beam_size, self._beam_size)[:, None]

    def attention_keys(self, row: int) -> Float[np.ndarray, "source key"]:
        """Return the keys of one sentence, padding removed."""
        return self._side["attention_keys"][row, : self._lengths[row]].copy()

    @property
    def _encoded(self) -> EncodedBatch:
        return EncodedBatch(self.source_lengths, {name: array[: self._batch] for name, array in self._side.items()}, {})

    @property
    def _inputs(self) -> dict[str, np.ndarray]:
        return {**self._state, "state_rows": self._rows}

    def _needed_columns(self) -> int:
        return padded(int(self.source_lengths.max(initial=1)))

    def _move(self, encoded: EncodedBatch | None, columns: int, batch: int) -> None:
        """Move all to buffers for ``batch`` sentences and a little more; zeros where nothing was ever written."""
        room = max(batch, int(_ROOM * batch) if self._batch else batch)
        lengths = np.ones(room, np.int64)
        lengths[: self._batch] = self.source_lengths
        arrays = encoded.encoder_side if encoded is not None else self._side
        side = {name: np.zeros((room, columns, *array.shape[2:]), array.dtype) for name, array in arrays.items()}
        shared = min(columns, self.columns)
        for name, array in self._side.items():
            side[name][: self._batch, :shared] = array[: self._batch, :shared]
        self._lengths, self._side, self.columns = lengths, side, columns
