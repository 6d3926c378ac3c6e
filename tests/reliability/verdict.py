"""The end of a measurement: one table of what was wanted and what was found, and an exit code."""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Bar:
    """One thing that was promised.

    Attributes:
        name: What.
        wanted: Its bound, in words.
        found: What was measured, in words.
        met: Whether that is within the bound.
    """

    name: str
    wanted: str
    found: str
    met: bool


def none(name: str, count: int) -> Bar:
    """Return a bar for something that must not happen at all."""
    return Bar(name, "0", f"{count:,}", count == 0)


def concluded(title: str, bars: Sequence[Bar]) -> int:
    """Print the table and the conditions of the measurement; return 0 if every bar is met, else 1."""
    table = Table(title=title)
    for heading in ("bar", "wanted", "found", ""):
        table.add_column(heading)
    for bar in bars:
        table.add_row(bar.name, bar.wanted, bar.found, "met" if bar.met else "MISSED")
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(conditions())
    return 0 if all(bar.met for bar in bars) else 1


def conditions() -> str:
    """Return when, on what and on which commit this runs."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    cores = len(os.sched_getaffinity(0))
    version = platform.python_version()
    return f"{time.strftime('%Y-%m-%d')}, {_processor()}, {cores} cores, Python {version}, {commit.stdout.strip()}"


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found.group(1) if found else platform.machine()
