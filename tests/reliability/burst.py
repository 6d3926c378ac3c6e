"""Thousands of calls at the same moment, from one connection and from several: every one is answered or refused by us.

The bar: of every round's calls, each is answered with the right translation or refused with an ErrorInfo; none comes
back CANCELLED, as gRPC itself answers where its own limits are met before ours, and none is lost.
"""

import argparse
import asyncio
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.pb import interlinear_pb2 as pb
from tests.reliability.answers import Judge, Outcome, Verdict
from tests.reliability.load import Caller, Target
from tests.reliability.process import SHIPPED_BUNDLE, Service, running
from tests.reliability.questions import Question
from tests.reliability.verdict import Bar, concluded, none

_TEXTS = ("The house is small.", "It's raining again; take your umbrella!", "How many brothers do you have?")


@dataclass(frozen=True)
class Round:
    """What came of one burst.

    Attributes:
        connections: It came from.
        outcomes: By verdict, code and reason.
        slowest_seconds: Until the last was answered.
        median_seconds: Of all.
    """

    connections: int
    outcomes: Counter[tuple[Verdict, str, str]]
    slowest_seconds: float
    median_seconds: float

    def count(self, verdict: Verdict) -> int:
        """Return how many got that verdict."""
        return sum(number for (has, _, _), number in self.outcomes.items() if has == verdict)


async def burst(service: Service, connections: int, calls: int) -> Round:
    """Return what came of so many calls at once over so many connections."""
    asked = [Question("Translate", (pb.TranslateRequest(texts=[text]),)) for text in _TEXTS]
    judge = Judge()
    async with Caller(Target(service.address, service.http_address), connections) as caller:
        for index, question in enumerate(asked):
            judge.learn(index, await caller.ask(question))
        of = [index % len(asked) for index in range(calls)]
        outcomes: Sequence[Outcome] = await asyncio.gather(*(caller.ask(asked[index]) for index in of))
    judged = (judge.judge(index, outcome) for index, outcome in zip(of, outcomes, strict=True))
    counts = Counter((verdict, each.code, each.reason) for verdict, each in zip(judged, outcomes, strict=True))
    seconds = [outcome.seconds for outcome in outcomes]
    return Round(connections, counts, max(seconds), statistics.median(seconds))


def bars(rounds: Sequence[Round], calls: int) -> list[Bar]:
    """Return what was promised, and what became of it."""
    both = [one.count("right") + one.count("refused") for one in rounds]
    cancelled = sum(number for one in rounds for (_, code, _), number in one.outcomes.items() if code == "CANCELLED")
    return [
        Bar("answered or refused by us, fewest of a round", f"{calls:,}", f"{min(both):,}", min(both) == calls),
        none("CANCELLED", cancelled),
        none("lost, or without ErrorInfo", sum(one.count("lost") + one.count("late") for one in rounds)),
        none("never answered", sum(one.count("stuck") for one in rounds)),
        none("wrong answers", sum(one.count("wrong") for one in rounds)),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.burst", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE, help="folder of the bundle to serve")
    parser.add_argument("--calls", type=int, default=4000, help="calls of a round (default 4,000)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8], help="numbers of them (default 1 8)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds with each number of connections (default 3)")
    given = parser.parse_args(arguments)
    rounds = []
    with running(given.bundle) as service:
        for connections in given.connections * given.rounds:
            one = asyncio.run(burst(service, connections, given.calls))
            said = ", ".join(f"{number:,} {' '.join(what)}".strip() for what, number in one.outcomes.most_common())
            print(f"{connections} connections: {said}; half within {one.median_seconds:.1f} s, ", end="")
            print(f"all within {one.slowest_seconds:.1f} s", flush=True)
            rounds.append(one)
    return concluded(f"Bursts of {given.calls:,} calls, {len(rounds)} rounds", bars(rounds, given.calls))


if __name__ == "__main__":
    sys.exit(main())
