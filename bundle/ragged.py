"""Lists of different lengths in one array, filled up with a value that is no token.

Axes: ``batch`` sentences, ``time`` steps taken, ``beam`` hypotheses.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

NO_TOKEN = -1  # equal to no id

_HISTORY_CHUNK = 16  # steps by which a history grows


def padded(lists: Sequence[Sequence[int]]) -> Int[np.ndarray, "batch longest"]:
    """Return one row a list."""
    rows = np.full((len(lists), max(map(len, lists))), NO_TOKEN, dtype=np.int64)
    for row, items in enumerate(lists):
        rows[row, : len(items)] = items
    return rows


def stacked(first: Any, second: Any) -> Any:
    """Return two arrays one after the other, the shorter second axis filled up."""
    if first.ndim == 1 or first.shape[1] == second.shape[1]:
        return np.concatenate([first, second])
    longest = max(first.shape[1], second.shape[1])
    widen = [((0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)) for array in (first, second)]
    filled = [np.pad(array, pad, constant_values=NO_TOKEN) for array, pad in zip((first, second), widen, strict=True)]
    return np.concatenate(filled)


def recorded(history: Any, steps: Any, values: Any) -> Any:
    """Return ``history`` with ``values`` at each sentence's own step."""
    longest = int(steps.max()) + 1
    if longest > history.shape[1]:
        history = np.pad(history, ((0, 0), (0, longest + _HISTORY_CHUNK - 1 - history.shape[1]), (0, 0)))
    else:
        history = history.copy()
    history[np.arange(len(steps)), steps] = values
    return history
