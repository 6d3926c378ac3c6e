"""A cable between a caller and a service that can be cut: whoever is on it vanishes without a word."""

import asyncio
import contextlib
import functools
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_PART_BYTES = 64 << 10
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time at all: the other side gets a reset


@dataclass
class Cable:
    """Carries bytes both ways between whoever connects to ``address`` and the service.

    Attributes:
        address: Where to connect.
    """

    address: str = ""
    _ends: set[asyncio.StreamWriter] = field(default_factory=set)
    _carrying: "set[asyncio.Task[None]]" = field(default_factory=set)

    def cut(self) -> None:
        """Break every connection; new ones may be made at once."""
        for end in self._ends:
            peer = end.get_extra_info("socket")
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()

    async def end(self) -> None:
        """Break every connection and wait until they are gone."""
        while self._carrying:
            self.cut()
            await asyncio.wait(self._carrying)

    async def join(self, service_address: str, near: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what comes and goes between a caller and the service until either ends it."""
        host, _, port = service_address.rpartition(":")
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            far, far_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(self._carry(near, far_writer), self._carry(far, writer))
        except ConnectionError:
            writer.transport.abort()
        finally:
            self._carrying.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            while part := await reader.read(_PART_BYTES):
                writer.write(part)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self._ends.discard(writer)
            writer.close()


@contextlib.asynccontextmanager
async def laid(service_address: str) -> AsyncIterator[Cable]:
    """Lay a cable to a service for as long as the context lasts."""
    cable = Cable()
    server = await asyncio.start_server(functools.partial(cable.join, service_address), "127.0.0.1", 0)
    cable.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cable
    finally:
        server.close()
        await cable.end()
