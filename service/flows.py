"""Sentences that wait, served fairly between the calls they are of; single-threaded, and without a clock.

The sentences of one call are a flow. Flows have turns, one after another: surplus round robin. A turn adds ``TURN`` to
what a flow may have, and then its sentences are taken, first come first served, until that is used up; the last of them
may use more, which counts against the next turns. So

* a flow that comes is served when each of those there has had one turn at most, however much they have brought;
* a flow that waits is served again after as many rounds of turns as its last sentence cost turns, whatever comes;
* where every flow is one sentence, they are taken in the order in which they came.

Work is source tokens times hypotheses: what a sentence will occupy its lane with, as far as that is known.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from service.batch import Job, Seat

SeatT = TypeVar("SeatT", bound=Seat)

TURN = 64  # a sentence of the usual length with a beam of 4; there is nothing to gain from longer turns


class _Flow(Generic[SeatT]):
    """Seats of one call, in order; each can leave in no time, as callers do."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.seats: OrderedDict[SeatT, None] = OrderedDict()
        self.work = 0
        self.balance = TURN  # work that may be taken in this turn; what is missing was taken in the one before

    @property
    def first(self) -> SeatT:
        return next(iter(self.seats))


class Flows(Generic[SeatT]):
    """Seats that wait, and whose turn it is.

    Attributes:
        tokens: Source tokens of those who wait.
        hypotheses: Those they will take.
        work: Tokens times hypotheses.
    """

    def __init__(self) -> None:
        self.tokens = self.hypotheses = self.work = 0
        self._flows: OrderedDict[Hashable, _Flow[SeatT]] = OrderedDict()  # in the order of their turns
        self._flow_of: dict[SeatT, _Flow[SeatT]] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._flow_of)

    def __contains__(self, seat: SeatT) -> bool:
        """Return whether ``seat`` waits."""
        return seat in self._flow_of

    def add(self, seat: SeatT, key: Hashable) -> None:
        """Let ``seat`` wait behind those of the same flow; a new flow waits behind the others."""
        flow = self._flows.setdefault(key, _Flow(key))
        flow.seats[seat] = None
        self._flow_of[seat] = flow
        self._count(flow, seat.job, 1)

    def first(self) -> SeatT | None:
        """Return the seat that is to be taken next; None where nobody waits."""
        while self._flows:
            flow = next(iter(self._flows.values()))
            if flow.balance > 0:
                return flow.first
            flow.balance += TURN
            self._flows.move_to_end(flow.key)
        return None

    def take(self) -> SeatT:
        """Take ``first`` out, at its flow's expense; somebody waits."""
        seat = self.first()
        assert seat is not None
        self._flow_of[seat].balance -= work_of(seat.job)
        self.remove(seat)
        return seat

    def remove(self, seat: SeatT) -> None:
        """Take ``seat`` out, at nobody's expense; a flow of which nobody waits any more is forgotten."""
        flow = self._flow_of.pop(seat)
        del flow.seats[seat]
        self._count(flow, seat.job, -1)
        if not flow.seats:
            del self._flows[flow.key]

    def clear(self) -> None:
        """Forget everybody."""
        self._flows.clear()
        self._flow_of.clear()
        self.tokens = self.hypotheses = self.work = 0

    def ahead(self, key: Hashable) -> int:
        """Return the work that comes before that of a seat which joins a flow now, unless more flows come.

        It takes time that grows with the flows.
        """
        own = self._flows.get(key)
        before = own.work if own else 0
        turns = 1 + before // TURN
        others = (flow for flow in self._flows.values() if flow is not own)
        return before + sum(min(flow.work, (turns - 1) * TURN + max(TURN, work_of(flow.first.job))) for flow in others)

    def _count(self, flow: _Flow[SeatT], job: Job, sign: int) -> None:
        """Count a job that comes (1) or goes (-1)."""
        flow.work += sign * work_of(job)
        self.tokens += sign * len(job.source_ids)
        self.hypotheses += sign * job.hypotheses
        self.work += sign * work_of(job)


def work_of(job: Job) -> int:
    """Return what a job costs a flow."""
    return len(job.source_ids) * job.hypotheses
