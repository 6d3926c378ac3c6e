"""The gRPC edge: the calls of one listener, health and reflection on one server."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message

from service import incoming
from service.accepting import abort, accepting_server
from service.errors import DeadlinePassed, InvalidSettings, MessageInvalid, MethodUnknown
from service.gate import Gate
from service.health import Health
from service.incoming import REQUEST_ID_HEADER, Method, Refusal, accepted_request_id
from service.pb import interlinear_pb2 as pb
from service.settings import PREFIX, Settings
from service.standard_calls import add_standard_calls
from service.wire import parse

_MINUTE_MS = 60_000
_LAST_SECONDS = 0.2  # for streams that never end by themselves, such as health Watch
_ARRIVAL_SECONDS = 60.0  # for a whole request to arrive
_READING_SECONDS = 120.0  # how long a client may take to read one reply
_NAMES_IN_CERTIFICATES = ("x509_common_name", "x509_subject_alternative_name")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True)
class Face:
    """What a server shows of the service.

    Attributes:
        setting: Where it listens, by the name of the setting.
        services: Full names of the services that it has, of those in the proto.
        needing_models: Those of them that cannot answer while a model's engine is made anew.
    """

    setting: str
    services: tuple[str, ...]
    needing_models: tuple[str, ...] = ()


PUBLIC = Face(
    "grpc_address",
    tuple(
        service.full_name
        for service in pb.DESCRIPTOR.services_by_name.values()
        if service.full_name != incoming.ADMINISTRATION
    ),
    ("", "interlinear.v1.TranslationService", "interlinear.v1.ExplanationService"),
)
ADMINISTRATION = Face("admin_grpc_address", (incoming.ADMINISTRATION,))


@dataclass(frozen=True)
class GrpcServer:
    """A server that is bound, and not yet started.

    Attributes:
        server: grpc.aio's own.
        port: Where it listens, also when the address asked for port 0.
        face: What it shows.
        health: What health checks and watches see.
    """

    server: grpc.aio.Server
    port: int
    face: Face
    health: Health

    async def start(self) -> None:
        """Listen, and tell health checks so."""
        await self.server.start()
        self.health.tell(("", *self.face.services), serving=True)

    def tell(self, models_ready: bool) -> None:
        """Let health checks know whether the models can answer; without effect once the server is leaving."""
        self.health.tell(self.face.needing_models, models_ready)

    def leave(self) -> None:
        """Tell health checks NOT_SERVING, for good, so that balancers look elsewhere."""
        self.health.leave()

    async def stop(self) -> None:
        """Close every connection."""
        await self.server.stop(_LAST_SECONDS)


def create_server(
    gate: Gate,
    face: Face,
    settings: Settings,
    credentials: grpc.ServerCredentials | None = None,
    lost: Callable[[], None] = lambda: None,
) -> GrpcServer:
    """Return a server over ``gate``, bound to the address of ``face``; call it inside the loop that will run it.

    Args:
        gate: What every call passes.
        face: What the server shows.
        settings: Addresses and sizes.
        credentials: What connections are secured with; None for plain text.
        lost: Called if the server accepts no more calls, though nobody stopped it.

    Raises:
        InvalidSettings: Nothing can listen on that address.
    """
    server = accepting_server(_options(settings), _refusing(face), lost)
    for service in face.services:
        handlers = {
            method.name: _handler(gate, method, credentials is not None)
            for method in gate.methods.values()
            if method.service == service
        }
        server.add_registered_method_handlers(service, handlers)
    checks = Health(("", *face.services))
    add_standard_calls(server, checks, face.services)
    address: str = getattr(settings, face.setting)
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        variable = PREFIX + face.setting.upper()
        message = f"{variable}={address}: cannot listen there; is it in use, or not this machine's?"
        raise InvalidSettings(message) from None
    return GrpcServer(server, port, face, checks)


class _GrpcCall:
    """A call that came over gRPC.

    Args:
        context: gRPC's own; of a call that streams its requests, so that nothing is read before it is asked for.
        secured: Whether the connection may have come with a certificate, which takes a while to look up.
    """

    transport = "grpc"

    def __init__(self, context: Context, secured: bool) -> None:
        self.headers: Mapping[str, str] = dict(context.invocation_metadata() or ())
        self.request_id = accepted_request_id(self.headers.get(REQUEST_ID_HEADER))
        self.certificate_names: Sequence[str] = _certificate_names(context) if secured else ()
        self.unsent = ExitStack()
        self._context = context

    async def read(self, request_type: type[Message]) -> Message:
        """Return the request.

        Raises:
            ServiceError: It is none, or did not arrive in time.
        """
        try:
            async with asyncio.timeout(_ARRIVAL_SECONDS):
                payload = await self._context.read()  # more than one is never read: to look would take 40 µs a call
        except TimeoutError:
            message = f"the whole request has not arrived within {_ARRIVAL_SECONDS:g} s; send it at once"
            raise DeadlinePassed(message) from None
        if payload is grpc.aio.EOF:
            raise MessageInvalid("", "this call takes one message, and none came; send one")
        return parse(request_type, payload)

    async def requests(self, request_type: type[Message]) -> AsyncGenerator[Message, None]:
        """Yield the requests, each read when it is asked for."""
        while (payload := await self._context.read()) is not grpc.aio.EOF:
            yield parse(request_type, payload)

    def deadline(self) -> float | None:
        remaining = self._context.time_remaining()
        return None if remaining is None else asyncio.get_running_loop().time() + remaining

    async def write(self, reply: Message) -> bytes:
        return bytes(reply.SerializeToString())


def _certificate_names(context: Context) -> tuple[str, ...]:
    """Return who the caller's certificate says it is: its common name, then its alternative names."""
    found = context.auth_context()
    return tuple(name.decode(errors="replace") for key in _NAMES_IN_CERTIFICATES for name in found.get(key, ()))


def _handler(gate: Gate, method: Method, secured: bool) -> grpc.RpcMethodHandler:
    """Return what gRPC calls for ``method``: bytes in, bytes out.

    To gRPC every request is a stream. One that it knows to be a single message it would read whole, as slowly as it
    comes and whoever sends it, before the gate is asked.
    """
    if method.kind == "unary":
        return grpc.stream_unary_rpc_method_handler(_answering(gate, method, secured))
    return grpc.stream_stream_rpc_method_handler(_streaming(gate, method, secured))


def _answering(gate: Gate, method: Method, secured: bool) -> Callable[[object, Context], Awaitable[bytes]]:
    async def handle(_: object, context: Context) -> bytes:
        call = _GrpcCall(context, secured)
        task = asyncio.current_task()
        assert task is not None  # gRPC gives each call one, which lasts until the client has read the reply
        try:
            reply = await gate.answer(method, call)
        except Refusal as refusal:
            await abort(context, refusal)
        stalled = asyncio.get_running_loop().call_later(_READING_SECONDS, task.cancel)

        def read(_: Context) -> None:
            stalled.cancel()
            call.unsent.close()

        context.add_done_callback(read)
        context.set_trailing_metadata(((REQUEST_ID_HEADER, call.request_id),))
        return reply

    return handle


def _streaming(gate: Gate, method: Method, secured: bool) -> Callable[[object, Context], Awaitable[None]]:
    async def handle(_: object, context: Context) -> None:
        call, has_begun = _GrpcCall(context, secured), False
        try:
            async with contextlib.aclosing(gate.stream(method, call)) as replies:
                async for reply in replies:
                    try:
                        async with asyncio.timeout(_READING_SECONDS):
                            if not has_begun:  # with the first reply, they would count as sent only when it is read
                                await context.send_initial_metadata(())
                                has_begun = True
                            await context.write(reply)
                    except asyncio.CancelledError as cancelled:
                        await replies.athrow(cancelled)  # the gate knows whether the caller is owed a reason
                        raise
        except Refusal as refusal:
            await abort(context, refusal)
        except TimeoutError:  # the client would not read a status either
            raise asyncio.CancelledError from None
        context.set_trailing_metadata(((REQUEST_ID_HEADER, call.request_id),))

    return handle


def _refusing(face: Face) -> Callable[[Context], Awaitable[None]]:
    """Return what answers whatever nothing else does."""
    message = f"there is no such call here; this listener has {', '.join(face.services)}"

    async def refuse(context: Context) -> None:
        given = dict(context.invocation_metadata() or ()).get(REQUEST_ID_HEADER)
        await abort(context, Refusal.of(MethodUnknown(message), accepted_request_id(given)))

    return refuse


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
        ("grpc.http2.bdp_probe", 0),  # it would take in megabytes of a stream that nobody has read yet
        # Of one connection. A burst beyond it is refused by gRPC itself, as UNAVAILABLE: clients learn of it too late.
        ("grpc.max_concurrent_streams", 16_384),
        ("grpc.http.overload_protection", 0),  # it refuses streams near that limit, of clients that know it too
        ("grpc.max_allowed_incoming_connections", 1024),
        ("grpc.server_handshake_timeout_ms", _MINUTE_MS // 6),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.absolute_max_metadata_size", 32 << 10),
        # Connections are let go in turn, so that clients find replicas that were added; what is open may be finished.
        ("grpc.max_connection_age_ms", 30 * _MINUTE_MS),
        ("grpc.max_connection_age_grace_ms", 30 * _MINUTE_MS),
        ("grpc.max_connection_idle_ms", 15 * _MINUTE_MS),
        ("grpc.keepalive_time_ms", 5 * _MINUTE_MS),
        ("grpc.keepalive_timeout_ms", _MINUTE_MS // 3),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _MINUTE_MS // 6),
        ("grpc.http2.max_ping_strikes", 2),
    )
