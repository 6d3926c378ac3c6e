"""What a run tells: lines for a person, JSON lines for programs, TensorBoard for pictures."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class Reporter:
    """Writes ``metrics.jsonl`` and ``tensorboard/`` under the run's folder, and lines to standard error.

    Only the first of several processes speaks; the others are given ``speaks=False`` and stay silent.
    """

    def __init__(self, folder: Path, speaks: bool = True) -> None:
        """Open the files for appending, so that a resumed run continues them."""
        self.folder, self._speaks = folder, speaks
        if speaks:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = (folder / "metrics.jsonl").open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def say(self, text: str) -> None:
        """Print one line for a person."""
        if self._speaks:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def record(self, step: int, kind: str, figures: dict[str, Any]) -> None:
        """Append one JSON line, and every number of it to TensorBoard under ``kind``."""
        if not self._speaks:
            return
        self._lines.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        self._lines.flush()
        for name, value in figures.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close both files."""
        if self._speaks:
            self._lines.close()
            self._board.close()


def duration(seconds: float) -> str:
    """Return seconds as a person reads them.

    >>> duration(3725)
    '1 h 02 min'
    >>> duration(95)
    '1 min 35 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"
