"""Hostile bundles against the examination that every bundle passes before the service loads it.

    python -m tests.reliability.bundles --count 5000 --seed 1

Each bundle is made and examined in a child process that is forked, so that thousands take minutes; it has the limits
of the service's own, but for time, of which it gets less. What the parent must see of each: it is refused with a
reason, by our reader or by a library or on trial; or it is stopped at a limit, or crashes its parser, which the service
takes for a refusal; or it is good after all and answers finitely. 200 more are cut or have a bit flipped and are not
sealed anew: all of them must be refused.

The parent never loads ONNX Runtime: that starts a thread, and what is forked beside a thread may wait for ever for a
lock that the thread held.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from service.errors import BundleRefused
from service.models.examination import examine_here, limit_this_process
from tests.reliability.hostile import DAMAGES, Damage, unsealed
from tests.tiny_bundle import TinyBundle

UNSEALED = 200
_SECONDS = 10  # of processor time for one bundle; a good one takes a tenth of a second
_BYTES_OF_REASON = 2000
OUTCOMES = ("refused", "crashed", "out of time", "loaded")


class Case(NamedTuple):
    """One hostile bundle.

    Attributes:
        kind: What is done to it.
        damage: By whom.
        seed: Of its randomness.
    """

    kind: str
    damage: Damage
    seed: str


class Fate(NamedTuple):
    """What became of one.

    Attributes:
        case: Which.
        outcome: One of ``OUTCOMES``.
        reason: Why it was refused, or which signal ended it.
        seconds: How long it took.
    """

    case: Case
    outcome: str
    reason: str
    seconds: float


def cases(count: int, seed: int) -> Iterator[Case]:
    """Yield ``count`` cases that are sealed anew, and ``UNSEALED`` in proportion that are not."""
    chance = random.Random(seed)
    kinds, weights = list(DAMAGES), [weight for _, weight in DAMAGES.values()]
    for number in range(count):
        kind = chance.choices(kinds, weights)[0]
        yield Case(kind, DAMAGES[kind][0], f"{seed}.{number}")
    for number in range(min(UNSEALED, count)):
        yield Case("cut or flipped, not sealed", unsealed, f"{seed}.unsealed.{number}")


def fate(case: Case, good: Path, place: Path) -> Fate:
    """Return what becomes of a bundle that is made of ``good`` at ``place``, where nothing must be."""
    started = time.perf_counter()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _examine(case, good, place, write)
    os.close(write)
    with open(read, "rb") as said:
        verdict = said.read(_BYTES_OF_REASON * 8)
    _, status = os.waitpid(child, 0)
    shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        place.with_name(f"{place.name}.kept").unlink()
    seconds = time.perf_counter() - started
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Fate(case, "out of time" if name in ("SIGXCPU", "SIGALRM", "SIGKILL") else "crashed", name, seconds)
    reason = json.loads(verdict)  # there is one, unless this program itself is broken
    return Fate(case, "loaded" if reason is None else "refused", reason or "", seconds)


def _examine(case: Case, good: Path, place: Path, write: int) -> None:
    """Make and examine one bundle in this process, which ends with it."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    signal.alarm(6 * _SECONDS)
    shutil.copytree(good, place)
    case.damage(place, random.Random(case.seed))
    limit_this_process(sum(file.stat().st_size for file in good.iterdir()))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    signal.alarm(6 * _SECONDS)
    reason = None
    try:
        examine_here(place)
    except BundleRefused as error:
        reason = str(error)[:_BYTES_OF_REASON]
    os.write(write, json.dumps(reason).encode())
    os._exit(0)


def run(count: int, seed: int) -> list[Fate]:
    """Return what becomes of all cases."""
    fates = []
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        if os.fork() == 0:
            TinyBundle().write(good)
            os._exit(0)
        os.wait()
        for number, case in enumerate(cases(count, seed)):
            fates.append(fate(case, good, Path(folder) / "hostile"))
            if sys.stderr.isatty() or number % 500 == 499:
                print(f"{number + 1} done", file=sys.stderr, flush=True)
    return fates


def table(fates: list[Fate]) -> str:
    """Return how many of each kind had which fate."""
    kinds = list(dict.fromkeys(fate.case.kind for fate in fates))
    counts = Counter((fate.case.kind, fate.outcome) for fate in fates)
    rows = [["damage", "bundles", *OUTCOMES]]
    for kind in sorted(kinds):
        found = [counts[kind, outcome] for outcome in OUTCOMES]
        rows.append([kind, str(sum(found)), *map(str, found)])
    totals = [sum(counts[kind, outcome] for kind in kinds) for outcome in OUTCOMES]
    rows.append(["all", str(sum(totals)), *map(str, totals)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|" + "--:|" * (len(OUTCOMES) + 1), *lines[1:]])


def main() -> int:
    """Print the table and what ended the children that crashed; return 0 if nothing escaped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    fates = run(arguments.count, arguments.seed)
    print(table(fates))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    slowest = max(fates, key=lambda fate: fate.seconds)
    seconds = time.perf_counter() - started
    print(f"\n{seconds:.0f} s; largest child {children >> 10} MiB; the parent grew by {grown >> 10} MiB")
    print(f"slowest: {slowest.seconds:.1f} s ({slowest.case.kind}, {slowest.case.seed}: {slowest.outcome})")
    for (kind, reason), number in Counter(
        (fate.case.kind, fate.reason) for fate in fates if fate.outcome in ("crashed", "out of time")
    ).most_common():
        print(f"{number} x {kind}: {reason}")
    escaped = [fate for fate in fates if fate.case.damage is unsealed and fate.outcome != "refused"]
    print(f"{len(escaped)} of the damaged that were not sealed anew were not refused")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
