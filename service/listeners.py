"""Everything that listens: calls over gRPC and HTTP for whoever uses the service, and others for whoever runs it.

They share one gate, so they open, drain and stop as one.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute

from service import exposition, json_api, pages, web
from service.access.entrance import Access
from service.gate import Gate
from service.grpc_server import ADMINISTRATION, PUBLIC, Face, GrpcServer, create_server
from service.http_server import create_app, running
from service.settings import Settings

_OFF = "off"


class Addresses(NamedTuple):
    """Where the service listens, ``host:port`` with the ports that were bound; None where it does not."""

    grpc_address: str
    http_address: str
    admin_grpc_address: str | None
    admin_http_address: str | None


class Listeners:
    """The listeners of one process; its methods belong to one event loop.

    Attributes:
        lost: Whether a server accepts no more calls, though nobody stopped it; nothing is ready then.

    Args:
        gate: What every call passes.
        settings: Addresses and sizes.
        access: Who may see the metrics, and what connections are secured with.
        models_ready: Whether the models can answer now.
    """

    def __init__(self, gate: Gate, settings: Settings, access: Access, models_ready: Callable[[], bool]) -> None:
        self._gate = gate
        self._settings = settings
        self._access = access
        self._models_ready = models_ready
        self._servers: list[GrpcServer] = []
        self._welcoming = False
        self.lost = False

    @contextlib.asynccontextmanager
    async def bound(self, registry: CollectorRegistry) -> AsyncIterator[Addresses]:
        """Hold every address while the context lasts; until ``open``, nothing but HTTP is answered.

        Args:
            registry: What ``/metrics`` shows.

        Raises:
            InvalidSettings: Nothing can listen on an address.
        """
        gate, settings, limit = self._gate, self._settings, self._settings.max_request_bytes
        async with contextlib.AsyncExitStack() as stack:
            admin_grpc = admin_http = None
            grpc = self._bind(PUBLIC)
            routes = [*json_api.routes(gate, json_api.PUBLIC, limit), *pages.routes(web.FILES)]
            http = await stack.enter_async_context(self._running("http_address", routes))
            if settings.admin_grpc_address != _OFF:
                admin_grpc = self._bind(ADMINISTRATION)
            if settings.admin_http_address != _OFF:
                routes = [
                    exposition.route(registry, self._access),
                    *json_api.routes(gate, json_api.ADMINISTRATION, limit),
                ]
                admin_http = await stack.enter_async_context(self._running("admin_http_address", routes))
            yield Addresses(grpc, http, admin_grpc, admin_http)

    async def open(self) -> None:
        """Let calls in, and tell health checks so."""
        for server in self._servers:
            await server.start()
        self._welcoming = True

    def tell(self) -> None:
        """Let health checks know whether the models can answer now."""
        for server in self._servers:
            server.tell(self._models_ready())

    async def drain(self, delay_seconds: float, limit_seconds: float) -> int:
        """Stop without losing an accepted call; return how many had to be given up all the same.

        Health says NOT_SERVING first, so that balancers look elsewhere, while calls are still taken for
        ``delay_seconds``. Later ones are refused with UNAVAILABLE. Then the accepted ones, streams among them, are
        finished, for at most ``limit_seconds``; what is left is answered with UNAVAILABLE too, and the servers stop.
        """
        self._welcoming = False
        for server in self._servers:
            server.leave()
        await asyncio.sleep(delay_seconds)
        self._gate.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gate.quiet(), timeout=limit_seconds)
        given_up = self._gate.give_up()
        await asyncio.gather(*(server.stop() for server in self._servers))
        return given_up

    def _lose(self) -> None:
        self.lost = True

    def _bind(self, face: Face) -> str:
        certificates = self._access.certificates
        credentials = certificates.grpc_credentials() if certificates else None
        server = create_server(self._gate, face, self._settings, credentials, self._lose)
        self._servers.append(server)
        return _with_port(getattr(self._settings, face.setting), server.port)

    @contextlib.asynccontextmanager
    async def _running(self, setting: str, routes: Sequence[BaseRoute]) -> AsyncIterator[str]:
        certificates, address = self._access.certificates, getattr(self._settings, setting)
        security = certificates.ssl_context() if certificates else None
        app = create_app(self._is_ready, routes, open_to_all=not _is_guarded_by_loopback_alone(self._settings))
        async with running(app, address, setting, security) as port:
            yield _with_port(address, port)

    def _is_ready(self) -> bool:
        return self._welcoming and not self.lost and self._models_ready()


def _is_guarded_by_loopback_alone(settings: Settings) -> bool:
    """Return whether the address is all that keeps strangers out.

    A page of another name has no key to send, and no certificate for its name.
    """
    return settings.credentials is None and settings.tls_certificate is None and not settings.allow_unprotected


def _with_port(address: str, port: int) -> str:
    """Return ``address`` with the port that was bound, which differs when it asked for port 0."""
    return f"{address.rpartition(':')[0]}:{port}"
