"""What decodes with one engine: a queue, and lanes that take from it; it can be given up while one of them hangs.

It shares nothing with the worker that comes after it: queue, lanes, batches and engine are its own, so a thread that
wakes up when it has long been given up finds nothing to spoil.
"""

import asyncio
import threading
import time
from collections.abc import Callable

from service.admission import Limits, Queue
from service.engine import Engine
from service.lane import THREAD_NAME, Lane, Tally, Ticket
from service.metrics import Metrics


class Worker:
    """Lanes at work from the moment it is made; its methods belong to the event loop.

    Attributes:
        engine: What they run.
        queue: Where they take sentences from.
    """

    def __init__(
        self, engine: Engine, limits: Limits, metrics: Metrics, deliver: Callable[[list[Ticket]], None]
    ) -> None:
        """Start.

        Args:
            engine: What to run.
            limits: How many lanes, how much to run at once, and how much may wait.
            metrics: Where steps and batches are counted.
            deliver: Called on a lane's thread with tickets that have ended, finished or failed.
        """
        self.engine = engine
        self.queue: Queue[Ticket] = Queue(limits)
        self._tally = Tally(engine.manifest.qualified_name, metrics)
        self._lanes = [Lane(engine, self.queue, load, self._tally, deliver) for load in self.queue.lanes]

    @property
    def turns(self) -> list[int | None]:
        """Of each lane the number of the engine's call that it is at; None where it rests."""
        return [lane.turn for lane in self._lanes]

    @property
    def running(self) -> int:
        """Sentences in the lanes' batches."""
        return sum(lane.running for lane in self._lanes)

    @property
    def failures_in_a_row(self) -> int:
        """Calls of a graph that failed since one last succeeded; of the graph that fails more."""
        return self._tally.failures_in_a_row

    def stop(self) -> None:
        """Begin nothing more, and hand over nothing more."""
        self.queue.close()

    def give_up(self) -> None:
        """Stop, and do not wait for the calls that the engine is at: they are asked to end, and may or may not."""
        self.stop()
        self.engine.terminate()

    async def ended(self, seconds: float) -> bool:
        """Return whether all lanes end within ``seconds``."""
        await asyncio.to_thread(self._join, seconds)
        return not any(lane.thread.is_alive() for lane in self._lanes)

    def _join(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for lane in self._lanes:
            lane.thread.join(max(0.0, end - time.monotonic()))


def left_behind() -> bool:
    """Return whether some lane's thread is still running, when all have been stopped.

    Then the process has to end by ``os._exit``: ONNX Runtime would abort it, with an exit code of its own, when its
    library is taken down under a call that goes on.
    """
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())
