"""Lines in, outcomes out: in order, many at once, a bounded number in flight."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.client import CallFailed

LINES_IN_FLIGHT = 32  # enough to fill the service's batches, far from filling its queue

Line = TypeVar("Line")
Outcome = TypeVar("Outcome")


async def in_order(
    lines: Iterable[Line], work: Callable[[int, Line], Awaitable[Outcome]]
) -> AsyncIterator[Outcome | CallFailed]:
    """Yield the outcome of ``work(line number, line)`` for each line, in order and as soon as it is there.

    Lines are read in a thread of their own, so that whoever writes our input slowly gets each answer before the next
    line; it is a daemon, so that a failure does not wait for a line that may never come.

    Raises:
        OSError: The lines cannot be read.
    """
    loop = asyncio.get_running_loop()
    started: asyncio.Queue[asyncio.Task[Outcome | CallFailed] | OSError | None] = asyncio.Queue()
    room = threading.Semaphore(LINES_IN_FLIGHT)

    async def outcome(number: int, line: Line) -> Outcome | CallFailed:
        try:
            return await work(number, line)
        except CallFailed as failure:
            return failure

    def start(number: int, line: Line) -> None:
        started.put_nowait(loop.create_task(outcome(number, line)))

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants the rest
            try:
                for number, line in enumerate(lines, 1):
                    room.acquire()
                    loop.call_soon_threadsafe(start, number, line)
                loop.call_soon_threadsafe(started.put_nowait, None)
            except OSError as error:
                loop.call_soon_threadsafe(started.put_nowait, error)

    threading.Thread(target=read, daemon=True).start()
    while (task := await started.get()) is not None:
        if isinstance(task, OSError):
            raise task
        yield await task
        room.release()


@contextlib.contextmanager
def with_progress(file: Path) -> Iterator[Iterator[bytes]]:
    """Yield the lines of ``file``; while the context lasts, a bar on standard error shows how many were read.

    Raises:
        OSError: The file cannot be read.
    """
    with file.open("rb") as lines:
        total = sum(1 for _ in lines)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("lines"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=total)

        def read() -> Iterator[bytes]:
            with file.open("rb") as lines:
                for line in lines:
                    yield line
                    progress.advance(bar)

        yield read()
