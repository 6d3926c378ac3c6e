"""The real engine with a brake and a fault: what the tests of scheduling, watching and failing have in common."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bundle.search import EncodedBatch, StepOutput
from service.admission import Limits
from service.engine import Engine
from service.metrics import Metrics
from service.scheduler import Scheduler


class HeldEngine(Engine):
    """The real engine, which makes a call only while the gate is open, and fails when told to.

    What is loaded in its place is a plain engine.

    Attributes:
        faulty: The graph, ``encoder`` or ``decoder_step``, that all of this is about.
        gate: Closed, the next call waits for it.
        hold_at: Which call of that graph closes the gate and waits at it; 0 for none.
        failures: What the next calls raise, one each, for as long as there are any.
        rows: Sentences in each call.
        calls: Calls of both graphs that got through.
    """

    def __init__(self, folder: Path, metrics: Metrics, faulty: str = "decoder_step") -> None:
        self.faulty = ""  # not while it warms up
        self.gate = threading.Event()
        self.gate.set()
        self.hold_at = 0
        self.failures: Iterator[Exception] = iter(())
        self.rows: list[int] = []
        self.calls = 0
        self._reached = threading.Semaphore(0)
        super().__init__(folder, "cpu", 1, metrics)
        self.faulty = faulty
        self.calls = 0

    def encode(self, sources: Sequence[Sequence[int]]) -> EncodedBatch:
        self._pass("encoder", len(sources))
        return super().encode(sources)

    def step(self, encoded: EncodedBatch, *arguments: Any) -> StepOutput:
        self._pass("decoder_step", len(encoded.source_lengths))
        return super().step(encoded, *arguments)

    async def reached(self) -> None:
        """Return when a call has come to the gate."""
        await asyncio.to_thread(self._reached.acquire)

    def _pass(self, graph: str, rows: int) -> None:
        if graph == self.faulty:
            self.rows.append(rows)
            if len(self.rows) == self.hold_at:
                self.gate.clear()
            self._reached.release()
            assert self.gate.wait(timeout=60)
            for failure in self.failures:
                raise failure
        self.calls += 1


@asynccontextmanager
async def scheduling(engine: Engine, metrics: Metrics, limits: Limits) -> AsyncIterator[Scheduler]:
    """Yield a scheduler; whatever is held is let go before it closes."""
    scheduler = Scheduler(engine, limits, metrics)
    try:
        yield scheduler
    finally:
        if isinstance(engine, HeldEngine):
            engine.gate.set()
        await scheduler.close()


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return when ``condition`` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
