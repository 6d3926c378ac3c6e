import asyncio

import pytest

from tests.reliability.cable import laid
from tests.reliability.http1 import Reply, read_reply, request_bytes


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(100):
        writer.write(part)
    writer.close()


async def test_a_cable_carries_both_ways_until_it_is_cut() -> None:
    async with await asyncio.start_server(_echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with laid(f"127.0.0.1:{port}") as cable:
            host, _, near_port = cable.address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(near_port))
            writer.write(b"are you there?")
            assert await reader.readexactly(14) == b"are you there?"
            cable.cut()
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)


async def _reply(written: bytes) -> Reply:
    reader = asyncio.StreamReader()
    reader.feed_data(written)
    reader.feed_eof()
    return await read_reply(reader)


async def test_a_reply_is_put_together_however_it_was_sent() -> None:
    plain = await _reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    in_chunks = await _reply(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n")
    assert plain.body == in_chunks.body == b"ok"
    with pytest.raises(EOFError):
        await _reply(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok")


def test_what_is_given_wins_over_what_a_request_has_anyway() -> None:
    assert b"content-length: 7\r\n" in request_bytes("POST", "/", {"content-length": "7"}, b"{}")
