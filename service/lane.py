"""A thread that decodes: it takes sentences from the queue, encodes them, and makes a step of each of its batches.

It hands over those that have ended. Lanes share a queue and an engine, and nothing else: no lane waits for another. A
lane is a daemon, so one that hangs for ever does not keep the process.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog

from bundle.sessions import padded
from service.admission import Load, Queue
from service.batch import Kind, RunningBatch, Seat
from service.engine import Engine
from service.errors import EngineUnready
from service.flows import SeatT
from service.metrics import Metrics

THREAD_NAME = "interlinear-engine"

_MOST_AHEAD_SECONDS = 0.02  # so that one slow call of the encoder keeps nobody out for long
_WEIGHTS_ROWS = 2  # rows of an encoder call that take as long as reading its weights once more


@dataclass(eq=False, repr=False, kw_only=True)
class Ticket(Seat):
    """A seat, and the caller who waits for it; times are those of ``time.perf_counter``.

    Neither has a ``repr`` of its contents: asyncio logs those of a callback's arguments, and no log may hold a text.

    Attributes:
        answer: Done when there is something to be had; the loop's own, as futures are.
        accepted: When it came.
        encoding: When the encoder's call began.
        encoded: When that ended.
        finished: When the last step ended.
        failure: What went wrong instead.
    """

    answer: "asyncio.Future[None]"
    accepted: float = field(default_factory=time.perf_counter)
    encoding: float = 0.0
    encoded: float = 0.0
    finished: float = 0.0
    failure: EngineUnready | None = None


class Tally:
    """What is counted of an engine's calls, those of all lanes together; any thread may call it."""

    def __init__(self, model: str, metrics: Metrics) -> None:
        self.model = model
        self._lock = threading.Lock()
        self._failures = {"encoder": 0, "decoder_step": 0}
        # Looked up once: together they would cost as much as a small search step.
        self._encoder_calls = metrics.batches.executions.labels(model, "encoder")
        self._step_calls = metrics.batches.executions.labels(model, "decoder_step")
        self._batch_size = metrics.batches.size.labels(model)
        self._padding = metrics.batches.padding.labels(model)
        self._step_seconds = metrics.stages.step_seconds.labels(model)
        self._outside_seconds = metrics.stages.step_overhead.labels(model)

    @property
    def failures_in_a_row(self) -> int:
        """Calls of a graph that failed since one last succeeded; of the graph that fails more."""
        return max(self._failures.values())

    def encoded(self) -> None:
        """Count an encoder call."""
        self._failures["encoder"] = 0
        self._encoder_calls.inc()

    def stepped(self, batch: RunningBatch[Ticket], seconds: float, outside_seconds: float) -> None:
        """Count a step of ``batch``, and how much of its time was spent outside of the runtime."""
        self._failures["decoder_step"] = 0
        self._step_seconds.observe(seconds)
        self._outside_seconds.inc(outside_seconds)
        self._step_calls.inc()
        self._batch_size.observe(batch.size)
        self._padding.observe(batch.padding_ratio)

    def failed(self, graph: str, error: Exception) -> None:
        """Count a call of ``graph`` that failed, and tell the log why."""
        structlog.get_logger().error("the engine failed", model=self.model, graph=graph, exc_info=error)
        with self._lock:
            self._failures[graph] += 1


class Lane:
    """A lane at work from the moment it is made, until its queue is closed.

    Whatever it learns after that is thrown away, so that is looked at after each call of the engine.

    Attributes:
        thread: Its thread.
        running: Sentences in its batches.
    """

    def __init__(
        self, engine: Engine, queue: Queue[Ticket], load: Load, tally: Tally, deliver: Callable[[list[Ticket]], None]
    ) -> None:
        """Start.

        Args:
            engine: What to run; it may be called by several lanes at once.
            queue: Where to take sentences from.
            load: That of the queue's lanes which this is.
            tally: Where calls are counted.
            deliver: Called on the thread with tickets that have ended, finished or failed.
        """
        self.running = 0
        self._engine = engine
        self._queue = queue
        self._load = load
        self._tally = tally
        self._deliver = deliver
        self._turn = 0
        self._batches: dict[Kind, RunningBatch[Ticket]] = {}
        self._hypotheses = 0  # in the last step of all batches
        self._encoder_ahead = 0.0  # seconds by which the encoder has had more than the steps since
        self.thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
        self.thread.start()

    @property
    def turn(self) -> int | None:
        """The number of the engine's call that it is at, with the search that belongs to it; None while it rests."""
        return None if self._load.resting else self._turn

    def _work(self) -> None:
        while not self._queue.closed:
            waits = self._load.hypotheses and self._encoder_ahead > 0
            arrivals = [] if waits else self._queue.take(self._load)
            began = time.perf_counter()
            ended = self._encode(arrivals)
            if arrivals:
                self._encoder_ahead = min(time.perf_counter() - began, _MOST_AHEAD_SECONDS)
            ended += self._step()
            if self._queue and self._hypotheses:
                self._queue.pace.stepped(self._hypotheses, time.perf_counter() - began)
            if ended and not self._queue.closed:  # all in one call: each wakes the loop, which takes the interpreter
                self._deliver(ended)
        self._batches.clear()

    def _encode(self, arrivals: list[Ticket]) -> list[Ticket]:
        """Encode ``arrivals`` and let each join the batch of its kind; return those with which that failed."""
        failed: list[Ticket] = []
        for tickets in encoder_calls(arrivals, self._queue.encode_tokens):
            self._turn += 1
            began = time.perf_counter()
            try:
                encoded = self._engine.encode([ticket.job.source_ids for ticket in tickets])
                ended = time.perf_counter()
                kinds: dict[Kind, list[int]] = {}
                for row, ticket in enumerate(tickets):
                    ticket.encoding, ticket.encoded = began, ended
                    kinds.setdefault(ticket.job.kind, []).append(row)
                for kind, rows in kinds.items():
                    batch = self._batches.setdefault(kind, RunningBatch(self._engine))
                    batch.join([tickets[row] for row in rows], encoded.keep(np.array(rows)))
            except Exception as error:  # whatever it is, nobody must wait for ever
                failed += self._failed("encoder", tickets, error)
                continue
            if self._queue.closed:
                break
            self._tally.encoded()
        return failed

    def _step(self) -> list[Ticket]:
        """Make one step of every batch and return those it finished, or failed."""
        ended: list[Ticket] = []
        self._hypotheses = 0
        for kind, batch in list(self._batches.items()):
            if self._queue.closed:
                return []
            self._turn += 1
            began, in_runtime = time.perf_counter(), self._engine.runtime_seconds
            try:
                finished = batch.step()
            except Exception as error:  # as above; other batches go on
                ended += self._failed("decoder_step", batch.taken, error)
                self._batches.pop(kind).close()
                continue
            if self._queue.closed:
                return []
            if not batch.size:
                self._batches.pop(kind).close()
                continue
            now = time.perf_counter()
            self._encoder_ahead -= now - began
            self._tally.stepped(batch, now - began, now - began - (self._engine.runtime_seconds - in_runtime))
            for ticket in finished:
                ticket.finished = now
                self._queue.pace.finished(ticket.job, ticket.steps)
            ended += finished
            self._hypotheses += batch.size * kind.beam_size
        self._count()
        return ended

    def _count(self) -> None:
        """Tell the queue what is left to decode, and drop the batches where nobody is."""
        seated = [(kind, batch.seats) for kind, batch in self._batches.items()]
        for kind, seats in seated:
            if not seats:
                self._batches.pop(kind).close()
        self._load.count(seated)
        self.running = sum(len(seats) for _, seats in seated)

    def _failed(self, graph: str, tickets: Sequence[Ticket], error: Exception) -> list[Ticket]:
        """Return those whom a failing call concerns, with a failure each."""
        if self._queue.closed:
            return []
        self._tally.failed(graph, error)
        for ticket in tickets:
            ticket.abandoned = True
            ticket.failure = EngineUnready("the model could not be run; the log of the service says why")
            ticket.failure.__cause__ = error
        return list(tickets)


def encoder_calls(seats: Sequence[SeatT], most_tokens: int) -> list[list[SeatT]]:
    """Return ``seats`` in the calls of the encoder that take least: padding costs what tokens do, and so does a call.

    Those of like length share one, where it does not take more than ``most_tokens``, padding included.
    """
    calls: list[list[SeatT]] = []
    longest = 0  # of the last call
    for seat in sorted(seats, key=lambda seat: padded(len(seat.job.source_ids))):
        length = padded(len(seat.job.source_ids))
        shares = (
            calls
            and len(calls[-1]) * (length - longest) <= _WEIGHTS_ROWS * longest
            and (len(calls[-1]) + 1) * length <= most_tokens
        )
        if shares:
            calls[-1].append(seat)
        else:
            calls.append([seat])
        longest = length
    return calls
