"""The service on an ONNX Runtime that breaks when it is told to: ``python -m tests.reliability.faulty``.

Nothing of the service is changed; what it calls is. Whoever runs it writes an order into the file that ``FAULT_ORDER``
names: ``raise 3`` makes the next three calls of ONNX Runtime fail, ``hang 1`` makes the next one never return.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import onnxruntime

from service.__main__ import main

ORDER_VARIABLE = "FAULT_ORDER"

_left: list[str] = []  # one entry for each call that is still to break, and how
_turn = threading.Lock()


class FaultySession(onnxruntime.InferenceSession):  # type: ignore[misc]  # onnxruntime has no type stubs
    """A session that obeys orders."""

    def run(self, *arguments: Any, **named: Any) -> Any:
        """Run the graph, or break."""
        how = _next_order()
        if how == "raise":
            raise RuntimeError("the graph cannot be run, as ordered")
        if how == "hang":
            threading.Event().wait()
        return super().run(*arguments, **named)


def _next_order() -> str:
    """Return how this call is to break; empty: not at all."""
    file = Path(os.environ[ORDER_VARIABLE])
    with _turn:
        if file.exists():
            how, _, times = file.read_text().partition(" ")
            file.unlink()
            _left[:] = [how] * int(times)
        return _left.pop() if _left else ""


if __name__ == "__main__":
    onnxruntime.InferenceSession = FaultySession
    sys.exit(main())
