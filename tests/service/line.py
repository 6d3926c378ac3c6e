"""A line to a service that a test can cut, or stop."""

import asyncio
from typing import Self

_MOMENT_SECONDS = 0.05


class Line:
    """A TCP proxy; use it as an async context manager.

    Attributes:
        address: Where it listens, ``host:port``.
        connections: How many were ever made.
    """

    def __init__(self, target: str) -> None:
        self.address = ""
        self.connections = 0
        self._target = target.split(":")
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(_MOMENT_SECONDS)  # asyncio loses a connection that it accepts just before it closes
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)
        await asyncio.sleep(_MOMENT_SECONDS)  # an aborted connection is closed by the loop, later

    def cut(self) -> None:
        """Break every connection; new ones may be made."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def stop(self) -> None:
        """Carry nothing more from the service; what goes to it still gets there."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Carry again what was held."""
        self._flowing.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        ends, flowing = [writer], asyncio.Event()
        flowing.set()
        try:
            there, away = await asyncio.open_connection(*self._target)
            ends.append(away)
            self._writers += ends
            await asyncio.gather(_carry(reader, away, flowing), _carry(there, writer, self._flowing))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for end in ends:
                end.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
    while part := await reader.read(4096):
        await flowing.wait()
        writer.write(part)
        await writer.drain()
    writer.close()
