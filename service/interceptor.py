"""One call from bytes to bytes: parse, guard, answer, serialize, measure. Every call of our own services passes here.

Handlers behind it get a parsed request and either return a reply or raise a ``ServiceError``; they never see metadata,
status codes or metrics. Calls of the standard services (health, reflection) pass untouched.
"""

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from service.errors import Draining, ResponseTooLarge, ServiceError
from service.messages import parse, smaller
from service.metrics import Metrics
from service.pb import interlinear_pb2 as pb
from service.status import code_of, internal_status, pushback, status_of

REQUEST_ID_HEADER = "x-request-id"

_DETAILS_HEADER = "grpc-status-details-bin"  # where clients look for a google.rpc.Status
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET_SECONDS = 0.1  # longer than a call that has reached the process takes to reach the interceptor
_STRAGGLERS_SECONDS = 0.5  # how long calls that keep coming in, such as retries, may put off the end
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_log = structlog.get_logger()

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behavior = Callable[[Message, Context], Awaitable[Message]]


@dataclass(frozen=True)
class _Method:
    service: str
    name: str
    request_type: type[Message]

    @property
    def labels(self) -> tuple[str, str, str]:
        return "unary", self.service, self.name


def _methods() -> dict[str, _Method]:
    """Return every method of the proto by its path."""
    return {
        f"/{service.full_name}/{method.name}": _Method(
            service.full_name, method.name, GetMessageClass(method.input_type)
        )
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no type stubs
    """Wraps each handler of our services.

    Attributes:
        in_flight: Accepted calls being handled now; a call that is refused because of ``close`` is none.
        started: Calls that ever came in, refused ones included.
    """

    def __init__(self, metrics: Metrics, max_response_bytes: int) -> None:
        self.in_flight = 0
        self.started = 0
        self._metrics = metrics
        self._max_response_bytes = max_response_bytes
        self._open = True
        self._methods: Mapping[str, _Method] = _methods()
        for method in self._methods.values():  # a method nobody called yet is 0, not missing
            metrics.requests.rpc_started.labels(*method.labels)
            metrics.requests.rpc_handled.labels(*method.labels, grpc.StatusCode.OK.name)

    def close(self) -> None:
        """Refuse every further call with ``Draining``."""
        self._open = False

    async def quiet(self) -> None:
        """Return when no accepted call is being handled and, for a moment, none has come in.

        Callers that go on trying after ``close`` put that off by half a second at most.
        """
        while self.in_flight:
            await asyncio.sleep(_QUIET_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nothing_comes_in(), _STRAGGLERS_SECONDS)

    async def _nothing_comes_in(self) -> None:
        started = -1
        while self.started != started:
            started = self.started
            await asyncio.sleep(_QUIET_SECONDS)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Return the handler of a call, wrapped if it is one of ours."""
        handler = await continuation(handler_call_details)
        method = self._methods.get(handler_call_details.method)
        if handler is None or method is None:
            return handler

        async def handle(payload: bytes, context: Context) -> bytes:
            return await self._handle(method, handler.unary_unary, payload, context)

        return grpc.unary_unary_rpc_method_handler(handle)  # no (de)serializer: bytes in, bytes out

    async def _handle(self, method: _Method, behavior: Behavior, payload: bytes, context: Context) -> bytes:
        """Run one call, from its first counter to its status."""
        requests = self._metrics.requests
        requests.rpc_started.labels(*method.labels).inc()
        requests.rpc_messages_received.labels(*method.labels).inc()
        started = time.perf_counter()
        request_id = _request_id(context)
        code = grpc.StatusCode.CANCELLED
        accepted = int(self._open)
        self.started += 1
        self._change_in_flight(accepted)
        try:
            reply = await self._answer(method, behavior, payload, context, request_id)
            code = grpc.StatusCode.OK
            requests.rpc_messages_sent.labels(*method.labels).inc()
            context.set_trailing_metadata(((REQUEST_ID_HEADER, request_id),))
            return reply
        except ServiceError as error:
            code = code_of(error)
            requests.errors.labels(error.reason).inc()
            await _abort(context, status_of(error), request_id, pushback(error))
        except asyncio.CancelledError:
            remaining = context.time_remaining()
            if remaining is not None and remaining <= 0:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise
        except Exception:  # the one place: whatever nobody foresaw ends here, told to the log and not to the caller
            code = grpc.StatusCode.INTERNAL
            requests.errors.labels("INTERNAL").inc()
            _log.exception("call failed", method=method.name, request_id=request_id)
            await _abort(context, internal_status(request_id), request_id)
        finally:
            self._change_in_flight(-accepted)
            requests.rpc_handled.labels(*method.labels, code.name).inc()
            requests.rpc_seconds.labels(*method.labels).observe(time.perf_counter() - started)

    async def _answer(
        self, method: _Method, behavior: Behavior, payload: bytes, context: Context, request_id: str
    ) -> bytes:
        """Return the reply's bytes, its metadata stamped with what only the call knows."""
        if not self._open:
            raise Draining("this process is shutting down; send the request again, another replica will answer")
        started = time.perf_counter()
        request = parse(method.request_type, payload)
        reply = await behavior(request, context)
        if "metadata" not in reply.DESCRIPTOR.fields_by_name:
            return bytes(reply.SerializeToString())
        reply.metadata.request_id = request_id
        finished = time.perf_counter()
        reply.metadata.total_seconds = finished - started
        serialized: bytes = reply.SerializeToString()
        self._metrics.stages.seconds.labels(reply.metadata.model, "serialize").observe(time.perf_counter() - finished)
        if len(serialized) > self._max_response_bytes:
            message = f"the reply has {len(serialized)} bytes; this service sends at most {self._max_response_bytes}. "
            raise ResponseTooLarge(message + smaller(request))
        return serialized

    def _change_in_flight(self, change: int) -> None:
        self.in_flight += change
        self._metrics.requests.in_flight.set(self.in_flight)


async def _abort(
    context: Context, status: status_pb2.Status, request_id: str, metadata: tuple[tuple[str, str], ...] = ()
) -> NoReturn:
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    trailing = ((_DETAILS_HEADER, status.SerializeToString()), (REQUEST_ID_HEADER, request_id), *metadata)
    await context.abort(_CODES[status.code], status.message, trailing)
    raise AssertionError("abort returned")


def _request_id(context: Context) -> str:
    """Return the caller's request id if it is harmless, else one made up."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_HEADER and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return uuid.uuid4().hex
