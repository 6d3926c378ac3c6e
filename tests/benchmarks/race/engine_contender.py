"""Our engine takes turns, called as the service calls it: BUNDLE THREADS."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from bundle.search import SearchOptions
from service.admission import Limits
from service.batch import Job
from service.engine import Engine
from service.metrics import Metrics
from service.scheduler import Scheduler, together
from service.threads import division
from tests.benchmarks.race.contender import compete, confine, peak_mib, require_exact
from tests.benchmarks.race.work import BATCHES, TARGET_TOKENS, Taken, Turn, sentences


class EngineContender:
    """A scheduler with the service's own limits, and the sentences it is given; belongs to one event loop."""

    def __init__(self, bundle: Path, threads: int) -> None:
        metrics = Metrics.on(CollectorRegistry())
        lanes, threads_per_call = division(threads)
        engine = Engine(bundle, "cpu", threads_per_call, metrics)
        special, vocabulary = engine.manifest.special_ids, engine.manifest.sizes["vocabulary"]
        self._eos = special.eos
        first_id = max(special.pad, special.unk, special.bos, special.eos) + 1
        self._sources = [(*ids, special.eos) for ids in sentences(max(BATCHES), first_id, vocabulary)]
        self._scheduler = Scheduler(engine, Limits(lanes=lanes), metrics)

    async def translate(self, turn: Turn) -> list[int]:
        """Translate one batch, all of it submitted at once; return the length of each target."""
        options = SearchOptions(TARGET_TOKENS, turn.beam_size, banned_token_ids=(self._eos,))
        jobs = [
            Job(source, options, trace=turn.alignment, follows=row > 0)
            for row, source in enumerate(self._sources[: turn.batch])
        ]
        outcomes = await together(self._scheduler.submit(job) for job in jobs)
        if turn.alignment:
            assert all(len(outcome.decoded.traces) == 1 for outcome in outcomes)
        return [len(outcome.decoded.hypotheses[0].token_ids) for outcome in outcomes]

    async def take(self, turn: Turn) -> Taken:
        """Translate one batch after another."""
        latencies: list[float] = []
        while sum(latencies) < turn.seconds or not latencies:
            began = time.perf_counter()
            lengths = await self.translate(turn)
            latencies.append(time.perf_counter() - began)
            require_exact(lengths, turn.batch)
        return Taken(len(latencies) * turn.batch * TARGET_TOKENS, sum(latencies), latencies, peak_mib())

    async def close(self) -> None:
        """Stop the scheduler."""
        await self._scheduler.close()


def main() -> None:
    """Take turns on one event loop."""
    with asyncio.Runner() as runner:
        contender: list[EngineContender] = []

        async def started() -> EngineContender:
            return EngineContender(Path(sys.argv[1]), int(sys.argv[2]))

        def prepared() -> Callable[[Turn], Taken]:
            confine(int(sys.argv[2]))
            contender.append(runner.run(started()))
            return lambda turn: runner.run(contender[0].take(turn))

        try:
            compete(prepared)
        finally:
            for one in contender:
                runner.run(one.close())


if __name__ == "__main__":
    main()
