"""One connection of HTTP, and how long it may be slow, in asking or in reading what it asked for."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any, TypeAlias

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import MessageInvalid
from service.incoming import Refusal, accepted_request_id
from service.wire import write_json

# Keys of an ASGI scope: who the caller's certificate says it is, and what breaks the connection off.
CERTIFICATE_NAMES = "interlinear.certificate_names"
BREAK_OFF = "interlinear.break_off"
MOST_HEADER_BYTES = 32 << 10

_HEADER_SECONDS = 10.0  # from the first byte of a request, or from the handshake, to the end of its headers
_READING_SECONDS = 60.0  # for the client to read what was written at once

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class HttpConnection(H11Protocol):
    """uvicorn's connection with bounds, which it leaves to a proxy in front of it.

    A connection is closed that does not send the headers of a request in time, or does not read what it asked for.
    Bodies are the application's business.
    """

    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, handshake included."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1)  # what is written counts as sent only when the system has taken it
        names = tuple(_names(transport.get_extra_info("peercert") or {}))
        self.app = functools.partial(_with, self.app, {CERTIFICATE_NAMES: names, BREAK_OFF: transport.abort})
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let it go."""
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, which may be a part of headers."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_headers()
        elif self._late is not None:
            self._late.cancel()
            self._late = None

    def pause_writing(self) -> None:
        """Stop writing: the client does not read as fast."""
        super().pause_writing()
        self._stalled = self.loop.call_later(_READING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that asks for nothing more, also if it never reads the end of what it asked for."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_READING_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, unless an answer is under way, and close the connection."""
        refusal = Refusal.of(MessageInvalid("", "what came is not a request of HTTP/1.1"), accepted_request_id(None))
        body = write_json(refusal.status)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *security_headers(self.scheme == "https"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            events = (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        if self.cycle is not None:  # an answer to the part that was HTTP has nobody to go to any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _expect_headers(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(_HEADER_SECONDS, self._close_if_late)

    def _close_if_late(self) -> None:
        self._late = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _cancel_timers(self) -> None:
        for timer in (self._late, self._stalled):
            if timer is not None:
                timer.cancel()


def security_headers(https: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of every answer that has none of these names itself.

    No answer is a page, whatever a browser takes it for, no cache may keep a user's text, and nobody learns where a
    link was followed from.
    """
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-store"),
    ]
    return [*headers, (b"strict-transport-security", b"max-age=31536000")] if https else headers


def _names(certificate: Mapping[str, Any]) -> Iterator[str]:
    """Yield the common name of a certificate, as ``ssl`` tells it, then its alternative names."""
    for attributes in certificate.get("subject", ()):
        yield from (value for name, value in attributes if name == "commonName")
    yield from (value for _, value in certificate.get("subjectAltName", ()))


async def _with(app: Any, known: Message, scope: Message, receive: Receive, send: Send) -> None:
    await app({**scope, **known}, receive, send)
