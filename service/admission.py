"""Who may wait for a place in a batch: the queue, its bounds, and how long those who come last would have to wait."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from bundle.sessions import padded
from service.batch import Job, Seat
from service.errors import DeadlineTooShort, QueueFull, ServiceError

SeatT = TypeVar("SeatT", bound=Seat)

_RETRY_SECONDS = (0.1, 30.0)
_UNTIMED_SECONDS = 1.0  # what a refused caller is told to wait for before the queue's pace is known
_CONSERVATIVE = 2.0  # times faster than lately: callers ahead may leave, and the next sentences be short
_MEMORY = 0.95  # of the pace, from one step or sentence to the next
_TURNS = 20  # until the pace is believed


@dataclass(frozen=True)
class Limits:
    """What the scheduler takes on.

    Attributes:
        queue_capacity: Sentences that may wait; those that follow another of the same call may exceed it.
        batch_hypotheses: Hypotheses decoded at once, over all batches; at least the largest beam size.
        encode_tokens: Source tokens of one encoder call, padding included; a longer single sentence is encoded alone.
        queue_tokens: Source tokens of the sentences that wait; one that finds the queue empty may exceed it, and those
            that follow another of the same call.
        watchdog_seconds: Longest that one call of the engine may take.
    """

    queue_capacity: int = 512
    batch_hypotheses: int = 128
    encode_tokens: int = 2048
    queue_tokens: int = 65_536
    watchdog_seconds: float = 30.0


class Refusal(NamedTuple):
    """Why a seat may not wait: for the metrics, and for its caller."""

    reason: Literal["queue_full", "queue_tokens", "deadline"]
    error: ServiceError


class Pace:
    """How fast sentences are decoded while somebody waits: an idle engine tells nothing of a busy one.

    The wait of those who come last is foretold from the steps that the sentences ahead will need. When sentences were
    taken says less: a batch that has just been filled lets nobody in for a while, and then many.
    """

    def __init__(self) -> None:
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
        """Note how long the engine took to make one step of ``hypotheses`` while somebody waited."""
        self._turns += 1
        self._seconds = _MEMORY * self._seconds + seconds
        self._hypotheses = _MEMORY * self._hypotheses + hypotheses

    def finished(self, job: Job, steps: int) -> None:
        """Note how many steps a job took."""
        self._steps = _MEMORY * self._steps + steps
        self._tokens = _MEMORY * self._tokens + len(job.source_ids)


class Queue(Generic[SeatT]):
    """Seats that wait, first come first served; any thread may call it, and locks it for a few instructions.

    Attributes:
        pace: How fast it moves; told by the thread that takes from it.
        tokens: Source tokens of those who wait.
        idle: Whether the thread that takes from the queue has nothing to do; False from the moment that a seat is
            admitted.
    """

    def __init__(self, limits: Limits) -> None:
        self.pace = Pace()
        self.tokens = 0
        self.idle = False
        self._limits = limits
        self._seats: OrderedDict[SeatT, None] = OrderedDict()  # any of them can leave in no time, as callers do
        self._work = 0  # tokens times hypotheses of those who wait
        self._changed = threading.Condition(threading.Lock())
        self._closed = False

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._seats)

    @property
    def wait_seconds(self) -> float:
        """How long a seat that comes now would wait if the queue goes on as lately; 0 if nobody waits."""
        return self._work * self.pace.seconds

    def admit(self, seat: SeatT, seconds_left: float | None) -> Refusal | None:
        """Let ``seat`` wait, or return why it may not.

        Where nobody waits everybody may; and so may a job that follows another of the same call, whose work is worth
        nothing without it.

        Args:
            seat: Who comes.
            seconds_left: Until its caller's deadline; None if there is none.
        """
        with self._changed:
            if self._seats and not seat.job.follows and (refusal := self._refusal(seat.job, seconds_left)):
                return refusal
            self._seats[seat] = None
            self._count(seat.job, 1)
            self.idle = False
            self._changed.notify()
        return None

    def remove(self, seat: SeatT) -> bool:
        """Take ``seat`` out, whose caller has gone; return whether it was still waiting."""
        with self._changed:
            waited = seat in self._seats
            if waited:
                del self._seats[seat]
                self._count(seat.job, -1)
        return waited

    def take(self, room: int) -> list[SeatT]:
        """Return the first seats: as many as ``room`` has hypotheses for, and as one encoder call should take."""
        seats: list[SeatT] = []
        longest = 0
        with self._changed:
            for seat in self._seats:
                longest = max(longest, padded(len(seat.job.source_ids)))
                too_much = seats and longest * (len(seats) + 1) > self._limits.encode_tokens
                if seat.job.hypotheses > room or too_much:
                    break
                seats.append(seat)
                room -= seat.job.hypotheses
            for seat in seats:
                del self._seats[seat]
                self._count(seat.job, -1)
        return seats

    def wait(self) -> None:
        """Return when somebody waits, or the queue is closed."""
        with self._changed:
            while not (self._seats or self._closed):
                self.idle = True
                self._changed.wait()

    def close(self) -> None:
        """Forget those who wait, and let go whoever is in ``wait``."""
        with self._changed:
            self._closed = True
            self._seats.clear()
            self.tokens = self._work = 0
            self._changed.notify()

    def _count(self, job: Job, sign: int) -> None:
        """Count a job that comes (1) or goes (-1)."""
        tokens = len(job.source_ids)
        self.tokens += sign * tokens
        self._work += sign * tokens * job.hypotheses

    def _refusal(self, job: Job, seconds_left: float | None) -> Refusal | None:
        limits, waiting, wait = self._limits, len(self._seats), self.wait_seconds
        retry = min(max(wait or _UNTIMED_SECONDS, _RETRY_SECONDS[0]), _RETRY_SECONDS[1])
        again = f"try again in {retry:.1f} s"
        if waiting >= limits.queue_capacity:
            message = f"{waiting} sentences wait already, as many as may; {again}"
            return Refusal("queue_full", QueueFull(message, retry))
        if self.tokens + len(job.source_ids) > limits.queue_tokens:
            message = f"sentences of {self.tokens} tokens wait already, of at most {limits.queue_tokens}; {again}"
            return Refusal("queue_tokens", QueueFull(message, retry))
        if seconds_left is not None and wait / _CONSERVATIVE > seconds_left:
            message = (
                f"{waiting} sentences wait already, for some {wait:.1f} s, and the deadline is in "
                f"{seconds_left:.2f} s; nothing was started. Allow more time, or ask another replica."
            )
            return Refusal("deadline", DeadlineTooShort(message))
        return None
