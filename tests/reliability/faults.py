"""Every fault that a service must live through, one after the other, each on a service under load.

The bars, for each: no wrong answer, compared bit by bit with those of the idle service; no accepted request lost,
except by SIGKILL; and afterwards everybody is served again, after a time that is measured.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

from tests.reliability import model_faults, process_faults
from tests.reliability.process import SHIPPED_BUNDLE
from tests.reliability.stage import Found, Scene, scene_of
from tests.reliability.verdict import conditions

Fault: TypeAlias = Callable[[Scene], Coroutine[Any, Any, Found]]

FAULTS: Mapping[str, Fault] = {
    fault.__name__: fault
    for fault in (
        process_faults.clients_vanish,
        process_faults.engine_raises,
        process_faults.engine_hangs,
        process_faults.engine_lost,
        model_faults.disk_full,
        model_faults.bundle_damaged,
        process_faults.clock_jumps,
        process_faults.frozen,
        process_faults.terminated,
        process_faults.killed,
        model_faults.certificate_rotated,
        model_faults.hot_swaps,
    )
}


def table(found: Sequence[Found]) -> Table:
    """Return one row for each fault."""
    rows = Table(title="Faults under load")
    for heading in ("fault", "times", "calls", "right", "refused by name", "wrong", "lost", "recovery s", "remarks"):
        rows.add_column(heading, justify="left" if heading in ("fault", "remarks") else "right")
    for one in found:
        counts = [one.stage.count(*verdicts) for verdicts in (("right",), ("refused",), ("wrong",), ("lost", "stuck"))]
        remark = "; ".join([*(f"MISSED: {miss}" for miss in one.misses), *([one.remark] if one.remark else [])])
        numbers = (one.times, len(one.stage.noted), *counts)
        rows.add_row(one.fault, *(f"{number:,}" for number in numbers), f"{one.recovery_seconds:.1f}", remark)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.faults", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE, help="folder of the bundle to serve")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (default 1)")
    parser.add_argument("--share", type=float, default=1.0, help="of the 200 damages and 50 swaps (default 1: all)")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS), help="leave out all others")
    given = parser.parse_args(arguments)
    found: list[Found] = []
    for name in given.only:
        with scene_of(given.bundle, given.seed, given.share) as scene:
            found.append(asyncio.run(FAULTS[name](scene)))
        print(
            f"{name}: {', '.join(found[-1].misses) or 'as promised'}", *found[-1].examples(), sep="\n    ", flush=True
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(found))
    console.print(conditions())
    return 1 if any(one.misses for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
