"""The gRPC edge: our services, health and reflection on one server, and how it drains."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.errors import InvalidSettings
from service.gate import REQUEST_ID_HEADER, Gate, Method, Refusal, accepted_request_id
from service.pb import interlinear_pb2 as pb
from service.settings import Settings
from service.status import pushback
from service.wire import parse

SERVICES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())

_DETAILS_HEADER = "grpc-status-details-bin"  # where clients look for a google.rpc.Status
_MINUTE_MS = 60_000
_LAST_SECONDS = 0.2  # for streams that never end by themselves, such as health Watch
_CODES = {code.value[0]: code for code in grpc.StatusCode}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True)
class GrpcServer:
    """A server that is bound, and not yet started.

    Attributes:
        server: grpc.aio's own.
        port: Where it listens, also when the address asked for port 0.
        gate: What every call of our services passes.
        health: What health checks and watches see.
    """

    server: grpc.aio.Server
    port: int
    gate: Gate
    health: health.aio.HealthServicer

    async def start(self) -> None:
        """Listen, and tell health checks so."""
        await self.server.start()
        for name in ("", *SERVICES):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, delay_seconds: float, limit_seconds: float) -> bool:
        """Stop without losing an accepted call, of any transport; return whether all of them were answered.

        Health says NOT_SERVING first, so that balancers look elsewhere, while calls are still taken for
        ``delay_seconds``. Later ones are refused with UNAVAILABLE. Then the accepted ones are finished, for at most
        ``limit_seconds``, and the server stops.
        """
        with contextlib.suppress(TimeoutError):  # a watcher that does not read must not hold up the others
            await asyncio.wait_for(self.health.enter_graceful_shutdown(), timeout=1.0)
        await asyncio.sleep(delay_seconds)
        self.gate.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.gate.quiet(), timeout=limit_seconds)
        answered = self.gate.in_flight == 0
        await self.server.stop(_LAST_SECONDS)
        return answered


def create_server(gate: Gate, settings: Settings) -> GrpcServer:
    """Return a server over ``gate``, bound to ``settings.grpc_address``; call it inside the loop that will run it.

    Raises:
        InvalidSettings: Nothing can listen on that address.
    """
    server = grpc.aio.server(options=_options(settings))
    for service in SERVICES:
        handlers = {
            # no (de)serializer: bytes in, bytes out
            method.name: grpc.unary_unary_rpc_method_handler(_handler(gate, method))
            for method in gate.methods.values()
            if method.service == service
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(settings.grpc_address)
    except RuntimeError:
        address = settings.grpc_address
        message = f"INTERLINEAR_GRPC_ADDRESS={address}: cannot listen there; is it in use, or not this machine's?"
        raise InvalidSettings(message) from None
    return GrpcServer(server, port, gate, checks)


class _GrpcCall:
    """A call that came over gRPC."""

    transport = "grpc"

    def __init__(self, payload: bytes, context: Context) -> None:
        self.request_id = accepted_request_id(dict(context.invocation_metadata() or ()).get(REQUEST_ID_HEADER))
        self._payload = payload
        self._context = context

    async def read(self, request_type: type[Message]) -> Message:
        return parse(request_type, self._payload)

    def deadline(self) -> float | None:
        remaining = self._context.time_remaining()
        return None if remaining is None else asyncio.get_running_loop().time() + remaining

    async def write(self, reply: Message) -> bytes:
        return bytes(reply.SerializeToString())


def _handler(gate: Gate, method: Method) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def handle(payload: bytes, context: Context) -> bytes:
        call = _GrpcCall(payload, context)
        try:
            reply = await gate.answer(method, call)
        except Refusal as refusal:
            await _abort(context, refusal)
        context.set_trailing_metadata(((REQUEST_ID_HEADER, call.request_id),))
        return reply

    return handle


async def _abort(context: Context, refusal: Refusal) -> NoReturn:
    status = refusal.status
    trailing = (
        (_DETAILS_HEADER, status.SerializeToString()),
        (REQUEST_ID_HEADER, refusal.request_id),
        *(pushback(refusal.error) if refusal.error else ()),
    )
    await context.abort(_CODES[status.code], status.message, trailing)
    raise AssertionError("abort returned")


def _options(settings: Settings) -> Sequence[tuple[str, int]]:
    """Return every gRPC option that matters, none left to a default that may change."""
    return (
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", settings.max_response_bytes),
        # Admission is the scheduler's: it answers RESOURCE_EXHAUSTED with a time to retry. Below these limits gRPC
        # itself answers a burst of more than about 1,000 calls with a bare CANCELLED.
        ("grpc.server.max_pending_requests", 1_000_000),
        ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
        ("grpc.server_max_unrequested_time_in_server", 3600),  # seconds; by default it cancels what waited for 30
        ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share its calls
        ("grpc.keepalive_time_ms", 5 * _MINUTE_MS),
        ("grpc.keepalive_timeout_ms", _MINUTE_MS // 3),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _MINUTE_MS // 6),
    )
