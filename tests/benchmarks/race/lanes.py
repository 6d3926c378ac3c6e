"""Contenders' processes, seen from the race: started, told their turns, ended."""

import json
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.race.environment import RaceError
from tests.benchmarks.race.work import Taken, Turn

_ROOT = Path(__file__).parent.parent.parent.parent
_END_SECONDS = 60


class Contender:
    """A process that takes turns.

    Attributes:
        startup_seconds: From its start to its word that it is ready.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        """Start it and wait until it is ready.

        Raises:
            RaceError: It ended before.
        """
        self._command = command
        self._log = tempfile.TemporaryFile()
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._answer()
        self.startup_seconds = time.perf_counter() - began

    def take(self, turn: Turn) -> Taken:
        """Let it take a turn.

        Raises:
            RaceError: It ended.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps(asdict(turn)), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # what it said at its end is told below
        return Taken(**self._answer())

    def close(self) -> None:
        """End it; one that does not go is killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        self.close()
        raise RaceError(f"{' '.join(self._command[:3])} ended: {said[-1] if said else 'it said nothing'}")
