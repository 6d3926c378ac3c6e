"""Continuous batching: a bounded queue, running batches that sentences join and leave between steps, one worker thread.

The event loop only queues, wakes and answers. The worker thread owns the engine and every running batch; it stops when
there is nothing to do and is woken by the next sentence. A caller that goes away, or whose deadline passes, is answered
at once by the loop; the worker frees the seat before its next step.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import structlog

from bundle.sessions import padded
from service.batch import Decoded, Job, Kind, RunningBatch, Seat
from service.engine import Engine
from service.errors import DeadlinePassed, Draining, EngineUnready, QueueFull, ServiceError
from service.metrics import Metrics

AnswerT = TypeVar("AnswerT")

_FIRST_GUESS_SECONDS = 0.05  # a sentence, until some have been timed
_SMOOTHING = 0.1
_RETRY_SECONDS = (0.1, 30.0)


@dataclass(frozen=True)
class Limits:
    """What the scheduler takes on.

    Attributes:
        queue_capacity: Sentences that may wait; those that follow another of the same call may exceed it.
        batch_hypotheses: Hypotheses decoded at once, over all batches; at least the largest beam size.
        encode_tokens: Source tokens of one encoder call, padding included; a longer single sentence is encoded alone.
    """

    queue_capacity: int = 512
    batch_hypotheses: int = 128
    encode_tokens: int = 2048


@dataclass(frozen=True)
class Outcome:
    """What became of a job, and when.

    Attributes:
        decoded: Hypotheses and their attention.
        queue_seconds: From being accepted to the encoder's call.
        encode_seconds: The encoder's call, with all that arrived together.
        decode_seconds: From then to the last step, with all that shared its batch.
    """

    decoded: Decoded
    queue_seconds: float
    encode_seconds: float
    decode_seconds: float


@dataclass(eq=False, repr=False, kw_only=True)
class _Ticket(Seat):
    """A seat, and the caller who waits for it; times are those of ``time.perf_counter``.

    Neither has a ``repr`` of its contents: asyncio logs those of a callback's arguments, and no log may hold a text.
    """

    answer: "asyncio.Future[Outcome]"
    accepted: float = field(default_factory=time.perf_counter)
    encoding: float = 0.0
    encoded: float = 0.0
    outcome: Outcome | ServiceError | None = None

    def settle(self) -> None:
        """Answer the caller with ``outcome``, unless he has gone; the loop's own, as futures are."""
        if self.answer.done():
            return
        if isinstance(self.outcome, Outcome):
            self.answer.set_result(self.outcome)
        elif self.outcome is not None:
            self.answer.set_exception(self.outcome)


class Scheduler:
    """Decodes sentences of many callers together; its methods belong to one event loop."""

    def __init__(self, engine: Engine, limits: Limits, metrics: Metrics) -> None:
        self._engine = engine
        self._limits = limits
        self._metrics = metrics
        self._model = engine.manifest.qualified_name
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="interlinear-engine")
        self._lock = threading.Lock()  # guards the queue; held for a few instructions only
        self._queue: deque[_Ticket] = deque()
        self._batches: dict[Kind, RunningBatch[_Ticket]] = {}  # the worker's own
        self._open: set[_Ticket] = set()
        self._worker: asyncio.Future[None] | None = None
        self._closed = False
        self._seconds_a_sentence = _FIRST_GUESS_SECONDS
        metrics.batches.queue_capacity.labels(self._model).set(limits.queue_capacity)
        metrics.batches.queue_depth.labels(self._model).set_function(lambda: len(self._queue))
        # Looked up once: together they would cost as much as a small search step.
        self._encoder_calls = metrics.batches.executions.labels(self._model, "encoder")
        self._step_calls = metrics.batches.executions.labels(self._model, "decoder_step")
        self._batch_size = metrics.batches.size.labels(self._model)
        self._padding = metrics.batches.padding.labels(self._model)
        self._running = metrics.batches.running.labels(self._model)
        self._step_seconds = metrics.stages.step_seconds.labels(self._model)
        self._outside_seconds = metrics.stages.step_overhead.labels(self._model)

    @property
    def takes_change(self) -> bool:
        """Whether jobs may interfere with attention."""
        return self._engine.takes_given_attention

    async def submit(self, job: Job, deadline: float | None = None) -> Outcome:
        """Return what became of ``job``.

        Args:
            job: One sentence.
            deadline: Time of the loop's clock at which the answer is no longer wanted.

        Raises:
            QueueFull: As many sentences wait as may, and the job follows none; raised before anything is done.
            Draining: ``close`` was called.
            DeadlinePassed: The deadline came first; the sentence leaves its batch before the next step.
            EngineUnready: ONNX Runtime failed.
        """
        loop = asyncio.get_running_loop()
        if deadline is not None and deadline <= loop.time():
            self._metrics.batches.deadline_drops.labels(self._model, "queue").inc()
            raise DeadlinePassed("the deadline had passed when the sentence arrived; nothing was done")
        ticket = self._admit(job, loop)
        try:
            async with asyncio.timeout_at(deadline):
                return await ticket.answer
        except TimeoutError:
            self._abandon(ticket, "deadline")
            raise DeadlinePassed(
                f"the deadline passed after {ticket.steps} decoding steps; they were stopped"
            ) from None
        except asyncio.CancelledError:
            self._abandon(ticket, "cancelled")
            raise

    async def close(self) -> None:
        """Give up what is not finished, its callers getting ``Draining``, and stop the worker thread."""
        self._closed = True
        with self._lock:
            self._queue.clear()
        for ticket in tuple(self._open):
            ticket.abandoned = True
            ticket.outcome = Draining("the service stopped before this sentence was finished; ask another replica")
            ticket.settle()
        while self._worker is not None:
            await asyncio.wait([self._worker])
        self._executor.shutdown()

    def _admit(self, job: Job, loop: asyncio.AbstractEventLoop) -> _Ticket:
        if self._closed:
            raise Draining("the service is shutting down and takes nothing new; ask another replica")
        ticket = _Ticket(job, answer=loop.create_future())
        with self._lock:
            waiting = len(self._queue)
            taken = job.follows or waiting < self._limits.queue_capacity
            if taken:
                self._queue.append(ticket)
        if not taken:
            self._metrics.batches.rejections.labels(self._model, "queue_full").inc()
            seconds = min(max(waiting * self._seconds_a_sentence, _RETRY_SECONDS[0]), _RETRY_SECONDS[1])
            raise QueueFull(f"{waiting} sentences wait already, as many as may; try again in {seconds:.1f} s", seconds)
        self._open.add(ticket)
        ticket.answer.add_done_callback(lambda _: self._open.discard(ticket))
        self._wake(loop)
        return ticket

    def _abandon(self, ticket: _Ticket, reason: str) -> None:
        ticket.abandoned = True
        with self._lock:
            waiting = ticket in self._queue
            if waiting:
                self._queue.remove(ticket)
        batches = self._metrics.batches
        dropped = batches.deadline_drops if reason == "deadline" else batches.cancellations
        dropped.labels(self._model, "queue" if waiting else "decode").inc()
        self._metrics.requests.finish_reasons.labels(self._model, reason).inc()
        batches.steps_saved.labels(self._model).inc(ticket.job.most_steps - ticket.steps)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        def rest(_: "asyncio.Future[None]") -> None:
            self._worker = None
            if self._queue:  # it arrived after the worker had looked for the last time
                self._wake(loop)

        if self._worker is None:
            self._worker = loop.run_in_executor(self._executor, self._work)
            self._worker.add_done_callback(rest)

    # From here on: the worker thread.

    def _work(self) -> None:
        """Make steps until there is nothing left to do."""
        last = time.perf_counter()
        while self._queue or self._batches:
            arrivals = self._arrivals()
            try:
                self._encode(arrivals)
                finished = self._step()
            except Exception as error:  # whatever it is, nobody must wait for ever
                finished = self._fail(arrivals, error)
            if finished:  # all in one call: each wakes the loop, which then takes the interpreter from this thread
                now = time.perf_counter()
                finished[0].answer.get_loop().call_soon_threadsafe(_settle, finished)
                self._seconds_a_sentence += _SMOOTHING * ((now - last) / len(finished) - self._seconds_a_sentence)
                last = now

    def _arrivals(self) -> list[_Ticket]:
        """Return the first of the queue: as many as there is room for, and as one encoder call should take."""
        if not self._queue:
            return []
        room = self._limits.batch_hypotheses - sum(ticket.job.hypotheses for ticket in self._seated())
        arrivals: list[_Ticket] = []
        longest = 0
        with self._lock:
            while self._queue:
                ticket = self._queue[0]
                longest = max(longest, padded(len(ticket.job.source_ids)))
                too_much = arrivals and longest * (len(arrivals) + 1) > self._limits.encode_tokens
                if ticket.job.hypotheses > room or too_much:
                    break
                arrivals.append(self._queue.popleft())
                room -= ticket.job.hypotheses
        return arrivals

    def _encode(self, arrivals: list[_Ticket]) -> None:
        """Encode ``arrivals`` together and let each join the batch of its kind."""
        if not arrivals:
            return
        began = time.perf_counter()
        encoded = self._engine.encode([ticket.job.source_ids for ticket in arrivals])
        ended = time.perf_counter()
        self._encoder_calls.inc()
        kinds: dict[Kind, list[int]] = {}
        for row, ticket in enumerate(arrivals):
            ticket.encoding, ticket.encoded = began, ended
            kinds.setdefault(ticket.job.kind, []).append(row)
        for kind, rows in kinds.items():
            batch = self._batches.setdefault(kind, RunningBatch(self._engine))
            batch.join([arrivals[row] for row in rows], encoded.keep(np.array(rows)))

    def _step(self) -> list[_Ticket]:
        """Make one step of every batch and return those it finished."""
        answered: list[_Ticket] = []
        running = 0
        for kind, batch in list(self._batches.items()):
            began, in_runtime = time.perf_counter(), self._engine.runtime_seconds
            finished = batch.step()
            if not batch.size:
                del self._batches[kind]
                continue
            seconds = time.perf_counter() - began
            self._step_seconds.observe(seconds)
            self._outside_seconds.inc(seconds - (self._engine.runtime_seconds - in_runtime))
            self._step_calls.inc()
            self._batch_size.observe(batch.size)
            self._padding.observe(batch.padding_ratio)
            answered += finished
            running += batch.size - len(finished)
        self._running.set(running)
        for ticket in answered:
            assert ticket.decoded is not None
            ticket.outcome = Outcome(
                ticket.decoded,
                queue_seconds=ticket.encoding - ticket.accepted,
                encode_seconds=ticket.encoded - ticket.encoding,
                decode_seconds=time.perf_counter() - ticket.encoded,
            )
        return answered

    def _fail(self, arrivals: list[_Ticket], error: Exception) -> list[_Ticket]:
        """Return everyone who had a seat, or was about to get one, with ``error`` for an outcome."""
        structlog.get_logger().error("the engine failed", model=self._model, exc_info=error)
        failure = EngineUnready("the model could not be run; the log of the service says why")
        failure.__cause__ = error
        failed = list({*self._seated(), *arrivals})
        for ticket in failed:
            ticket.abandoned, ticket.outcome = True, failure
        self._batches.clear()
        return failed

    def _seated(self) -> list[_Ticket]:
        return [ticket for batch in self._batches.values() for ticket in batch.seats]


async def together(answers: Iterable[Coroutine[Any, Any, AnswerT]]) -> list[AnswerT]:
    """Return all ``answers`` to one call; where one fails, the others are cancelled and its error alone is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer) for answer in answers]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _settle(tickets: list[_Ticket]) -> None:
    for ticket in tickets:
        ticket.settle()
