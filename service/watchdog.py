"""Keeps an engine that works: one that hangs or keeps failing is given up, and loaded anew beside what is left of it.

A hanging call of ONNX Runtime cannot be interrupted from outside, and a thread cannot be killed. So the worker is given
up with its lanes, its engine and its batches, though one lane alone may hang; another engine is made of the same
bundle, and other lanes.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Literal, TypeVar

import structlog

from service.engine import Engine
from service.metrics import Metrics
from service.worker import Worker

Health = Literal["serving", "rebuilding", "failed"]
Reason = Literal["stuck", "failing"]
ResultT = TypeVar("ResultT")

FAILURES_IN_A_ROW = 3
MOST_REBUILDS = 3
WITHIN_SECONDS = 300.0

_LOOKS = 8  # at the same turn of a lane, until that counts as stuck
_LOAD_SECONDS = 120.0  # to verify, load and try an engine; a disk or a driver may hang as well
_PAUSE_SECONDS = 1.0  # after an engine that could not be loaded
_LAST_STEP_SECONDS = 2.0
_TERMINATED_SECONDS = 0.5
_log = structlog.get_logger()


class Watchdog:
    """Watches over one worker after another; its methods belong to one event loop.

    Time is counted in looks at the worker rather than read from a clock, so a process that was stopped for a while, or
    a loop that was held up, takes nobody for stuck.

    Attributes:
        worker: The one at work, or while there is none, the last.
        health: ``rebuilding`` while there is none, ``failed`` when there will be none: the process should end, so that
            its supervisor starts another.
    """

    def __init__(
        self, engine: Engine, hire: Callable[[Engine], Worker], longest_seconds: float, metrics: Metrics
    ) -> None:
        """Start the first worker.

        Args:
            engine: Its engine.
            hire: Returns a worker for an engine.
            longest_seconds: How long one call of the engine may take.
            metrics: Where health and rebuilds are told.
        """
        self.worker = hire(engine)
        self.health: Health = "serving"
        self._hire = hire
        self._interval = longest_seconds / _LOOKS
        self._model = engine.manifest.qualified_name
        self._healthy = metrics.engine.healthy.labels(self._model)
        self._healthy.set(1)
        reasons: tuple[Reason, ...] = ("stuck", "failing")
        self._rebuilds = {reason: metrics.engine.rebuilds.labels(self._model, reason) for reason in reasons}
        self._observers: list[Callable[[Health], None]] = []
        self._next_look: asyncio.TimerHandle | None = None
        self._turns = self.worker.turns
        self._looks = [0] * len(self._turns)  # at each of them
        self._rebuilding: asyncio.Task[None] | None = None
        self._rebuilt_at: deque[float] = deque(maxlen=MOST_REBUILDS)

    def observe(self, observer: Callable[[Health], None]) -> None:
        """Call ``observer`` with the new health whenever it changes; those who came first are called first."""
        self._observers.append(observer)

    def watch(self) -> None:
        """Look at the worker from now on, until it has nothing to do; to be called for all that it is given."""
        if self._next_look is None:
            self._looks = [0] * len(self._turns)
            self._next_look = asyncio.get_running_loop().call_later(self._interval, self._look)

    def count_failures(self) -> None:
        """Give the worker up if it keeps failing; to be called for all that it hands over."""
        if self.health == "serving" and self.worker.failures_in_a_row >= FAILURES_IN_A_ROW:
            self._give_up("failing")

    async def close(self) -> None:
        """Stop the worker. A thread that hangs is left behind."""
        if self._next_look is not None:
            self._next_look.cancel()
        if self._rebuilding is not None:
            self._rebuilding.cancel()
            await asyncio.wait([self._rebuilding])
        self.worker.stop()
        if not await self.worker.ended(_LAST_STEP_SECONDS):
            self.worker.give_up()
            if not await self.worker.ended(_TERMINATED_SECONDS):
                _log.warning("a thread that hangs is left behind", model=self._model)

    def _look(self) -> None:
        self._next_look = None
        if self.health != "serving" or self.worker.queue.idle:
            return
        turns = self.worker.turns
        seen = zip(turns, self._turns, self._looks, strict=True)
        self._looks = [looks + 1 if now is not None and now == then else 0 for now, then, looks in seen]
        self._turns = turns
        if max(self._looks) == _LOOKS:
            self._give_up("stuck")
        else:
            self._next_look = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _give_up(self, reason: Reason) -> None:
        _log.error("the engine is given up", model=self._model, reason=reason)
        self.worker.give_up()
        self._set_health("rebuilding")
        self._rebuilding = asyncio.get_running_loop().create_task(self._rebuild(reason))

    async def _rebuild(self, reason: Reason) -> None:
        clock = asyncio.get_running_loop().time
        while len(self._rebuilt_at) < MOST_REBUILDS or clock() - self._rebuilt_at[0] > WITHIN_SECONDS:
            self._rebuilt_at.append(clock())
            self._rebuilds[reason].inc()
            try:
                async with asyncio.timeout(_LOAD_SECONDS):
                    engine = await _in_daemon_thread(self.worker.engine.reloaded)
            except Exception as error:  # whatever it is, there are a few more attempts, and then another process
                _log.error("the engine could not be loaded anew", model=self._model, exc_info=error)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self.worker = self._hire(engine)
                self._looks = [0] * len(self._turns)
                _log.info("the engine was loaded anew", model=self._model)
                self._set_health("serving")
                return
        _log.critical("no more engines are loaded", model=self._model, rebuilds=MOST_REBUILDS, within=WITHIN_SECONDS)
        self._set_health("failed")

    def _set_health(self, health: Health) -> None:
        self.health = health
        self._healthy.set(health == "serving")
        for observer in self._observers:
            observer(health)


async def _in_daemon_thread(call: Callable[[], ResultT]) -> ResultT:
    """Return what ``call`` returns; unlike one of ``asyncio.to_thread``, a hanging thread does not hold up the end."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[ResultT] = loop.create_future()

    def tell(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed while it hung
            loop.call_soon_threadsafe(lambda: None if result.done() else settle())

    def run() -> None:
        try:
            value = call()
        except Exception as error:
            failure = error  # ``error`` is gone when this block ends
            tell(lambda: result.set_exception(failure))
        else:
            tell(lambda: result.set_result(value))

    threading.Thread(target=run, name="interlinear-load", daemon=True).start()
    return await result
