"""What every call passes, whichever way it came: admit, read, charge, answer, write, measure.

A transport brings a ``Call`` and gets bytes or a ``Refusal``; what is behind sees no metadata, status codes or metrics.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import structlog
from google.protobuf.message import Message

from service import logs, tracing
from service.access.entrance import Access
from service.access.principals import Principal, asking
from service.admission import calling
from service.calls import Behavior, Streaming
from service.errors import DeadlinePassed, Draining, QuotaExceeded, ResponseTooLarge, ServiceError
from service.incoming import ADMINISTRATION, TRANSPORTS, Call, Method, Refusal, characters_in, key_of, methods_of
from service.memory import MemoryCeiling
from service.metrics import Metrics
from service.metrics.requests import RequestMetrics
from service.pb import interlinear_pb2 as pb
from service.requests import smaller
from service.status import code_of, internal_status

_QUIET_SECONDS = 0.1  # longer than a call that has reached the process takes to reach the gate
_STRAGGLERS_SECONDS = 0.5  # how long calls that keep coming in, such as retries, may put off the end
_SILENCE_SECONDS = 300.0  # how long a stream stays open for a client that sends nothing
_log = structlog.get_logger()


@dataclass(frozen=True)
class Bounds:
    """What replies may take.

    Attributes:
        max_response_bytes: Size of one reply message.
        memory: Of the process, and of all replies that no transport has got rid of yet.
    """

    max_response_bytes: int
    memory: MemoryCeiling


class _Times(NamedTuple):
    """When a call arrived and when it was accepted, by ``time.perf_counter``."""

    arrived: float
    accepted: float


class _Meters:
    """The metrics of one method over one transport, found once instead of at every call."""

    def __init__(self, requests: RequestMetrics, labels: tuple[str, str, str, str]) -> None:
        self.started = requests.rpc_started.labels(*labels)
        self.received = requests.rpc_messages_received.labels(*labels)
        self.sent = requests.rpc_messages_sent.labels(*labels)
        self.seconds = requests.rpc_seconds.labels(*labels)
        self._handled, self._labels = requests.rpc_handled, labels
        self._handled_well = self._handled.labels(*labels, grpc.StatusCode.OK.name)

    def handled(self, code: grpc.StatusCode) -> None:
        """Count a call that ended with ``code``."""
        if code is grpc.StatusCode.OK:
            self._handled_well.inc()
        else:
            self._handled.labels(*self._labels, code.name).inc()


class Gate:
    """The way in to the calls of the proto, for every transport and every listener.

    Attributes:
        methods: The methods that are answered, by name.
        in_flight: Accepted calls being answered now; a call that is refused because of ``close`` is none.
        started: Calls that ever came in, refused ones included.
    """

    def __init__(
        self,
        behaviors: Mapping[str, Behavior],
        streams: Mapping[str, Streaming],
        access: Access,
        metrics: Metrics,
        bounds: Bounds,
    ) -> None:
        self.methods = methods_of(behaviors, streams)
        self.in_flight = 0
        self.started = 0
        self._access = access
        self._metrics = metrics
        self._bounds = bounds
        self._open = True
        self._gave_up = False
        self._unread = 0  # replies of calls that are answered, which their callers have not taken yet
        self._tasks: set[asyncio.Task[Any]] = set()
        self._meters = {
            (name, transport): _Meters(metrics.requests, method.labels(transport))
            for name, method in self.methods.items()
            for transport in TRANSPORTS
        }

    def close(self) -> None:
        """Refuse every further call with ``Draining``."""
        self._open = False

    async def quiet(self) -> None:
        """Return when every accepted call is answered, its reply taken, and, for a moment, none has come in.

        Callers that go on trying after ``close`` put that off by half a second at most.
        """
        while self.in_flight or self._unread:
            await asyncio.sleep(_QUIET_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nothing_comes_in(), _STRAGGLERS_SECONDS)

    def give_up(self) -> int:
        """Answer every call that is still open with ``Draining``.

        Returns:
            How many of them had been accepted, with those whose reply has not been taken.
        """
        self._gave_up = True
        for task in self._tasks:
            task.cancel()
        return self.in_flight + self._unread

    async def answer(self, method: Method, call: Call) -> bytes:
        """Return the reply to one call; until the transport has got rid of it, its sender has a call open.

        Raises:
            Refusal: There is none.
        """
        arrived = time.perf_counter()
        with self._measured(method, call), contextlib.ExitStack() as held:
            principal = held.enter_context(self._admitted(method, call))
            request = await self._read(method, call, principal)
            with self._accepted():
                times = _Times(arrived, time.perf_counter())
                tracing.record("admission", times.accepted - times.arrived)
                reply: Any = await method.behavior(request, call.deadline())  # type: ignore[misc]  # one that is unary
                written = await self._written(method, call, request, reply, times)
            held.enter_context(self._held_until_read(len(written)))
            call.unsent.push(held.pop_all())
            return written

    async def stream(self, method: Method, call: Call) -> AsyncGenerator[bytes, None]:
        """Yield the replies to one call, each when the one before it is on its way; close it where it is left early.

        Raises:
            Refusal: There are none, or no more.
        """
        arrived = time.perf_counter()
        with self._measured(method, call), self._admitted(method, call) as principal, self._counted_as_open():
            if method.kind == "bidi_stream":
                self._charge_request(principal)
                request: Any = method.request_type()
                given: Any = self._requests(method, call, principal)
            else:
                given = request = await self._read(method, call, principal)
            with self._accepted():
                times = _Times(arrived, time.perf_counter())
                tracing.record("admission", times.accepted - times.arrived)
                replies: Any = method.behavior(given, call.deadline())
                async with contextlib.aclosing(replies):
                    while (reply := await _next(replies, call.deadline())) is not None:
                        written = await self._written(method, call, request, reply, times)
                        with self._bounds.memory.unsent(len(written)):
                            yield written

    @contextlib.contextmanager
    def _measured(self, method: Method, call: Call) -> Iterator[None]:
        """Count, time, log and trace a call, and turn whatever goes wrong with it into what its caller is told."""
        meters, task = self._meters[method.name, call.transport], asyncio.current_task()
        assert task is not None  # a call is answered in some task
        with logs.bound(request_id=call.request_id), tracing.serving(method.service, method.name, call.headers):
            meters.started.inc()
            self.started += 1
            self._tasks.add(task)
            started = time.perf_counter()
            code = grpc.StatusCode.CANCELLED
            try:
                yield
                code = grpc.StatusCode.OK
            except ServiceError as error:
                code = code_of(error)
                raise self._refused(error, call) from error
            except asyncio.CancelledError:
                if self._gave_up:
                    code = grpc.StatusCode.UNAVAILABLE
                    task.uncancel()
                    message = "this process shuts down before the call is done; another replica will take it"
                    raise self._refused(Draining(message), call) from None
                deadline = call.deadline()
                if deadline is not None and deadline <= asyncio.get_running_loop().time():
                    code = grpc.StatusCode.DEADLINE_EXCEEDED
                raise
            except Exception as error:  # the one place: what nobody foresaw is told to the log and not to the caller
                code = grpc.StatusCode.INTERNAL
                self._metrics.requests.errors.labels("INTERNAL").inc()
                _log.exception("call failed", method=method.name)
                raise Refusal(internal_status(call.request_id), None, call.request_id) from error
            finally:
                self._tasks.discard(task)
                meters.handled(code)
                meters.seconds.observe(time.perf_counter() - started, tracing.exemplar())
                tracing.answered(code.name)

    @contextlib.contextmanager
    def _admitted(self, method: Method, call: Call) -> Iterator[Principal]:
        """Let a call in if its sender may make it now, and there is room for it."""
        self._refuse_if_closed()
        principal = self._access.admit(key_of(call.headers), call.certificate_names, method.name)
        asking.set(principal)  # the task ends with the call
        calling.set(object())  # its sentences take turns with those of other calls
        with self._access.quotas.open_call(principal):
            if method.service != ADMINISTRATION:  # which may free memory
                self._bounds.memory.check(self.in_flight)
            yield principal

    async def _read(self, method: Method, call: Call, principal: Principal) -> Any:
        """Return the only request of a call, paid for: as a request before it is read, for it may be none."""
        self._charge_request(principal)
        request = await call.read(method.request_type)
        self._meters[method.name, call.transport].received.inc()
        self._access.quotas.charge(principal, characters_in(request), requests=0)
        return request

    def _charge_request(self, principal: Principal) -> None:
        self._access.quotas.charge(principal, characters=0)

    async def _requests(self, method: Method, call: Call, principal: Principal) -> AsyncGenerator[Any, None]:
        """Yield the requests of a call, each paid for; while its sender cannot pay, nothing more is read."""
        received = self._meters[method.name, call.transport].received
        async with contextlib.aclosing(call.requests(method.request_type)) as requests:
            while True:
                try:
                    async with asyncio.timeout(_SILENCE_SECONDS):
                        request = await anext(requests, None)
                except TimeoutError:
                    message = f"nothing came for {_SILENCE_SECONDS:g} s; end the stream, or open it when there is text"
                    raise DeadlinePassed(message) from None
                if request is None:
                    return
                received.inc()
                await self._pay(principal, characters_in(request))
                yield request

    async def _pay(self, principal: Principal, characters: int) -> None:
        while True:
            try:
                return self._access.quotas.charge(principal, characters, requests=0)
            except QuotaExceeded as error:
                await asyncio.sleep(error.retry_after_seconds)

    async def _written(self, method: Method, call: Call, request: Message, reply: Message, times: _Times) -> bytes:
        """Return a reply's bytes, its metadata stamped with what only the gate knows."""
        metadata, finished = _metadata_of(reply), time.perf_counter()
        if metadata is not None:
            metadata.request_id = call.request_id
            metadata.total_seconds = finished - times.accepted
        written = await call.write(reply)
        if metadata is not None:
            stages, model = self._metrics.stages.seconds, f"{metadata.model}@{metadata.model_version}"
            serialized = time.perf_counter() - finished
            tracing.record("serialize", serialized)
            stages.labels(model, "admission").observe(times.accepted - times.arrived, tracing.exemplar())
            stages.labels(model, "serialize").observe(serialized, tracing.exemplar())
        limit = self._bounds.max_response_bytes
        if len(written) > limit:
            message = f"the reply has {len(written)} bytes; this service sends at most {limit}. "
            raise ResponseTooLarge(message + smaller(request))
        self._meters[method.name, call.transport].sent.inc()
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

    @contextlib.contextmanager
    def _held_until_read(self, size_bytes: int) -> Iterator[None]:
        self._unread += 1
        try:
            with self._bounds.memory.unsent(size_bytes):
                yield
        finally:
            self._unread -= 1

    @contextlib.contextmanager
    def _counted_as_open(self) -> Iterator[None]:
        self._metrics.streams.open.inc()
        try:
            yield
        finally:
            self._metrics.streams.open.dec()

    def _refused(self, error: ServiceError, call: Call) -> Refusal:
        self._metrics.requests.errors.labels(error.reason).inc()
        return Refusal.of(error, call.request_id)

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


async def _next(replies: AsyncGenerator[Message, None], deadline: float | None) -> Message | None:
    """Return the next reply; None after the last.

    Raises:
        DeadlinePassed: It did not come in time.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await anext(replies, None)
    except TimeoutError:
        raise DeadlinePassed("the deadline passed before the stream had ended") from None


def _metadata_of(reply: Any) -> pb.ResponseMetadata | None:
    """Return the metadata of a reply that has them: of a stream, only the last one does."""
    if isinstance(reply, pb.TranslateStreamResponse):
        return reply.end.metadata if reply.WhichOneof("response") == "end" else None
    if "metadata" not in reply.DESCRIPTOR.fields_by_name or not reply.HasField("metadata"):
        return None
    metadata: pb.ResponseMetadata = reply.metadata
    return metadata
