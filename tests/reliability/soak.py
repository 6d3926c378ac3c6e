"""A mixed load at saturation for a long time, by callers of whom one in five does not wait for the answer.

Every call of the proto over both transports, in realistic shares; some callers cancel, some give too little time, some
break their connection, some ask for what is refused. It ends after so many requests or so long, whichever comes first.

The bars: every caller that waits gets the bits that the idle service gave him, or a refusal by name; nothing stays
unanswered or in flight; metrics balance; and memory does not grow. The first sixth of the run is warm-up; the rest is
cut into ten windows, and the median resident memory of each must be within 3 % of that of the first.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.reliability.answers import Verdict
from tests.reliability.load import Caller, Target, random_manner
from tests.reliability.process import SHIPPED_BUNDLE, Metrics, Service, running
from tests.reliability.questions import questions
from tests.reliability.traffic import Noted, Traffic
from tests.reliability.verdict import Bar, concluded, none

_CONNECTIONS = 8
_SAMPLE_SECONDS = 1.0
_WARM_UP_SHARE = 1 / 6
_WINDOWS = 10
_GROWTH = 0.03
_SPARE_FILES = 4  # the connection that scrapes metrics, and its like
_IDLE_SECONDS = 20.0
_GAUGES = (
    "interlinear_requests_in_flight",
    "interlinear_queue_depth",
    "interlinear_queue_tokens",
    "interlinear_running_sentences",
    "interlinear_streams_open",
    "interlinear_unsent_reply_bytes",
)


@dataclass(frozen=True)
class Load:
    """How much to ask.

    Attributes:
        callers: At the same time.
        requests: After so many it ends.
        seconds: Or after so long.
        seed: Of everything that is random.
        questions: Different ones.
    """

    callers: int
    requests: int
    seconds: float
    seed: int
    questions: int = 400


@dataclass
class Soak:
    """A run of a load, and what happened so far.

    Attributes:
        load: How much to ask.
        judged: Calls by method, transport, how they ended, and what to think of the outcome.
        reasons: Refusals by reason.
        resident_bytes: Of the service, once a second.
        files: Descriptors it had open before and after.
        processors: How many it kept busy.
        seconds: It took.
    """

    load: Load
    judged: Counter[tuple[str, str, str, Verdict]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    resident_bytes: list[int] = field(default_factory=list)
    files: tuple[int, int] = (0, 0)
    processors: float = 0.0
    seconds: float = 0.0

    def count(self, *verdicts: Verdict) -> int:
        """Return how many calls got one of these verdicts."""
        return sum(number for (*_, verdict), number in self.judged.items() if verdict in verdicts)

    async def run(self, service: Service) -> None:
        """Ask everything once while the service is idle, then all at once for as long as the load says, then once."""
        traffic = Traffic(questions(self.load.questions, self.load.seed), random_manner, self._note)
        async with Caller(Target(service.address, service.http_address), _CONNECTIONS) as caller:
            await traffic.learn(caller)
            files, used, begun = service.open_files(), service.processor_seconds(), time.perf_counter()
            end = begun + self.load.seconds
            watching = asyncio.create_task(self._watch(service))
            await traffic.flow(caller, self.load.callers, lambda: self._goes_on(end), self.load.seed)
            watching.cancel()
            self.seconds = time.perf_counter() - begun
            self.processors = (service.processor_seconds() - used) / self.seconds
            await _until_idle(service)
            self.files = files, service.open_files()
            await traffic.check(caller)

    def _goes_on(self, end: float) -> bool:
        return self.judged.total() + self.load.callers <= self.load.requests and time.perf_counter() < end

    def _note(self, noted: Noted) -> None:
        manner = noted.manner
        self.judged[noted.question.method, manner.transport, manner.ending, noted.verdict] += 1
        self.reasons[noted.outcome.reason] += 1

    async def _watch(self, service: Service) -> None:
        while True:
            self.resident_bytes.append(service.resident_bytes())
            await asyncio.sleep(_SAMPLE_SECONDS)


def bars(soaked: Soak, service: Service) -> list[Bar]:
    """Return what was promised, and what became of it."""
    metrics = service.metrics()
    waited = Counter[Verdict]()
    for (_, _, ending, verdict), number in soaked.judged.items():
        waited[verdict] += number * (ending == "wait")
    served = waited["right"] + waited["refused"]
    windows = memory_windows(soaked.resident_bytes)
    growth = max(window / windows[0] - 1 for window in windows)
    in_mebibytes = ", ".join(f"{window / 2**20:.0f}" for window in windows)
    gauges = {name: value for name in _GAUGES if (value := metrics.total(name))}
    before, after = soaked.files
    failed = [event for event in service.events() if event["level"] in ("error", "critical")]
    return [
        Bar(
            "callers who waited and got the right bits, or a refusal by name",
            f"{waited.total():,}",
            f"{served:,}",
            served == waited.total() > 0,
        ),
        none("wrong answers", soaked.count("wrong")),
        none("lost, or without ErrorInfo", soaked.count("lost")),
        none("stuck", soaked.count("stuck")),
        Bar("resident memory, MiB a window", f"within {_GROWTH:.0%} of the first", in_mebibytes, growth <= _GROWTH),
        Bar("gauges of what is under way, afterwards", "all 0", str(gauges or "all 0"), not gauges),
        Bar("calls started = handled", "every method", *balance(metrics)),
        Bar(
            "open files, before and after",
            f"at most {_SPARE_FILES} more",
            f"{before}, {after}",
            after <= before + _SPARE_FILES,
        ),
        none("errors logged", len(failed)),
    ]


def memory_windows(resident_bytes: Sequence[int]) -> list[float]:
    """Return the median resident memory of each window after warm-up."""
    measured = resident_bytes[round(len(resident_bytes) * _WARM_UP_SHARE) :]
    size = max(1, len(measured) // _WINDOWS)
    return [statistics.median(measured[at : at + size]) for at in range(0, size * _WINDOWS, size) if measured[at:]]


def balance(metrics: Metrics) -> tuple[str, bool]:
    """Return how many calls were started and handled, and whether they are as many for every method and transport."""
    labels = ("grpc_service", "grpc_method", "transport")
    started = metrics.by_label("grpc_server_started_total", *labels)
    handled = metrics.by_label("grpc_server_handled_total", *labels)
    return f"{sum(started.values()):,.0f} = {sum(handled.values()):,.0f}", started == handled


async def _until_idle(service: Service) -> None:
    """Wait until nothing is under way, but not for ever: whether it is, is a bar."""
    end = time.perf_counter() + _IDLE_SECONDS
    while service.metrics().total(_GAUGES[0]) and time.perf_counter() < end:
        await asyncio.sleep(_SAMPLE_SECONDS)


def _tell(soaked: Soak) -> None:
    """Print what was asked and what came of it."""
    title = f"{soaked.judged.total():,} calls in {soaked.seconds:,.0f} s, {soaked.processors:.2f} processors busy"
    table = Table(title=title)
    verdicts = ("right", "refused", "late", "gone", "lost", "stuck", "wrong")
    for heading in ("calls", *verdicts):
        table.add_column(heading, justify="left" if heading == "calls" else "right")
    for position in range(3):  # by call, by transport, by how they ended
        for name in sorted({key[position] for key in soaked.judged}):
            counts = Counter[str]()
            for key, number in soaked.judged.items():
                counts[key[3]] += number * (key[position] == name)
            table.add_row(name, *(f"{counts[verdict]:,}" for verdict in verdicts), end_section=False)
        table.add_section()
    console = Console(width=120)
    console.print(table)
    console.print({reason: number for reason, number in soaked.reasons.most_common() if reason})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.soak", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE, help="folder of the bundle to serve")
    parser.add_argument("--requests", type=int, default=200_000, help="end after so many (default 200,000)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="or after so long (default 3,600)")
    parser.add_argument("--callers", type=int, default=96, help="at the same time (default 96)")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (default 1)")
    given = parser.parse_args(arguments)
    soaked = Soak(Load(given.callers, given.requests, given.seconds, given.seed))
    with running(given.bundle) as service:
        asyncio.run(soaked.run(service))
        found = bars(soaked, service)
    _tell(soaked)
    return concluded("Soak", found)


if __name__ == "__main__":
    sys.exit(main())
