"""The services that every gRPC server has, health and reflection, by gRPC's own servicers.

They get bytes and are parsed here: gRPC answers bytes that are no message with UNKNOWN and nothing else.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.accepting import abort
from service.errors import ServiceError
from service.incoming import REQUEST_ID_HEADER, Refusal, accepted_request_id
from service.wire import parse


def add_standard_calls(server: grpc.aio.Server, checks: health.aio.HealthServicer, services: Sequence[str]) -> None:
    """Register health checks that ask ``checks``, and reflection that tells of ``services`` and of these two."""
    server.add_registered_method_handlers(
        health.SERVICE_NAME,
        {
            "Check": grpc.unary_unary_rpc_method_handler(_parsed(checks.Check), response_serializer=_bytes),
            "Watch": grpc.unary_stream_rpc_method_handler(_parsed(checks.Watch), response_serializer=_bytes),
        },
    )
    told = reflection.aio.ReflectionServicer((*services, health.SERVICE_NAME, reflection.SERVICE_NAME))
    handler = grpc.stream_stream_rpc_method_handler(_reflecting(told), response_serializer=_bytes)
    server.add_registered_method_handlers(reflection.SERVICE_NAME, {"ServerReflectionInfo": handler})


def _parsed(answer: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[bytes, Any], Awaitable[Any]]:
    async def handle(payload: bytes, context: Any) -> Any:
        try:
            request = parse(health_pb2.HealthCheckRequest, payload)
        except ServiceError as error:
            await abort(context, _refusal(error, context))
        return await answer(request, context)

    return handle


def _reflecting(servicer: Any) -> Callable[[AsyncIterator[bytes], Any], AsyncGenerator[Any, None]]:
    async def handle(payloads: AsyncIterator[bytes], context: Any) -> AsyncGenerator[Any, None]:
        async def requests() -> AsyncGenerator[Message, None]:
            async for payload in payloads:
                yield parse(reflection_pb2.ServerReflectionRequest, payload)

        try:
            async for reply in servicer.ServerReflectionInfo(requests(), context):
                yield reply
        except ServiceError as error:
            await abort(context, _refusal(error, context))

    return handle


def _refusal(error: ServiceError, context: Any) -> Refusal:
    given = dict(context.invocation_metadata() or ()).get(REQUEST_ID_HEADER)
    return Refusal.of(error, accepted_request_id(given))


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString())
