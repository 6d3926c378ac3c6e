"""Makes batches ready in a thread of its own, so that no step waits for one."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

_LOOK_SECONDS = 0.1  # how soon a reader that waits for room sees that nobody wants more
_END = object()


class Prefetcher(Generic[Item]):
    """Iterates over ``items`` in their order, up to ``ahead`` of them made before they are asked for.

    Leaving the context ends the reading thread. What goes wrong while reading is raised by the iteration, after the
    items read before it.
    """

    def __init__(self, items: Iterable[Item], ahead: int) -> None:
        """Start reading."""
        self.waited_seconds = 0.0
        self._items = items
        self._ready: queue.Queue[object] = queue.Queue(maxsize=ahead)
        self._error: BaseException | None = None
        self._unwanted = threading.Event()
        self._reader = threading.Thread(target=self._read, name="prefetch", daemon=True)
        self._reader.start()

    def __enter__(self) -> "Prefetcher[Item]":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the reading thread."""
        self._unwanted.set()
        self._reader.join()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items; ``waited_seconds`` grows by the time for which the next one was not ready."""
        while True:
            began = time.perf_counter()
            item = self._ready.get()
            self.waited_seconds += time.perf_counter() - began
            if item is _END:
                if self._error is not None:
                    raise self._error
                return
            yield item  # type: ignore[misc]  # all but the end mark are items

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # raised again where the items are used
            self._error = error
        self._put(_END)

    def _put(self, item: object) -> bool:
        """Hand an item over; false if nobody wants it."""
        while not self._unwanted.is_set():
            try:
                self._ready.put(item, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
