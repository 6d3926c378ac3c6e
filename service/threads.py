"""How the processors are shared out: lanes that decode side by side, and threads of each call of ONNX Runtime."""

import math
import os
from pathlib import Path
from typing import NamedTuple

from service.control_groups import groups

_MOST_LANES = 8


class Division(NamedTuple):
    """How many threads run a model.

    Attributes:
        lanes: Calls at the same time.
        threads_per_call: Most threads of one of them, that of its lane included; the others are shared by all lanes.
    """

    lanes: int
    threads_per_call: int


def division(processors: int) -> Division:
    """Return how ``processors`` are best shared out.

    A call with one thread wakes nobody and waits for nobody, so a lane a processor decodes most. But between two calls
    a lane needs Python's lock, which one thread has at a time: each lane more gets less of it, and beyond eight lanes
    more threads for their calls are the better use of more processors. ONNX Runtime keeps those for the session, which
    the lanes share.

    >>> division(2)
    Division(lanes=2, threads_per_call=1)
    >>> division(12)
    Division(lanes=8, threads_per_call=5)
    """
    lanes = min(_MOST_LANES, processors)
    return Division(lanes, processors - lanes + 1)


def usable_processors(root: Path = Path("/")) -> int:
    """Return the number of processors this process may use: its affinity, capped by the container's quota.

    Where the system has no affinity (macOS), all processors.

    Args:
        root: Of the file system that the kernel tells the quota in.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_quota(version, folder) for version, folder in groups("cpu", root))
    return max(1, math.ceil(min((allowed, *quotas))))


def _quota(version: int, folder: Path) -> float:
    """Return the processors that a group may use; infinity where it sets no quota."""
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    files = [folder / name for name in names]
    if not all(file.is_file() for file in files):
        return math.inf
    quota, period = " ".join(file.read_text() for file in files).split()
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)
