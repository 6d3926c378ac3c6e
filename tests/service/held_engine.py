"""The real engine with a brake and a fault: what the tests of scheduling, watching and failing have in common."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bundle.search import EncodedBatch, SearchOptions, StepOutput
from service.admission import Limits
from service.batch import Decoded, Job
from service.engine import Engine
from service.metrics import Metrics
from service.scheduler import Scheduler

EOS = 3


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

    def encode(self, sources: Sequence[Sequence[int]]) -> Any:
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


def job(seed: int, *, beam_size: int = 4, trace: bool = False, prefix: tuple[int, ...] = ()) -> Job:
    """A source that the model will not end too early, the same for the same seed."""
    generator = random.Random(seed)
    source = [generator.randrange(4, 120) for _ in range(generator.randrange(1, 40))]
    options = SearchOptions(generator.randrange(4, 24), beam_size, beam_size, forced_prefix=prefix)
    return Job((*source, EOS), options, trace)


def assert_same(one: Decoded, other: Decoded) -> None:
    """Bit by bit; the batch they shared is not part of the answer."""
    assert one.hypotheses == other.hypotheses
    assert len(one.traces) == len(other.traces)
    for trace, twin in zip(one.traces, other.traces, strict=True):
        for name in ("attention_scores", "attention_weights", "attention_queries"):
            np.testing.assert_array_equal(getattr(trace, name), getattr(twin, name))


@asynccontextmanager
async def scheduling(engine: Engine, metrics: Metrics, limits: Limits | None = None) -> AsyncIterator[Scheduler]:
    """Yield a scheduler, with limits as the service has them; whatever is held is let go before it closes."""
    scheduler = Scheduler(engine, limits or Limits(), metrics)
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
