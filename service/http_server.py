"""The HTTP edge, in the same event loop as gRPC: ``/metrics``, ``/healthz``, ``/readyz``, and the routes it is given.

Requests are not logged, so no text of a user can reach a log from here.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from service.errors import InvalidSettings
from service.settings import split_address

_BACKLOG = 128
_STARTUP_POLL_SECONDS = 0.005
_LAST_SECONDS = 1


def create_app(
    registry: CollectorRegistry, is_ready: Callable[[], bool], routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """Return the application.

    Args:
        registry: What ``/metrics`` shows, as Prometheus text or OpenMetrics, whichever the scraper prefers.
        is_ready: Whether new work is welcome; ``/readyz`` answers 200 or 503 accordingly.
        routes: What else is served: the calls and the explorer.
    """

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        return PlainTextResponse("ready\n") if is_ready() else PlainTextResponse("not ready\n", status_code=503)

    probes = [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]
    return Starlette(routes=[*probes, *routes])


@contextlib.asynccontextmanager
async def running(app: Starlette, address: str) -> AsyncIterator[int]:
    """Serve ``app`` on ``address`` while the context lasts; yield the port.

    Raises:
        InvalidSettings: Nothing can listen on that address.
    """
    listener = _listen(address)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
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
    """uvicorn, but signals are the process's business: they drain gRPC first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        message = f"INTERLINEAR_HTTP_ADDRESS={address}: cannot listen there: {error.strerror or error}"
        raise InvalidSettings(message) from None
