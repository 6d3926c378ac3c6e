"""The services that every gRPC server has, health and reflection, open to everybody and therefore bounded.

They get bytes and are parsed here: gRPC answers bytes that are no message with UNKNOWN and nothing else.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.accepting import abort
from service.errors import ConcurrencyExceeded, DeadlinePassed, MessageInvalid, ServiceError
from service.health import Health
from service.incoming import REQUEST_ID_HEADER, Refusal, accepted_request_id
from service.wire import parse

_MOST_OPEN = 1024  # watches and reflections, all together
_RETRY_SECONDS = 10.0  # nobody knows when one of them ends
_ARRIVAL_SECONDS = 5.0  # for a health check to arrive, which is a few bytes
_SILENCE_SECONDS = 120.0  # how long a reflection stays open for a client that asks nothing
_READING_SECONDS = 60.0  # how long a client may take to read one reply

_Serve = Callable[[Any], Awaitable[None]]


def add_standard_calls(server: grpc.aio.Server, checks: Health, services: Sequence[str]) -> None:
    """Register health checks that ask ``checks``, and reflection that tells of ``services`` and of these two."""
    told = reflection.aio.ReflectionServicer((*services, health.SERVICE_NAME, reflection.SERVICE_NAME))
    places = _Places()

    async def check(context: Any) -> None:
        request = await _request(context)
        await _write(context, health_pb2.HealthCheckResponse(status=checks.status(request.service)))

    async def watch(context: Any) -> None:
        with places.one():
            request = await _request(context)
            async with contextlib.aclosing(checks.statuses(request.service)) as statuses:
                async for status in statuses:
                    await _write(context, health_pb2.HealthCheckResponse(status=status))

    async def reflect(context: Any) -> None:
        with places.one():
            async for reply in told.ServerReflectionInfo(_questions(context), context):
                await _write(context, reply)

    server.add_registered_method_handlers(health.SERVICE_NAME, {"Check": _handler(check), "Watch": _handler(watch)})
    server.add_registered_method_handlers(reflection.SERVICE_NAME, {"ServerReflectionInfo": _handler(reflect)})


class _Places:
    """Bounds how many calls that last are open."""

    def __init__(self) -> None:
        self._open = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Take a place while the context lasts.

        Raises:
            ConcurrencyExceeded: There is none.
        """
        if self._open >= _MOST_OPEN:
            message = f"{_MOST_OPEN} health watches and reflections are open, and no more may be; use Check, or wait"
            raise ConcurrencyExceeded(message, _RETRY_SECONDS)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def _handler(serve: _Serve) -> grpc.RpcMethodHandler:
    """Return what gRPC calls; one for streams both ways, so that no message is taken in before it is asked for."""

    async def handle(_: object, context: Any) -> None:
        try:
            await serve(context)
        except ServiceError as error:
            given = dict(context.invocation_metadata() or ()).get(REQUEST_ID_HEADER)
            await abort(context, Refusal.of(error, accepted_request_id(given)))

    return grpc.stream_stream_rpc_method_handler(handle)


async def _request(context: Any) -> Any:
    """Return the only message of a health check.

    Raises:
        ServiceError: It is none, or did not come in time.
    """
    payload = await _arrived(context, _ARRIVAL_SECONDS)
    if payload is grpc.aio.EOF:
        raise MessageInvalid("", "this call takes one message, and none came")
    return parse(health_pb2.HealthCheckRequest, payload)


async def _questions(context: Any) -> AsyncGenerator[Message, None]:
    while (payload := await _arrived(context, _SILENCE_SECONDS)) is not grpc.aio.EOF:
        yield parse(reflection_pb2.ServerReflectionRequest, payload)


async def _arrived(context: Any, seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await context.read()
    except TimeoutError:
        raise DeadlinePassed(f"no message came for {seconds:g} s; call again when there is one") from None


async def _write(context: Any, reply: Message) -> None:
    try:
        async with asyncio.timeout(_READING_SECONDS):
            await context.write(reply.SerializeToString())
    except TimeoutError:  # the client would not read a status either
        raise asyncio.CancelledError from None
