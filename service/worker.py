"""The thread that owns an engine and the batches running on it; it can be given up while it hangs.

It takes sentences from its queue, encodes them, makes a step of every batch, and hands over those that have ended. It
shares nothing with the worker that comes after it: queue, batches and engine are its own, so a thread that wakes up
when it has long been given up finds nothing to spoil. It is a daemon, so one that hangs for ever does not keep the
process.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog

from service.admission import Limits, Queue
from service.batch import Kind, RunningBatch, Seat
from service.engine import Engine
from service.errors import EngineUnready
from service.metrics import Metrics

_THREAD_NAME = "interlinear-engine"


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


class Worker:
    """A thread at work from the moment it is made; its methods belong to the event loop.

    Attributes:
        engine: What it runs.
        queue: Where it takes its sentences from.
        turn: The engine's calls it has begun, with the search that belongs to each; while it is at one, that one's
            number.
        running: Sentences in its batches.
    """

    def __init__(
        self, engine: Engine, limits: Limits, metrics: Metrics, deliver: Callable[[list[Ticket]], None]
    ) -> None:
        """Start.

        Args:
            engine: What to run.
            limits: How much to run at once, and how much may wait.
            metrics: Where steps and batches are counted.
            deliver: Called on the thread with tickets that have ended, finished or failed.
        """
        self.engine = engine
        self.queue: Queue[Ticket] = Queue(limits)
        self.turn = 0
        self.running = 0
        self._room = limits.batch_hypotheses
        self._deliver = deliver
        self._batches: dict[Kind, RunningBatch[Ticket]] = {}
        self._failures = {"encoder": 0, "decoder_step": 0}
        self._hypotheses = 0  # in the last step of all batches
        self._stopped = False
        # Looked up once: together they would cost as much as a small search step.
        model = self._model = engine.manifest.qualified_name
        self._encoder_calls = metrics.batches.executions.labels(model, "encoder")
        self._step_calls = metrics.batches.executions.labels(model, "decoder_step")
        self._batch_size = metrics.batches.size.labels(model)
        self._padding = metrics.batches.padding.labels(model)
        self._step_seconds = metrics.stages.step_seconds.labels(model)
        self._outside_seconds = metrics.stages.step_overhead.labels(model)
        self._thread = threading.Thread(target=self._work, name=_THREAD_NAME, daemon=True)
        self._thread.start()

    @property
    def failures_in_a_row(self) -> int:
        """Calls of a graph that failed since one last succeeded; of the graph that fails more."""
        return max(self._failures.values())

    def stop(self) -> None:
        """Begin nothing more, and hand over nothing more."""
        self._stopped = True
        self.queue.close()

    def give_up(self) -> None:
        """Stop, and do not wait for the call that the engine is at: it is asked to end, and may or may not."""
        self.stop()
        self.engine.terminate()

    async def ended(self, seconds: float) -> bool:
        """Return whether the thread ends within ``seconds``."""
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    # From here on: the thread. Whatever it learns after ``stop`` is thrown away, so that is looked at after each call.

    def _work(self) -> None:
        while not self._stopped:
            if not self._batches:
                self.queue.wait()
            began = time.perf_counter()
            ended = self._encode(self._arrivals())
            ended += self._step()
            if self.queue and self._hypotheses:
                self.queue.pace.stepped(self._hypotheses, time.perf_counter() - began)
            if ended and not self._stopped:  # all in one call: each wakes the loop, which then takes the interpreter
                self._deliver(ended)
        self._batches.clear()

    def _arrivals(self) -> list[Ticket]:
        if not self.queue:
            return []
        return self.queue.take(self._room - sum(ticket.job.hypotheses for ticket in self._seated()))

    def _encode(self, arrivals: list[Ticket]) -> list[Ticket]:
        """Encode ``arrivals`` together and let each join the batch of its kind; return them if that failed."""
        if not arrivals:
            return []
        self.turn += 1
        began = time.perf_counter()
        try:
            encoded = self.engine.encode([ticket.job.source_ids for ticket in arrivals])
            ended = time.perf_counter()
            kinds: dict[Kind, list[int]] = {}
            for row, ticket in enumerate(arrivals):
                ticket.encoding, ticket.encoded = began, ended
                kinds.setdefault(ticket.job.kind, []).append(row)
            for kind, rows in kinds.items():
                batch = self._batches.setdefault(kind, RunningBatch(self.engine))
                batch.join([arrivals[row] for row in rows], encoded.keep(np.array(rows)))
        except Exception as error:  # whatever it is, nobody must wait for ever
            return self._failed("encoder", arrivals, error)
        self._failures["encoder"] = 0
        self._encoder_calls.inc()
        return []

    def _step(self) -> list[Ticket]:
        """Make one step of every batch and return those it finished, or failed."""
        ended: list[Ticket] = []
        running = self._hypotheses = 0
        for kind, batch in list(self._batches.items()):
            self.turn += 1
            began, in_runtime = time.perf_counter(), self.engine.runtime_seconds
            try:
                finished = batch.step()
            except Exception as error:  # as above; other batches go on
                ended += self._failed("decoder_step", batch.seats, error)
                del self._batches[kind]
                continue
            if self._stopped:
                return []
            if not batch.size:
                del self._batches[kind]
                continue
            now = time.perf_counter()
            self._failures["decoder_step"] = 0
            self._step_seconds.observe(now - began)
            self._outside_seconds.inc(now - began - (self.engine.runtime_seconds - in_runtime))
            self._step_calls.inc()
            self._batch_size.observe(batch.size)
            self._padding.observe(batch.padding_ratio)
            for ticket in finished:
                ticket.finished = now
                self.queue.pace.finished(ticket.job, ticket.steps)
            ended += finished
            running += batch.size - len(finished)
            self._hypotheses += batch.size * kind.beam_size
        self.running = running
        return ended

    def _failed(self, graph: str, tickets: Sequence[Ticket], error: Exception) -> list[Ticket]:
        """Return those whom a failing call concerns, with a failure each."""
        if self._stopped:
            return []
        structlog.get_logger().error("the engine failed", model=self._model, graph=graph, exc_info=error)
        self._failures[graph] += 1
        for ticket in tickets:
            ticket.abandoned = True
            ticket.failure = EngineUnready("the model could not be run; the log of the service says why")
            ticket.failure.__cause__ = error
        return list(tickets)

    def _seated(self) -> list[Ticket]:
        return [ticket for batch in self._batches.values() for ticket in batch.seats]


def left_behind() -> bool:
    """Return whether a thread of some worker is still running, when all have been stopped.

    Then the process has to end by ``os._exit``: ONNX Runtime would abort it, with an exit code of its own, when its
    library is taken down under a call that goes on.
    """
    return any(thread.name == _THREAD_NAME for thread in threading.enumerate())
