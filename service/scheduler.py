"""Continuous batching: a bounded queue, lanes whose running batches sentences join and leave between steps.

The event loop only queues, wakes and answers. Lanes are threads that share the queue and the engine, each with batches
of its own; one rests when there is nothing to do and is woken by the next sentence. A caller that goes away, or whose
deadline passes, is answered at once by the loop; the lane frees the seat before its next step. A watchdog replaces a
worker, which is all of that, when a lane does not work.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from service.admission import Limits, calling
from service.batch import Decoded, Job
from service.engine import Engine
from service.errors import DeadlinePassed, Draining, EngineUnready, ServiceError
from service.lane import Ticket
from service.metrics import Metrics
from service.watchdog import Health, Watchdog
from service.worker import Worker

AnswerT = TypeVar("AnswerT")

_UNREADY = {
    "rebuilding": "the engine did not answer any more and is being loaded anew; try again in a moment",
    "failed": "the engine did not answer any more and could not be replaced; this process is about to end",
}


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


class Scheduler:
    """Decodes sentences of many callers together; its methods belong to one event loop."""

    def __init__(self, engine: Engine, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._model = engine.manifest.qualified_name
        self._open: set[Ticket] = set()
        self._closed = False
        self._watchdog = Watchdog(engine, self._hired, limits.watchdog_seconds, metrics)
        self._watchdog.observe(self._tell)
        batches = metrics.batches
        batches.queue_capacity.labels(self._model).set(limits.queue_capacity)
        batches.queue_depth.labels(self._model).set_function(lambda: len(self._watchdog.worker.queue))
        batches.queue_tokens.labels(self._model).set_function(lambda: self._watchdog.worker.queue.tokens)
        batches.running.labels(self._model).set_function(lambda: self._watchdog.worker.running)

    @property
    def takes_change(self) -> bool:
        """Whether jobs may interfere with attention."""
        return self._watchdog.worker.engine.takes_given_attention

    @property
    def health(self) -> Health:
        """Whether jobs are taken; ``rebuilding`` passes, after ``failed`` the process should end."""
        return self._watchdog.health

    def observe(self, observer: Callable[[Health], None]) -> None:
        """Call ``observer`` with the new ``health`` whenever it changes, after all who wait have been answered."""
        self._watchdog.observe(observer)

    async def submit(self, job: Job, deadline: float | None = None) -> Outcome:
        """Return what became of ``job``; those of one call (``admission.calling``) are taken in order.

        Args:
            job: One sentence.
            deadline: Time of the loop's clock at which the answer is no longer wanted.

        Raises:
            QueueFull: As many sentences, or tokens, wait as may, and the job follows none; raised before anything is
                done, as are the next two.
            DeadlineTooShort: Those who wait already will take longer.
            Draining: ``close`` was called.
            DeadlinePassed: The deadline came first; the sentence leaves its batch before the next step.
            EngineUnready: ONNX Runtime failed, or hangs.
        """
        loop = asyncio.get_running_loop()
        if deadline is not None and deadline <= loop.time():
            self._metrics.batches.deadline_drops.labels(self._model, "queue").inc()
            raise DeadlinePassed("the deadline had passed when the sentence arrived; nothing was done")
        ticket = self._admit(job, loop, None if deadline is None else deadline - loop.time())
        try:
            async with asyncio.timeout_at(deadline):
                await ticket.answer
        except TimeoutError:
            self._abandon(ticket, "deadline")
            raise DeadlinePassed(
                f"the deadline passed after {ticket.steps} decoding steps; they were stopped"
            ) from None
        except asyncio.CancelledError:
            self._abandon(ticket, "cancelled")
            raise
        assert ticket.decoded is not None
        return Outcome(
            ticket.decoded,
            queue_seconds=ticket.encoding - ticket.accepted,
            encode_seconds=ticket.encoded - ticket.encoding,
            decode_seconds=ticket.finished - ticket.encoded,
        )

    async def close(self) -> None:
        """Give up what is not finished, its callers getting ``Draining``, and stop the lanes."""
        self._closed = True
        self._fail_all("the service stopped before this sentence was finished; ask another replica", Draining)
        await self._watchdog.close()

    def _admit(self, job: Job, loop: asyncio.AbstractEventLoop, seconds_left: float | None) -> Ticket:
        if self._closed:
            raise Draining("the service is shutting down and takes nothing new; ask another replica")
        if self.health != "serving":
            raise EngineUnready(_UNREADY[self.health])
        ticket = Ticket(job, answer=loop.create_future())
        if refusal := self._watchdog.worker.queue.admit(ticket, seconds_left, calling.get()):
            self._metrics.batches.rejections.labels(self._model, refusal.reason).inc()
            raise refusal.error
        self._open.add(ticket)
        ticket.answer.add_done_callback(lambda _: self._open.discard(ticket))
        self._watchdog.watch()
        return ticket

    def _abandon(self, ticket: Ticket, reason: str) -> None:
        ticket.abandoned = True
        waiting = self._watchdog.worker.queue.remove(ticket)
        batches = self._metrics.batches
        dropped = batches.deadline_drops if reason == "deadline" else batches.cancellations
        dropped.labels(self._model, "queue" if waiting else "decode").inc()
        self._metrics.requests.finish_reasons.labels(self._model, reason).inc()
        batches.steps_saved.labels(self._model).inc(ticket.job.most_steps - ticket.steps)

    def _fail_all(self, message: str, error: type[ServiceError]) -> None:
        for ticket in tuple(self._open):
            ticket.abandoned = True
            if not ticket.answer.done():
                ticket.answer.set_exception(error(message))

    def _tell(self, health: Health) -> None:
        if health != "serving":
            self._fail_all(_UNREADY[health], EngineUnready)

    def _hired(self, engine: Engine) -> Worker:
        def deliver(tickets: list[Ticket]) -> None:  # on a lane's thread
            tickets[0].answer.get_loop().call_soon_threadsafe(self._settle, tickets)

        return Worker(engine, self._limits, self._metrics, deliver)

    def _settle(self, tickets: list[Ticket]) -> None:
        """Answer the callers of ``tickets``, but for those who have gone."""
        for ticket in tickets:
            if ticket.answer.done():
                continue
            if ticket.failure is not None:
                ticket.answer.set_exception(ticket.failure)
            else:
                ticket.answer.set_result(None)
        self._watchdog.count_failures()


async def together(answers: Iterable[Coroutine[Any, Any, AnswerT]]) -> list[AnswerT]:
    """Return all ``answers`` to one call; where one fails, the others are cancelled and its error alone is raised."""
    waiting = list(answers)
    if len(waiting) == 1:  # as mostly, and a task is saved
        return [await waiting[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer) for answer in waiting]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
