"""The HTTP edge, in the same event loop as gRPC: probes, the routes it is given, and a listener that runs them.

Requests are not logged, so no text of a user can reach a log from here.
"""

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Container, Iterator, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from service.errors import InvalidSettings, MethodUnknown, PermissionDenied
from service.http_connection import MOST_HEADER_BYTES, HttpConnection, Message, Receive, Send, security_headers
from service.incoming import REQUEST_ID_HEADER, Refusal, accepted_request_id
from service.json_api import refused
from service.settings import PREFIX, split_address
from service.status import internal_status

_MOST_CONNECTIONS = 1024  # of one listener
_BACKLOG = 1024  # connections of a burst that wait to be accepted
_TLS_SECONDS = 10.0  # for a handshake, and for a client to say goodbye; asyncio's own are 60 and 30
_STARTUP_POLL_SECONDS = 0.005
_LAST_SECONDS = 1


def create_app(is_ready: Callable[[], bool], routes: Sequence[BaseRoute] = (), open_to_all: bool = True) -> Starlette:
    """Return the application of one listener.

    Args:
        is_ready: Whether new work is welcome; ``/readyz`` answers 200 or 503 accordingly.
        routes: What else is served.
        open_to_all: Whether to answer whatever name the listener is called by; if not, only probes are.
    """

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        return PlainTextResponse("ready\n") if is_ready() else PlainTextResponse("not ready\n", status_code=503)

    probes = [Route("/healthz", healthz), Route("/readyz", readyz)]
    handlers = {HTTPException: _nothing_here, Exception: _broken}
    middleware = [] if open_to_all else [Middleware(_AtHome, {probe.path for probe in probes})]
    app = Starlette(routes=[*probes, *routes], middleware=middleware, exception_handlers=handlers)
    app.router.redirect_slashes = False  # a path is served or it is not
    return app


@contextlib.asynccontextmanager
async def running(
    app: Starlette, address: str, setting: str = "http_address", security: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve ``app`` while the context lasts; yield the port.

    Args:
        app: From ``create_app``.
        address: Where to listen, ``host:port``.
        setting: Which setting says so.
        security: What connections are secured with; None for plain text.

    Raises:
        InvalidSettings: Nothing can listen on that address.
    """
    listener = _listen(address, setting)
    config = uvicorn.Config(
        _Secured(app, security_headers(security is not None)),
        http=HttpConnection,
        ssl_context_factory=None if security is None else lambda config, default: security,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        log_config=None,
        log_level="error",  # what is not HTTP is the sender's fault, and nobody here can do anything about it
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=_LAST_SECONDS,
        server_header=False,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(_STARTUP_POLL_SECONDS)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """uvicorn, but TLS has bounds, and signals are the process's business: they drain gRPC first."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        seconds = _TLS_SECONDS if self.config.ssl else None
        self.servers = [
            await loop.create_server(
                lambda: HttpConnection(self.config, self.server_state, self.lifespan.state),
                sock=listener,
                ssl=self.config.ssl,
                backlog=_BACKLOG,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=seconds,
            )
            for listener in sockets or ()
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Listener(socket.socket):
    """A listening socket, at most ``_MOST_CONNECTIONS`` connections of which are open; the next is closed at once.

    They are counted here, as no protocol hears of a connection before its handshake is done.
    """

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(fileno=bound.detach())
        self._accepted: set[socket.socket] = set()

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection and whose it is.

        Raises:
            ConnectionAbortedError: It was one too many; the event loop then asks again later.
        """
        connection, address = super().accept()
        if len(self._accepted) >= _MOST_CONNECTIONS:
            self._accepted = {accepted for accepted in self._accepted if accepted.fileno() >= 0}
        if len(self._accepted) >= _MOST_CONNECTIONS:
            connection.close()
            raise ConnectionAbortedError
        self._accepted.add(connection)
        return connection, address


class _Secured:
    """An application, every answer of which has the headers given unless it has its own."""

    def __init__(self, app: Starlette, headers: list[tuple[bytes, bytes]]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = [header for header in self._headers if header[0] not in own]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, send_secured)


class _AtHome:
    """An application that answers only who calls this machine by a name of its own, except at paths ``open_to_all``.

    A page from elsewhere may let its own name mean 127.0.0.1 (DNS rebinding): to a browser, what it asks then is of the
    same origin. The name that it was asked for is all that tells.
    """

    def __init__(self, app: ASGIApp, open_to_all: Container[str]) -> None:
        self._app = app
        self._open_to_all = open_to_all

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] in self._open_to_all or _is_of_this_machine(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
            return
        message = (
            "without credentials only this machine is served, under localhost, 127.0.0.1 or [::1], and the host asked "
            "for has another name; behind a proxy that keeps strangers out, set INTERLINEAR_ALLOW_UNPROTECTED=true"
        )
        request_id = accepted_request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        await refused(Refusal.of(PermissionDenied(message), request_id))(scope, receive, send)


def _is_of_this_machine(host: str) -> bool:
    """Return whether a ``host`` header, with a port or without, can only mean this machine."""
    name = re.sub(r":[0-9]*$", "", host).lower()
    try:
        return name == "localhost" or ipaddress.ip_address(re.sub(r"^\[(.*:.*)\]$", r"\1", name)).is_loopback
    except ValueError:
        return False


async def _nothing_here(request: Request, error: Exception) -> Response:
    """Answer a path that nothing is served at, or a method that it does not take."""
    assert isinstance(error, HTTPException)  # this handler is registered for no other
    message = "nothing is served at this path here; docs/api.md has the routes"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        message = f"this path takes {headers['Allow']} only"
    request_id = accepted_request_id(request.headers.get(REQUEST_ID_HEADER))
    return refused(Refusal.of(MethodUnknown(message), request_id), headers, error.status_code)


async def _broken(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw; uvicorn logs it afterwards."""
    request_id = accepted_request_id(request.headers.get(REQUEST_ID_HEADER))
    return refused(Refusal(internal_status(request_id), None, request_id))


def _listen(address: str, setting: str) -> socket.socket:
    host, port = split_address(address)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return _Listener(socket.create_server((host, port), family=family, backlog=_BACKLOG))
    except OSError as error:
        message = f"{PREFIX}{setting.upper()}={address}: cannot listen there: {error.strerror or error}"
        raise InvalidSettings(message) from None
