"""A running batch: sentences decoded together, which join and leave between steps.

Axes: ``batch`` (one row a sentence), ``beam``, ``source``, ``target`` (emitted tokens, end of sentence), ``key``. All
rows of a batch have one beam size: a graph may compute products of one row on another path, and a sentence's result
must not depend on its neighbors. Single-threaded; the scheduler's worker thread owns every batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from bundle.intervention import AttentionChange, ChangedAttention
from bundle.search import (
    Beams,
    EncodedBatch,
    Hypothesis,
    SearchOptions,
    State,
    StepOutput,
    Trace,
    advance,
    certain_prefix,
    reorder,
)
from bundle.sessions import padded
from bundle.step import GivenAttention
from service.engine import Engine, Wanted
from service.forced_targets import ForcedTargets

Progress = Callable[[tuple[int, ...]], None]


class Kind(NamedTuple):
    """What jobs must have in common to share a batch: how their steps are asked for, and the rows of each."""

    forced_target: bool
    forced_prefix: bool
    changed: bool
    beam_size: int


@dataclass(frozen=True)
class Job:
    """One sentence to decode.

    Attributes:
        source_ids: Tokens of the source, end of sentence included.
        options: How to search.
        trace: Whether to keep attention; it costs nothing when not asked for.
        target_ids: Tokens of a given target, to be scored instead of searched for; end of sentence is last, but for
            one that was cut. Empty to search.
        change: How to interfere with its attention; None leaves it alone, at no cost.
        follows: Whether a job of the same call was taken before; then a full queue takes this one too.
        progress: Told after each step, on the thread that made it, the tokens that the answer begins with whatever the
            search still finds; not told what it ends with. None costs nothing.
    """

    source_ids: tuple[int, ...]
    options: SearchOptions
    trace: bool = False
    target_ids: tuple[int, ...] = ()
    change: AttentionChange | None = None
    follows: bool = False
    progress: Progress | None = None

    @property
    def kind(self) -> Kind:
        """Jobs of equal kind may share a batch."""
        changed = self.change is not None
        if self.target_ids:
            return Kind(True, False, changed, 1)
        return Kind(False, bool(self.options.forced_prefix), changed, self.options.beam_size)

    @property
    def hypotheses(self) -> int:
        """Rows that the sentence takes in a step."""
        return self.kind.beam_size

    @property
    def most_steps(self) -> int:
        """Steps after which the sentence is finished, whatever happens."""
        return len(self.target_ids) or self.options.max_target_tokens


@dataclass(frozen=True)
class Decoded:
    """What became of a job.

    Attributes:
        hypotheses: Best first; one, the given target, where the job had one.
        traces: One a hypothesis, in the same order; empty unless asked for.
        attention_keys: Of the source, padding removed; None unless a trace was asked for.
        batch_size: Most sentences that shared a step with this one, itself included.
    """

    hypotheses: tuple[Hypothesis, ...]
    traces: tuple[Trace, ...]
    attention_keys: Float[np.ndarray, "source key"] | None
    batch_size: int


@dataclass(eq=False, repr=False)
class Seat:
    """A job's place in a batch.

    Attributes:
        job: What to do.
        abandoned: Set, from any thread, when nobody waits for the answer; the seat is free at the next step.
        decoded: The answer, once there is one.
        steps: Steps made so far.
        batch_size: Most seats taken at a step so far.
        attention: The job's change at work; None where it has none.
        certain: What ``job.progress`` was told last.
    """

    job: Job
    abandoned: bool = False
    decoded: Decoded | None = None
    steps: int = 0
    batch_size: int = 0
    attention: ChangedAttention | None = None
    certain: tuple[int, ...] = ()
    _attention: list[tuple[np.ndarray, ...]] = field(default_factory=list)

    @property
    def free(self) -> bool:
        """Whether the seat takes part in no further step."""
        return self.abandoned or self.decoded is not None

    def change_attention(self, keys: Float[np.ndarray, "source key"]) -> None:
        """Put the job's change to work, now that the keys of its source are known; padding may follow them."""
        assert self.job.change is not None
        source_ids = self.job.source_ids
        self.attention = ChangedAttention(self.job.change, keys[: len(source_ids)], source_ids)

    def record(self, output: StepOutput, row: int, batch_size: int) -> None:
        """Keep what a step says about this seat, found in ``row`` of its output."""
        self.steps += 1
        self.batch_size = max(self.batch_size, batch_size)
        if self.job.trace:
            length = len(self.job.source_ids)
            scores, weights, query = output.attention_scores, output.attention_weights, output.attention_query
            assert scores is not None and weights is not None and query is not None
            parts = [scores[row, :, :length].copy(), weights[row, :, :length].copy(), query[row].copy()]
            if output.emission_scores is not None:
                parts.append(output.emission_scores[row, :, :length].copy())
            self._attention.append(tuple(parts))

    def finish(self, hypotheses: Sequence[Hypothesis], encoded: EncodedBatch, row: int) -> None:
        """Set ``decoded``."""
        traces: tuple[Trace, ...] = ()
        keys = None
        if self.job.trace:
            traces = tuple(self._trace(hypothesis.beam_path) for hypothesis in hypotheses)
            keys = encoded.encoder_side["attention_keys"][row, : len(self.job.source_ids)].copy()
        self.decoded = Decoded(tuple(hypotheses), traces, keys, self.batch_size)

    def _trace(self, beam_path: Sequence[int]) -> Trace:
        steps = [[array[beam] for array in self._attention[step]] for step, beam in enumerate(beam_path)]
        return Trace(*(np.stack(rows) for rows in zip(*steps, strict=True)))


ProgressT = TypeVar("ProgressT")


@runtime_checkable
class _Progress(Protocol):
    """What ``Beams`` and ``ForcedTargets`` have in common."""

    @property
    def width(self) -> int: ...

    @property
    def previous_token_ids(self) -> Int[np.ndarray, "batch beam"]: ...

    def emitted(self, steps_back: int) -> Int[np.ndarray, "batch beam"]: ...

    def keep(self: ProgressT, rows: Sequence[int]) -> ProgressT: ...

    def join(self: ProgressT, other: ProgressT) -> ProgressT: ...


SeatT = TypeVar("SeatT", bound=Seat)


@dataclass(frozen=True)
class _Rows(Generic[SeatT]):
    """Rows of a batch before a step, and all that is known about each."""

    seats: tuple[SeatT, ...]
    encoded: EncodedBatch
    progress: _Progress
    state: State

    def keep(self, rows: Sequence[int]) -> "_Rows[SeatT]":
        index = np.asarray(rows, np.int64)
        state = {name: tensor[index] for name, tensor in self.state.items()}
        return _Rows(tuple(self.seats[row] for row in rows), self.encoded.keep(index), self.progress.keep(rows), state)


class RunningBatch(Generic[SeatT]):
    """Jobs of one kind that make their steps together.

    Attributes:
        size: Seats that took part in the last step; 0 when none was left to make one.
        padding_ratio: Share of the last step's source positions that were padding.
    """

    def __init__(self, engine: Engine) -> None:
        self.size = 0
        self.padding_ratio = 0.0
        self._engine = engine
        self._parts: list[_Rows[SeatT]] = []  # those of the last step, if any, then those who join at the next

    @property
    def seats(self) -> list[SeatT]:
        """Those who take part in the next step."""
        return [seat for part in self._parts for seat in part.seats if not seat.free]

    def join(self, seats: Sequence[SeatT], encoded: EncodedBatch) -> None:
        """Let ``seats``, all of one kind and encoded in that order, take part from the next step on."""
        special_ids = self._engine.manifest.special_ids
        progress: _Progress
        if seats[0].job.target_ids:
            targets = [seat.job.target_ids for seat in seats]
            progress = ForcedTargets.start(targets, [seat.job.options.length_penalty for seat in seats], special_ids)
        else:
            progress = Beams.start([seat.job.options for seat in seats], special_ids)
        if seats[0].job.kind.changed:
            for row, seat in enumerate(seats):
                seat.change_attention(encoded.encoder_side["attention_keys"][row])
        beam_size = seats[0].job.hypotheses
        state = {name: np.repeat(tensor[:, None], beam_size, axis=1) for name, tensor in encoded.initial_state.items()}
        self._parts.append(_Rows(tuple(seats), replace(encoded, initial_state={}), progress, state))

    def step(self) -> list[SeatT]:
        """Make one step and return the seats that it finished; there is no step, and none, if no seat is taken."""
        rows = _assembled(self._parts)
        self.size = 0 if rows is None else len(rows.seats)
        if rows is None:
            self._parts = []
            return []
        lengths: list[int] = rows.encoded.source_lengths.tolist()
        self.padding_ratio = 1.0 - sum(lengths) / (len(lengths) * padded(max(lengths)))
        kind = rows.seats[0].job.kind
        wanted = Wanted(
            rows.progress.width,
            attention=any(seat.job.trace for seat in rows.seats),
            whole_vocabulary=kind.forced_target or kind.forced_prefix,
        )
        given = self._given_attention(rows) if kind.changed else None
        output = self._engine.step(rows.encoded, rows.progress.previous_token_ids, rows.state, wanted, given)
        for row, seat in enumerate(rows.seats):
            seat.record(output, row, self.size)
        progress, parents, finished = _advance(rows.progress, output)
        for row, hypotheses in finished.items():
            rows.seats[row].finish(hypotheses, rows.encoded, row)
        _tell(rows.seats, progress)
        self._parts = [_Rows(rows.seats, rows.encoded, progress, reorder(output.state, parents))]
        return [rows.seats[row] for row in finished]

    def _given_attention(self, rows: _Rows[SeatT]) -> GivenAttention:
        """Return what the seats' changes make of the attention that the model would have at this step."""
        attended = self._engine.attend(rows.encoded, rows.progress.previous_token_ids, rows.state)
        token_ids = rows.progress.emitted(self._engine.manifest.decoder_token_offset)
        given = GivenAttention(np.zeros(attended.weights.shape[:2], bool), np.zeros_like(attended.weights))
        for row, seat in enumerate(rows.seats):
            assert seat.attention is not None
            length = len(seat.job.source_ids)
            scores, queries = attended.scores[row, :, :length], attended.query[row]
            weights = seat.attention.weights(scores, queries, seat.steps, token_ids[row])
            if weights is not None:
                given.replaced[row] = True
                given.weights[row, :, :length] = weights
        return given


def _advance(
    progress: _Progress, output: StepOutput
) -> tuple[_Progress, Int[np.ndarray, "batch beam"], dict[int, list[Hypothesis]]]:
    if isinstance(progress, ForcedTargets):
        return progress.advance(output)
    assert isinstance(progress, Beams)
    return advance(progress, output)


def _tell(seats: Sequence[Seat], progress: _Progress) -> None:
    """Tell those who want to know it, and are not finished, what is certain of their answers."""
    if isinstance(progress, Beams):
        for row, seat in enumerate(seats):
            if seat.job.progress is not None and not seat.free:
                seat.certain = certain_prefix(progress, row, seat.certain)
                seat.job.progress(seat.certain)


def _assembled(parts: Sequence[_Rows[SeatT]]) -> _Rows[SeatT] | None:
    """Return one batch of all rows whose seat is taken, or None; a seat is asked once, as any thread may free it."""
    kept = []
    for part in parts:
        taken = [row for row, seat in enumerate(part.seats) if not seat.free]
        if taken:
            kept.append(part if len(taken) == len(part.seats) else part.keep(taken))
    if not kept:
        return None
    if len(kept) == 1:
        return replace(kept[0], encoded=_narrowed(kept[0].encoded))
    progress = kept[0].progress
    for part in kept[1:]:
        progress = progress.join(part.progress)
    return _Rows(
        tuple(seat for part in kept for seat in part.seats),
        _stacked([part.encoded for part in kept]),
        progress,
        {name: np.concatenate([part.state[name] for part in kept]) for name in kept[0].state},
    )


def _narrowed(encoded: EncodedBatch) -> EncodedBatch:
    """Return ``encoded`` with the source axis as long as its longest row needs; nothing is copied if it is already."""
    columns = padded(int(encoded.source_lengths.max()))
    side = {name: np.ascontiguousarray(array[:, :columns]) for name, array in encoded.encoder_side.items()}
    return replace(encoded, encoder_side=side)


def _stacked(parts: Sequence[EncodedBatch]) -> EncodedBatch:
    """Return all rows of ``parts``, the source axis as long as the longest row needs."""
    lengths = np.concatenate([part.source_lengths for part in parts])
    columns = padded(int(lengths.max()))
    side = {}
    for name, first in parts[0].encoder_side.items():
        side[name] = np.zeros((len(lengths), columns, *first.shape[2:]), first.dtype)
        begin = 0
        for part in parts:
            array = part.encoder_side[name][:, :columns]
            side[name][begin : begin + len(array), : array.shape[1]] = array
            begin += len(array)
    return EncodedBatch(lengths, side, {})
