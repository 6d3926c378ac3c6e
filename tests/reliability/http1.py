"""HTTP/1.1 on a bare connection: a few lines, so that a test can break any of them and close whenever it likes."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

_MOST_HEADERS = 64 << 10


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: Of HTTP.
        headers: Their names in lower case.
        body: Put together again if it came in chunks.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return a request as it travels; ``headers`` win over those that would be written anyway."""
    written = {"host": "localhost", "content-length": str(len(body)), "content-type": "application/json", **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in written.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + body


@contextlib.asynccontextmanager
async def connected(
    address: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to ``host:port``; at the end the connection is dropped, not said goodbye to."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=_MOST_HEADERS, ssl=tls)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Return the next reply.

    Raises:
        EOFError: The connection was closed before it was whole.
        ValueError: It is not HTTP.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    protocol, _, rest = head[0].partition(" ")
    if not protocol.startswith("HTTP/1."):
        raise ValueError("this is not HTTP")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join([part async for part in _chunks(reader)])
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(int(rest[:3]), headers, body)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
