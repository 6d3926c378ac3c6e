"""A running batch: sentences decoded together, which join and leave between steps.

Axes: ``batch`` (one row a sentence), ``beam``, ``source``, ``target`` (emitted tokens, end of sentence), ``key``. All
rows of a batch have one beam size: a graph may compute products of one row on another path, and a sentence's result
must not depend on its neighbors. Single-threaded; the scheduler's worker thread owns every batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from bundle.intervention import AttentionChange, ChangedAttention
from bundle.search import (
    Beams,
    Hypothesis,
    SearchOptions,
    StepOutput,
    Trace,
    advance,
    certain_prefix,
)
from bundle.step import GivenAttention
from service.decoder_state import DecoderState, Wanted
from service.engine import Engine
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
    _attention: list[tuple[tuple[np.ndarray, ...], int]] = field(default_factory=list)

    @property
    def free(self) -> bool:
        """Whether the seat takes part in no further step."""
        return self.abandoned or self.decoded is not None

    def change_attention(self, keys: Float[np.ndarray, "source key"]) -> None:
        """Put the job's change to work, now that the keys of its source are known."""
        assert self.job.change is not None
        self.attention = ChangedAttention(self.job.change, keys, self.job.source_ids)

    def record(self, output: StepOutput, row: int, batch_size: int) -> None:
        """Keep what a step says about this seat, found in ``row`` of its output, which nobody changes afterwards."""
        self.steps += 1
        self.batch_size = max(self.batch_size, batch_size)
        if self.job.trace:  # and nothing else of the output, which may be large
            parts = output.attention_scores, output.attention_weights, output.attention_query, output.emission_scores
            self._attention.append((tuple(part for part in parts if part is not None), row))

    def finish(self, hypotheses: Sequence[Hypothesis], state: DecoderState, row: int) -> None:
        """Set ``decoded``."""
        traces: tuple[Trace, ...] = ()
        keys = None
        if self.job.trace:
            traces = tuple(self._trace(hypothesis.beam_path) for hypothesis in hypotheses)
            keys = state.attention_keys(row)
            self._attention.clear()
        self.decoded = Decoded(tuple(hypotheses), traces, keys, self.batch_size)

    def _trace(self, beam_path: Sequence[int]) -> Trace:
        length = len(self.job.source_ids)  # columns past it are of other sentences, and not the same at each step
        steps = [(parts, row, beam) for (parts, row), beam in zip(self._attention, beam_path, strict=False)]

        def over_source(place: int) -> np.ndarray:
            return np.stack([parts[place][row, beam, :length] for parts, row, beam in steps])

        queries = np.stack([parts[2][row, beam] for parts, row, beam in steps])
        return Trace(over_source(0), over_source(1), queries, over_source(3) if len(steps[0][0]) == 4 else None)


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
        self._taken: list[SeatT] = []  # one a row, and some of them free by now
        self._progress: _Progress | None = None
        self._state: DecoderState | None = None

    @property
    def seats(self) -> list[SeatT]:
        """Those who take part in the next step."""
        return [seat for seat in self._taken if not seat.free]

    def close(self) -> None:
        """Give back what the tensors lie in; the seats are somebody else's business now."""
        if self._state is not None:
            self._state.keep([])
        self._taken, self._progress, self._state = [], None, None

    @property
    def taken(self) -> list[SeatT]:
        """Those who took part in the last step, or were to take part in one that failed, finished or not."""
        return [seat for seat in self._taken if not seat.abandoned]

    def join(self, seats: Sequence[SeatT], encoded: Any) -> None:
        """Let ``seats``, all of one kind, take part from the next step on; the engine encoded them in that order."""
        special_ids = self._engine.manifest.special_ids
        progress: _Progress
        if seats[0].job.target_ids:
            targets = [seat.job.target_ids for seat in seats]
            progress = ForcedTargets.start(targets, [seat.job.options.length_penalty for seat in seats], special_ids)
        else:
            progress = Beams.start([seat.job.options for seat in seats], special_ids)
        self._leave()
        if self._progress is None or self._state is None:
            self._progress, self._state = progress, self._engine.decoder_state(seats[0].job.hypotheses)
        else:
            self._progress = self._progress.join(progress)
        first = len(self._taken)
        self._taken += seats
        self._state.join(encoded)
        if seats[0].job.kind.changed:
            for row, seat in enumerate(seats, first):
                seat.change_attention(self._state.attention_keys(row))

    def step(self) -> list[SeatT]:
        """Make one step and return the seats that it finished; there is no step, and none, if no seat is taken."""
        self._leave()
        self.size = len(self._taken)
        if self._progress is None or self._state is None:
            return []
        state, seats = self._state, self._taken
        self.padding_ratio = 1.0 - int(state.source_lengths.sum()) / (self.size * state.columns)
        kind = seats[0].job.kind
        wanted = Wanted(
            self._progress.width,
            attention=any(seat.job.trace for seat in seats),
            whole_vocabulary=kind.forced_target or kind.forced_prefix,
        )
        given = self._given_attention(state, self._progress) if kind.changed else None
        output = state.step(self._progress.previous_token_ids, wanted, given)
        for row, seat in enumerate(seats):
            seat.record(output, row, self.size)
        self._progress, parents, finished = _advance(self._progress, output)
        state.reorder(parents)
        for row, hypotheses in finished.items():
            seats[row].finish(hypotheses, state, row)
        _tell(seats, self._progress)
        return [seats[row] for row in finished]

    def _leave(self) -> None:
        """Forget who takes part no more; a seat is asked once, as any thread may free it.

        The places of those who leave are taken by the last rows, so that the others need not move.
        """
        free = [row for row, seat in enumerate(self._taken) if seat.free]
        if not free:
            return
        left = len(self._taken) - len(free)
        gone = set(free)
        behind = [row for row in range(left, len(self._taken)) if row not in gone]
        rows = list(range(left))
        for row, replacement in zip(free, behind, strict=False):
            rows[row] = replacement
        self._taken = [self._taken[row] for row in rows]
        if self._progress is None or self._state is None:
            return
        self._state.keep(rows)
        if rows:
            self._progress = self._progress.keep(rows)
        else:
            self._progress = self._state = None

    def _given_attention(self, state: DecoderState, progress: _Progress) -> GivenAttention:
        """Return what the seats' changes make of the attention that the model would have at this step."""
        attended = state.attend(progress.previous_token_ids)
        token_ids = progress.emitted(self._engine.manifest.decoder_token_offset)
        given = GivenAttention(np.zeros(attended.weights.shape[:2], bool), np.zeros_like(attended.weights))
        for row, seat in enumerate(self._taken):
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
