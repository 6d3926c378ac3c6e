"""Who may wait for a place in a batch, and which lane takes them: the queue, its bounds, and how long it will take."""

import threading
from collections.abc import Hashable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple

from bundle.sessions import padded
from service.batch import Job, Kind, Seat
from service.errors import DeadlineTooShort, QueueFull, ServiceError
from service.flows import Flows, SeatT

calling: ContextVar[Hashable | None] = ContextVar("calling", default=None)
"""The call that the current task is about: its sentences are one flow. None lets each sentence be its own."""

_RETRY_SECONDS = (0.1, 30.0)
_UNTIMED_SECONDS = 1.0  # what a refused caller is told to wait for before the queue's pace is known
_CONSERVATIVE = 2.0  # times faster than lately: callers ahead may leave, and the next sentences be short
_MEMORY = 0.95  # of the pace, from one step or sentence to the next
_TURNS = 20  # until the pace is believed
_FEW = 16  # hypotheses; fewer are encoded beside as if they were so many, so that a batch fills up in a few steps


@dataclass(frozen=True)
class Limits:
    """What the scheduler takes on.

    Attributes:
        queue_capacity: Sentences that may wait; those that follow another of the same call may exceed it.
        batch_hypotheses: Hypotheses decoded at once, over all lanes; at least the largest beam size.
        step_tokens: Source tokens, padding included, that all hypotheses of a lane may attend over in one step; a
            longer single sentence is decoded alone.
        encode_tokens: Source tokens of one encoder call, padding included; a longer single sentence is encoded alone.
        encode_beside: Source tokens encoded between two steps for each hypothesis that waits for it: a few steps' time.
        queue_tokens: Source tokens of the sentences that wait; one that finds the queue empty may exceed it, and those
            that follow another of the same call.
        watchdog_seconds: Longest that one call of the engine may take.
        lanes: Threads that decode side by side, each its own batches.
    """

    queue_capacity: int = 512
    batch_hypotheses: int = 128
    step_tokens: int = 8192
    encode_tokens: int = 2048
    encode_beside: int = 4
    queue_tokens: int = 65_536
    watchdog_seconds: float = 30.0
    lanes: int = 1


class Refusal(NamedTuple):
    """Why a seat may not wait: for the metrics, and for its caller."""

    reason: Literal["queue_full", "queue_tokens", "deadline"]
    error: ServiceError


class Pace:
    """How fast sentences are decoded while somebody waits: an idle engine tells nothing of a busy one.

    The wait of those who come last is foretold from the steps that the sentences ahead will need. When sentences were
    taken says less: a batch that has just been filled lets nobody in for a while, and then many.

    Any thread may call it.
    """

    def __init__(self, lanes: int = 1) -> None:
        self._lanes = lanes  # all at work while somebody waits
        self._lock = threading.Lock()
        self._turns = 0
        self._seconds = self._hypotheses = 0.0
        self._steps = self._tokens = 0.0

    @property
    def seconds(self) -> float:
        """Seconds per source token and hypothesis; 0 until it is known."""
        if self._turns < _TURNS or not self._tokens:
            return 0.0
        return self._seconds / self._hypotheses * self._steps / self._tokens

    def stepped(self, hypotheses: int, seconds: float) -> None:
        """Note how long a lane took to make one step of ``hypotheses`` while somebody waited."""
        with self._lock:
            self._turns += 1
            self._seconds = _MEMORY * self._seconds + seconds / self._lanes
            self._hypotheses = _MEMORY * self._hypotheses + hypotheses

    def finished(self, job: Job, steps: int) -> None:
        """Note how many steps a job took."""
        with self._lock:
            self._steps = _MEMORY * self._steps + steps
            self._tokens = _MEMORY * self._tokens + len(job.source_ids)


class Load:
    """What one lane decodes; written by its thread, and by the queue while that takes from it. Others read it.

    Attributes:
        hypotheses: Those of all its batches; never less than there are.
        resting: Whether its thread has nothing to do.
    """

    def __init__(self) -> None:
        self.hypotheses = 0
        self.resting = False
        self._batches: dict[Kind, tuple[int, int]] = {}  # hypotheses, and source tokens of the longest, padded

    def count(self, batches: Iterable[tuple[Kind, Sequence[Seat]]]) -> None:
        """Take ``batches`` for all that the lane decodes."""
        self._batches = {}
        for kind, seats in batches:
            if seats:
                longest = max(len(seat.job.source_ids) for seat in seats)
                self._batches[kind] = len(seats) * kind.beam_size, padded(longest)
        self.hypotheses = sum(hypotheses for hypotheses, _ in self._batches.values())

    def add(self, job: Job) -> None:
        """Count one more job."""
        self._batches[job.kind] = self._with(job)
        self.hypotheses += job.hypotheses

    def attended_with(self, job: Job) -> int:
        """Return the source tokens that all hypotheses would attend over in one step, with those of ``job``."""
        batches = self._batches | {job.kind: self._with(job)}
        return sum(hypotheses * longest for hypotheses, longest in batches.values())

    def _with(self, job: Job) -> tuple[int, int]:
        hypotheses, longest = self._batches.get(job.kind, (0, 0))
        return hypotheses + job.hypotheses, max(longest, padded(len(job.source_ids)))


class Queue(Generic[SeatT]):
    """Seats that wait, their calls served in turns; any thread may call it, and locks it for a few instructions.

    A lane takes a seat where that brings it to no more than its even share of all that there is to decode, or where no
    other lane has less. So what comes at once is shared out evenly, nobody who waits is overtaken, and while there is
    room some lane may always take who comes next.

    Attributes:
        pace: How fast it moves; told by the lanes.
        encode_tokens: As of ``Limits``.
        lanes: What each lane decodes.
        closed: Whether all is over.
    """

    def __init__(self, limits: Limits) -> None:
        self.pace = Pace(limits.lanes)
        self.encode_tokens = limits.encode_tokens
        self.lanes = tuple(Load() for _ in range(limits.lanes))
        self.closed = False
        self._limits = limits
        self._flows: Flows[SeatT] = Flows()
        self._changed = threading.Condition(threading.Lock())

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._flows)

    @property
    def tokens(self) -> int:
        """Source tokens of those who wait."""
        return self._flows.tokens

    @property
    def idle(self) -> bool:
        """Whether no lane has anything to do; False from the moment that a seat is admitted."""
        return not self._flows and all(lane.resting for lane in self.lanes)

    @property
    def wait_seconds(self) -> float:
        """How long all who wait now will have to, if the queue goes on as lately; 0 if nobody waits."""
        return self._flows.work * self.pace.seconds

    def admit(self, seat: SeatT, seconds_left: float | None, flow: Hashable | None = None) -> Refusal | None:
        """Let ``seat`` wait, or return why it may not.

        Where nobody waits everybody may; and so may a job that follows another of the same call, whose work is worth
        nothing without it.

        Args:
            seat: Who comes.
            seconds_left: Until its caller's deadline; None if there is none.
            flow: The call it is of; None if it is all of it.
        """
        key = seat if flow is None else flow
        with self._changed:
            if self._flows and not seat.job.follows and (refusal := self._refusal(seat.job, seconds_left, key)):
                return refusal
            self._flows.add(seat, key)
            self._changed.notify()
        return None

    def remove(self, seat: SeatT) -> bool:
        """Take ``seat`` out, whose caller has gone; return whether it was still waiting."""
        with self._changed:
            waited = seat in self._flows
            if waited:
                self._flows.remove(seat)
        return waited

    def take(self, lane: Load) -> list[SeatT]:
        """Return those who are next, as many as ``lane`` should encode and decode now.

        A lane that decodes nothing waits until there is somebody; nobody is returned once all is over.
        """
        if lane.hypotheses and not self._flows:  # as mostly
            return []
        with self._changed:
            while not (lane.hypotheses or self._next_for(lane) or self.closed):
                lane.resting = True
                self._changed.wait()
                lane.resting = False
            seats: list[SeatT] = []
            left = self.encode_tokens
            if lane.hypotheses:
                left = min(left, self._limits.encode_beside * max(_FEW, lane.hypotheses))
            while (seat := self._next_for(lane)) is not None:
                left -= padded(len(seat.job.source_ids))
                if seats and left < 0:
                    break
                seats.append(self._flows.take())
                lane.add(seat.job)
            if any(each.resting and self._next_for(each) for each in self.lanes):
                self._changed.notify()
        return seats

    def close(self) -> None:
        """Forget those who wait, and let go whoever is in ``take``."""
        with self._changed:
            self.closed = True
            self._flows.clear()
            self._changed.notify_all()

    def _next_for(self, lane: Load) -> SeatT | None:
        """Return who is next, if ``lane`` should take them."""
        seat = self._flows.first()
        if seat is None:
            return None
        job, limits = seat.job, self._limits
        running = sum(each.hypotheses for each in self.lanes)
        if running + job.hypotheses > limits.batch_hypotheses:
            return None
        if lane.hypotheses and lane.attended_with(job) > limits.step_tokens:
            return None
        share = min(running + self._flows.hypotheses, limits.batch_hypotheses) / len(self.lanes)
        evenly = lane.hypotheses + job.hypotheses <= share
        return seat if evenly or lane.hypotheses <= min(each.hypotheses for each in self.lanes) else None

    def _refusal(self, job: Job, seconds_left: float | None, flow: Hashable) -> Refusal | None:
        limits, waiting, wait = self._limits, len(self), self.wait_seconds
        retry = min(max(wait or _UNTIMED_SECONDS, _RETRY_SECONDS[0]), _RETRY_SECONDS[1])
        again = f"try again in {retry:.1f} s"
        if waiting >= limits.queue_capacity:
            message = f"{waiting} sentences wait already, as many as may; {again}"
            return Refusal("queue_full", QueueFull(message, retry))
        if self.tokens + len(job.source_ids) > limits.queue_tokens:
            message = f"sentences of {self.tokens} tokens wait already, of at most {limits.queue_tokens}; {again}"
            return Refusal("queue_tokens", QueueFull(message, retry))
        if seconds_left is None or wait / _CONSERVATIVE <= seconds_left:
            return None  # which is quickly found; what comes before those of one call is not
        wait = self._flows.ahead(flow) * self.pace.seconds
        if wait / _CONSERVATIVE > seconds_left:
            message = (
                f"{waiting} sentences wait already, this one would for some {wait:.1f} s, and the deadline is in "
                f"{seconds_left:.2f} s; nothing was started. Allow more time, or ask another replica."
            )
            return Refusal("deadline", DeadlineTooShort(message))
        return None
