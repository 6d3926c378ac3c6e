"""A hundred thousand malformed requests over gRPC and HTTP, aware of their structure or mere bytes: nothing happens.

The bars: the process lives through it and answers a right request at any moment, every reply is one that docs/api.md
knows, nothing is answered INTERNAL or without ErrorInfo, nothing a user sent is in the log, and memory stays bounded.
Every case is made from the seed and its own number; ``--case`` sends one of them again and prints what comes back.
"""

import argparse
import asyncio
import contextlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from service.pb import interlinear_pb2 as pb
from tests.reliability import http1
from tests.reliability.cases import Bad, Fuzzer
from tests.reliability.load import WAIT, Caller, Target, channel
from tests.reliability.mutations import MARKER
from tests.reliability.process import SHIPPED_BUNDLE, Service, running
from tests.reliability.questions import Question
from tests.reliability.verdict import Bar, concluded, none

_CHANNELS = 4
_AT_ONCE = 24
_LAST_SECONDS = 5.0  # for what was under way when the last case was over, the probe among it
_PROBE_SECONDS = 0.25
_PROBE_PATIENCE_SECONDS = 10.0
_BOUND_BYTES = 512 << 20


@dataclass
class Fuzzed:
    """What happened so far.

    Attributes:
        cases: Number of cases by kind and what came of them.
        faults: What must not have happened, with the numbers of its cases; -1 for a probe.
        probes: Seconds that each right request took meanwhile.
        resident_bytes: Of the service, now and then.
    """

    cases: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: dict[str, list[int]] = field(default_factory=dict)
    probes: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)

    def blame(self, number: int, fault: str) -> None:
        """Note what must not have happened in that case."""
        self.faults.setdefault(fault, []).append(number)

    @property
    def malformed(self) -> int:
        """How many were refused: those that stayed valid do not count."""
        return sum(number for (_, came), number in self.cases.items() if came != "answered")


async def fuzz(service: Service, requests: int, seed: int) -> Fuzzed:
    """Send cases until so many were malformed; return what happened."""
    fuzzed, numbers = Fuzzed(), itertools.count()
    async with _fuzzer(service, seed) as fuzzer:
        watching = asyncio.create_task(_probe(service, fuzzed))

        async def keep_sending() -> None:
            for number in numbers:
                if fuzzed.malformed >= requests or not service.alive:
                    return
                try:
                    fuzzed.cases[await fuzzer.send(number)] += 1
                except Bad as bad:
                    fuzzed.blame(number, str(bad))

        await asyncio.gather(*(keep_sending() for _ in range(_AT_ONCE)))
        watching.cancel()
        await asyncio.wait([watching])
    return fuzzed


@contextlib.asynccontextmanager
async def _fuzzer(service: Service, seed: int) -> AsyncIterator[Fuzzer]:
    async with contextlib.AsyncExitStack() as stack:
        channels = [channel(service.address) for _ in range(_CHANNELS)]
        admin_channel = channel(service.admin_address)
        for each in (*channels, admin_channel):
            stack.push_async_callback(each.close)
        yield Fuzzer(service, channels, admin_channel, seed)


async def _probe(service: Service, fuzzed: Fuzzed) -> None:
    """Ask something right again and again, as long as it lasts."""
    asked = Question("Translate", (pb.TranslateRequest(texts=["The house is small."]),))
    async with Caller(Target(service.address, service.http_address)) as caller:
        right = (await caller.ask(asked)).answer
        while True:
            begun = time.perf_counter()
            outcome = await caller.ask(asked, WAIT)
            async with http1.connected(service.http_address) as (reader, writer):
                writer.write(http1.request_bytes("GET", "/readyz", {}))
                ready = await http1.read_reply(reader)
            if outcome.answer != right or ready.status != 200:
                fuzzed.blame(-1, f"a probe got {outcome.code} {outcome.reason}, /readyz {ready.status}")
            fuzzed.probes.append(time.perf_counter() - begun)
            fuzzed.resident_bytes.append(service.resident_bytes())
            await asyncio.sleep(_PROBE_SECONDS)


def bars(fuzzed: Fuzzed, requests: int, service: Service) -> list[Bar]:
    """Return what was promised, and what became of it."""
    slowest, log = max(fuzzed.probes), service.log()
    peak, first = service.peak_bytes() / 2**20, fuzzed.resident_bytes[0] / 2**20
    bound = _BOUND_BYTES / 2**20
    return [
        Bar("malformed requests", f"{requests:,}", f"{fuzzed.malformed:,}", fuzzed.malformed >= requests),
        Bar("the process", "lives", "lives" if service.alive else "ended", service.alive),
        none("replies that must not be", sum(map(len, fuzzed.faults.values()))),
        Bar(
            "right requests meanwhile",
            f"within {_PROBE_PATIENCE_SECONDS:g} s",
            f"{len(fuzzed.probes):,}, slowest {slowest:.2f} s",
            slowest <= _PROBE_PATIENCE_SECONDS,
        ),
        none("calls in flight afterwards", int(service.metrics().total("interlinear_requests_in_flight"))),
        Bar(
            "resident memory, MiB", f"at most {bound:.0f} more", f"{first:.0f}, peak {peak:.0f}", peak <= first + bound
        ),
        none("errors logged", len(_errors(service))),
        none("texts in the log", log.count(MARKER)),
    ]


def _errors(service: Service) -> list[dict[str, object]]:
    return [event for event in service.events() if event["level"] in ("error", "critical")]


def _tell(fuzzed: Fuzzed) -> None:
    table = Table(title=f"{fuzzed.cases.total():,} cases")
    for heading in ("kind", "what came of it"):
        table.add_column(heading)
    table.add_column("cases", justify="right")
    for (kind, came), number in sorted(fuzzed.cases.items()):
        table.add_row(kind, came, f"{number:,}")
    Console(width=120).print(table)
    for fault, numbers in fuzzed.faults.items():
        print(f"{len(numbers):,} times: {fault} (--case {numbers[0]})")


async def _send_one(service: Service, seed: int, number: int) -> str:
    async with _fuzzer(service, seed) as fuzzer:
        return ": ".join(await fuzzer.send(number))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.fuzz", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE, help="folder of the bundle to serve")
    parser.add_argument("--requests", type=int, default=100_000, help="malformed ones to send (default 100,000)")
    parser.add_argument("--seed", type=int, default=1, help="of every case (default 1)")
    parser.add_argument("--case", type=int, help="send only the case of that number")
    given = parser.parse_args(arguments)
    with running(given.bundle) as service:
        if given.case is not None:
            print(asyncio.run(_send_one(service, given.seed, given.case)))
            return 0
        fuzzed = asyncio.run(fuzz(service, given.requests, given.seed))
        time.sleep(_LAST_SECONDS)
        found = bars(fuzzed, given.requests, service)
        for event in _errors(service)[:3]:
            print(event)
    _tell(fuzzed)
    return concluded("Fuzz", found)


if __name__ == "__main__":
    sys.exit(main())
