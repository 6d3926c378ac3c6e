"""Connections that are slow, too many, or no HTTP at all."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service import http_connection, http_server
from service.access.certificates import Certificates
from service.http_connection import security_headers
from service.http_server import create_app, running
from service.metrics import Metrics
from tests.service.access.files import issued, trusting, write_tls
from tests.service.edge import settings_of

AUTHORITY = trustme.CA()
REPLY_BYTES = 32 << 20


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def large(request: Request) -> Response:
        return Response(b"x" * REPLY_BYTES)

    async with running(create_app(lambda: True, [Route("/large", large)]), "127.0.0.1:0") as bound:
        yield bound


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """Return what still comes until the connection is closed, within five seconds."""
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b""


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: "])
async def test_headers_that_do_not_come_in_time_end_the_connection(
    port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "_HEADER_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    clock = asyncio.get_running_loop().time
    began = clock()
    for byte in sent:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.002)
    assert await until_closed(reader) == b""
    assert clock() - began < 3
    writer.close()


async def test_a_second_request_has_as_little_time_as_the_first(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_HEADER_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    answer = await reader.readuntil(b"ok\n")
    assert answer.startswith(b"HTTP/1.1 200")
    writer.write(b"GET /heal")
    assert await until_closed(reader) == b""
    writer.close()


async def test_a_client_that_does_not_read_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_READING_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await asyncio.sleep(1.5)
    assert len(await until_closed(reader)) < REPLY_BYTES
    writer.close()


async def test_a_client_that_reads_slowly_gets_it_all(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_READING_SECONDS", 2.0)
    async with httpx.AsyncClient() as http, http.stream("GET", f"http://127.0.0.1:{port}/large") as response:
        received = 0
        async for part in response.aiter_raw(1 << 20):
            received += len(part)
            await asyncio.sleep(0.01)
    assert received == REPLY_BYTES


async def test_a_connection_too_many_is_closed_and_the_others_stay(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_MOST_CONNECTIONS", 3)
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    await asyncio.sleep(0.05)
    refused, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await until_closed(refused) == b""
    writer.close()
    for reader, writer in connections:
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert (await until_closed(reader)).endswith(b"ok\n")
        writer.close()


@contextlib.asynccontextmanager
async def secured(tmp_path: Path) -> AsyncIterator[int]:
    """Run a listener of HTTPS; yield its port."""
    files = write_tls(tmp_path, issued(AUTHORITY, "localhost"), trustme.CA())
    certificates = Certificates(settings_of(**files.settings), Metrics.on(CollectorRegistry()))
    async with running(create_app(lambda: True), "127.0.0.1:0", security=certificates.ssl_context()) as bound:
        yield bound


async def test_a_handshake_that_does_not_come_in_time_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_TLS_SECONDS", 0.3)
    async with secured(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01")
        assert await until_closed(reader) == b""
        writer.close()


async def test_connections_that_have_not_shaken_hands_are_counted_and_make_room_when_they_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_MOST_CONNECTIONS", 3)
    async with secured(tmp_path) as port, httpx.AsyncClient(verify=trusting(AUTHORITY)) as http:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(httpx.TransportError):
            await http.get(f"https://localhost:{port}/healthz")
        for _, writer in silent:
            writer.close()
        await asyncio.sleep(0.05)
        assert (await http.get(f"https://localhost:{port}/healthz")).text == "ok\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1, 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 70_000,
    ],
    ids=["TLS", "target", "length", "headers"],
)
async def test_what_is_not_http_is_answered_with_a_status_and_the_headers_that_protect(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    head, _, body = (await until_closed(reader)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    for name, value in security_headers(https=False):
        assert name + b": " + value in head
    status, info = json_format.ParseDict(json.loads(body), status_pb2.Status()), error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason == "MESSAGE_INVALID"
    writer.close()


@pytest.mark.parametrize("body", [b"no chunk at all\r\n", b"3\r\nabcd\r\n"])
@pytest.mark.parametrize("path", [b"/large", b"/healthz", b"/nothing"])
async def test_a_body_that_breaks_its_own_rules_before_an_answer_is_refused_and_nothing_is_logged(
    port: int, path: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET " + path + b" HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" + body)
    assert (await until_closed(reader)).startswith(b"HTTP/1.1 400")
    writer.close()
    await asyncio.sleep(0.05)
    assert not caplog.records


async def test_a_body_that_breaks_its_own_rules_amid_an_answer_only_ends_the_connection(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /large HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
    await asyncio.sleep(0.1)
    writer.write(b"no chunk at all\r\n")
    await until_closed(reader)
    writer.close()
    assert not caplog.records
