"""What a run tells: lines for a person, JSON lines for programs, TensorBoard for pictures."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
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


class StepFigures:
    """What is reported of the steps since the last report, validations not counted."""

    def __init__(self, step: int) -> None:
        """Start counting after ``step``."""
        self.restart(step, 0.0)

    def restart(self, step: int, waited_seconds: float) -> None:
        """Start counting anew after ``step``, before which ``waited_seconds`` were spent waiting for batches."""
        self._losses: list[Tensor] = []
        self._tokens, self._step, self._since, self._waited = 0, step, time.monotonic(), waited_seconds

    def count(self, tokens: int, loss: Tensor, norm: Tensor) -> None:
        """Count a step of so many target tokens; its loss and gradient norm may still be being computed."""
        self._tokens += tokens
        self._losses.append(loss)
        self._norm = norm

    def due(self, seconds: float) -> bool:
        """Return whether ``seconds`` have gone by."""
        return time.monotonic() - self._since >= seconds

    def measure(self, step: int, waited_seconds: float) -> tuple[dict[str, float], float]:
        """Return the figures and the seconds a step, and start counting anew."""
        loss, norm = float(torch.stack(self._losses).mean()), float(self._norm)  # the device has now done every step
        seconds = time.monotonic() - self._since
        figures = {
            "loss": loss,
            "gradient_norm": norm,
            "target_tokens_per_second": self._tokens / seconds,
            "data_wait_share": (waited_seconds - self._waited) / seconds,
        }
        seconds_per_step = seconds / max(1, step - self._step)
        self.restart(step, waited_seconds)
        return figures, seconds_per_step


def duration(seconds: float) -> str:
    """Return seconds as a person reads them.

    >>> duration(3725)
    '1 h 02 min'
    >>> duration(95)
    '1 min 35 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"
