"""What every call passes, whichever way it came: read, guard, answer, write, measure.

A transport brings a ``Call`` and gets bytes or a ``Refusal``. The calls behind the gate get a request and a deadline
and either return a reply or raise a ``ServiceError``; they never see metadata, status codes or metrics.
"""

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from service.calls import Behavior, Calls
from service.errors import Draining, ResponseTooLarge, ServiceError
from service.metrics import Metrics
from service.pb import interlinear_pb2 as pb
from service.requests import smaller
from service.status import code_of, internal_status, status_of

REQUEST_ID_HEADER = "x-request-id"
TRANSPORTS = ("grpc", "http")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET_SECONDS = 0.1  # longer than a call that has reached the process takes to reach the gate
_STRAGGLERS_SECONDS = 0.5  # how long calls that keep coming in, such as retries, may put off the end
_log = structlog.get_logger()


class Call(Protocol):
    """One call as a transport brings it.

    Attributes:
        transport: One of ``TRANSPORTS``.
        request_id: What log and reply call it.
    """

    transport: str
    request_id: str

    async def read(self, request_type: type[Message]) -> Any:
        """Return the request; raise ``ServiceError`` where it is none."""

    def deadline(self) -> float | None:
        """Return when, on the running loop's clock, the answer is no longer wanted; None if it always is."""

    async def write(self, reply: Message) -> bytes:
        """Return the reply as it travels."""


@dataclass(frozen=True)
class Method:
    """A call of the proto and what answers it.

    Attributes:
        service: Full name of the service.
        name: Of the method.
        request_type: What it takes.
        behavior: What answers.
    """

    service: str
    name: str
    request_type: type[Message]
    behavior: Behavior

    def labels(self, transport: str) -> tuple[str, str, str, str]:
        """Return the labels of its metrics, in their order."""
        return "unary", self.service, self.name, transport


class Refusal(Exception):
    """What a caller gets instead of a reply.

    Attributes:
        status: Code, message and details, the request id among them.
        error: What went wrong; None where nobody foresaw it.
        request_id: Of the call.
    """

    def __init__(self, status: status_pb2.Status, error: ServiceError | None, request_id: str) -> None:
        super().__init__(status.message)
        status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
        self.status = status
        self.error = error
        self.request_id = request_id


class Gate:
    """The way in to the calls of the proto, for every transport.

    Attributes:
        methods: Every method of the proto, by name.
        in_flight: Accepted calls being answered now; a call that is refused because of ``close`` is none.
        started: Calls that ever came in, refused ones included.
    """

    def __init__(self, calls: Calls, metrics: Metrics, max_response_bytes: int) -> None:
        self.methods: Mapping[str, Method] = _methods(calls)
        self.in_flight = 0
        self.started = 0
        self._metrics = metrics
        self._max_response_bytes = max_response_bytes
        self._open = True
        for method in self.methods.values():  # a method nobody called yet is 0, not missing
            for transport in TRANSPORTS:
                metrics.requests.rpc_started.labels(*method.labels(transport))
                metrics.requests.rpc_handled.labels(*method.labels(transport), grpc.StatusCode.OK.name)

    def close(self) -> None:
        """Refuse every further call with ``Draining``."""
        self._open = False

    async def quiet(self) -> None:
        """Return when no accepted call is being answered and, for a moment, none has come in.

        Callers that go on trying after ``close`` put that off by half a second at most.
        """
        while self.in_flight:
            await asyncio.sleep(_QUIET_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nothing_comes_in(), _STRAGGLERS_SECONDS)

    async def answer(self, method: Method, call: Call) -> bytes:
        """Return the reply to one call, counted from its first byte to its status.

        Raises:
            Refusal: There is none.
        """
        requests, labels = self._metrics.requests, method.labels(call.transport)
        requests.rpc_started.labels(*labels).inc()
        requests.rpc_messages_received.labels(*labels).inc()
        self.started += 1
        started = time.perf_counter()
        code = grpc.StatusCode.CANCELLED
        try:
            reply = await self._answer(method, call)
            code = grpc.StatusCode.OK
            requests.rpc_messages_sent.labels(*labels).inc()
            return reply
        except ServiceError as error:
            code = code_of(error)
            requests.errors.labels(error.reason).inc()
            raise Refusal(status_of(error), error, call.request_id) from error
        except asyncio.CancelledError:
            deadline = call.deadline()
            if deadline is not None and deadline <= asyncio.get_running_loop().time():
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise
        except Exception as error:  # the one place: what nobody foresaw is told to the log and not to the caller
            code = grpc.StatusCode.INTERNAL
            requests.errors.labels("INTERNAL").inc()
            _log.exception("call failed", method=method.name, request_id=call.request_id)
            raise Refusal(internal_status(call.request_id), None, call.request_id) from error
        finally:
            requests.rpc_handled.labels(*labels, code.name).inc()
            requests.rpc_seconds.labels(*labels).observe(time.perf_counter() - started)

    async def _answer(self, method: Method, call: Call) -> bytes:
        """Return the reply's bytes, its metadata stamped with what only the gate knows."""
        self._refuse_if_closed()
        request = await call.read(method.request_type)
        with self._accepted():
            started = time.perf_counter()
            reply = await method.behavior(request, call.deadline())
            if not isinstance(metadata := getattr(reply, "metadata", None), pb.ResponseMetadata):
                return await call.write(reply)
            metadata.request_id = call.request_id
            finished = time.perf_counter()
            metadata.total_seconds = finished - started
            written = await call.write(reply)
            self._metrics.stages.seconds.labels(f"{metadata.model}@{metadata.model_version}", "serialize").observe(
                time.perf_counter() - finished
            )
        if len(written) > self._max_response_bytes:
            message = f"the reply has {len(written)} bytes; this service sends at most {self._max_response_bytes}. "
            raise ResponseTooLarge(message + smaller(request))
        return written

    @contextlib.contextmanager
    def _accepted(self) -> Iterator[None]:
        """Count a call as in flight; one whose request took until ``close`` to arrive is none."""
        self._refuse_if_closed()
        self._change_in_flight(1)
        try:
            yield
        finally:
            self._change_in_flight(-1)

    def _refuse_if_closed(self) -> None:
        if not self._open:
            raise Draining("this process is shutting down; send the request again, another replica will answer")

    def _change_in_flight(self, change: int) -> None:
        self.in_flight += change
        self._metrics.requests.in_flight.set(self.in_flight)

    async def _nothing_comes_in(self) -> None:
        started = -1
        while self.started != started:
            started = self.started
            await asyncio.sleep(_QUIET_SECONDS)


def accepted_request_id(given: object) -> str:
    """Return the caller's request id if it is harmless, else one made up."""
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _methods(calls: Calls) -> dict[str, Method]:
    """Return every method of the proto by its name."""
    behaviors = calls.by_name
    return {
        method.name: Method(service.full_name, method.name, GetMessageClass(method.input_type), behaviors[method.name])
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.name in behaviors
    }
