"""The contender's side of the race: a process that takes turns, told on stdin and answered on stdout, JSON by line.

Standard library alone, as rivals import it.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.race.work import TARGET_TOKENS, Taken, Turn


def confine(threads: int) -> None:
    """Keep this process, and those it starts, to as many processors as it may have threads (Linux)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def compete(prepare: Callable[[], Callable[[Turn], Taken]]) -> None:
    """Say when ready, then take turns until there are no more.

    Args:
        prepare: Loads the contender and returns how it takes a turn. It may print: that goes to stderr, and so does
            what processes it starts print.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    take = prepare()
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(take(Turn(**json.loads(line))))), file=replies, flush=True)


def repeated(translate: Callable[[Turn], list[int]]) -> Callable[[Turn], Taken]:
    """Return how a contender takes a turn that translates one batch after another.

    Args:
        translate: Translates one batch and returns the length of each target.
    """

    def take(turn: Turn) -> Taken:
        latencies: list[float] = []
        while sum(latencies) < turn.seconds or not latencies:
            began = time.perf_counter()
            lengths = translate(turn)
            latencies.append(time.perf_counter() - began)
            require_exact(lengths, turn.batch)
        return Taken(len(latencies) * turn.batch * TARGET_TOKENS, sum(latencies), latencies, peak_mib())

    return take


def require_exact(lengths: list[int], batch: int) -> None:
    """Check that the work was the work.

    Raises:
        AssertionError: There is not one target a sentence, or one is shorter or longer than ``TARGET_TOKENS``.
    """
    if lengths != [TARGET_TOKENS] * batch:
        raise AssertionError(f"{batch} targets of {TARGET_TOKENS} tokens were wanted, not of {lengths}")


def peak_mib(process: int | str = "self") -> float:
    """Return the largest resident size that a process has had; 0 where the system does not tell (not Linux)."""
    status = Path(f"/proc/{process}/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8")) if status.is_file() else None
    return int(found[1]) / 1024 if found else 0.0
