"""Asks a service over both transports as good and bad callers do: waits, gives too little time, cancels, vanishes."""

import asyncio
import contextlib
import itertools
import json
import random
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from service.call_status import Statuses
from service.pb import interlinear_pb2 as pb
from tests.reliability import http1
from tests.reliability.answers import NO_ANSWER, Outcome, answered, refused
from tests.reliability.cable import Cable, laid
from tests.reliability.questions import Question

METHODS: dict[str, MethodDescriptor] = {
    method.name: method for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods
}
PATHS = {
    "Translate": "/v1/translate",
    "Explain": "/v1/explain",
    "Contrast": "/v1/contrast",
    "ListAlternatives": "/v1/alternatives",
    "WhatIf": "/v1/what-if",
    "StreamTokens": "/v1/stream-tokens",
    "TranslateStream": "/v1/translate-stream",
    "ListModels": "/v1/models",
}
LONGEST_REPLY_BYTES = 64 << 20

_PATIENCE_SECONDS = 180.0
_DETAILS_HEADER = "grpc-status-details-bin"
_ERROR_LINE = b'{"error":'  # ends a stream that had begun
_JSON_LINES = "application/x-ndjson"


@dataclass(frozen=True)
class Manner:
    """How a caller asks.

    Attributes:
        transport: Over what.
        ending: ``wait`` for the answer; ``deadline``: give the service so many ``seconds``; ``cancel`` after so many;
            ``leave``: break the connection after so many, without a word.
        seconds: See ``ending``.
    """

    transport: Literal["grpc", "http"] = "grpc"
    ending: Literal["wait", "deadline", "cancel", "leave"] = "wait"
    seconds: float = 0.0


WAIT = Manner()


@dataclass(frozen=True)
class Target:
    """Where a service is, and what it takes to be let in.

    Attributes:
        address: Of gRPC.
        http_address: Of HTTP.
        authority: PEM of whoever signed its certificate; None where it speaks plain text.
    """

    address: str
    http_address: str
    authority: bytes | None = None

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What a connection of HTTP is secured with."""
        return None if self.authority is None else ssl.create_default_context(cadata=self.authority.decode())


def random_manner(chance: random.Random, method: str) -> Manner:
    """Return how somebody asks: one in six over HTTP, one in five not to the end."""
    transport: Literal["grpc", "http"] = "http" if method in PATHS and chance.random() < 1 / 6 else "grpc"
    if chance.random() < 0.8:
        return Manner(transport)
    return Manner(transport, chance.choice(("deadline", "cancel", "leave")), chance.uniform(0.001, 2.0))


class Caller:
    """Asks one service over several connections; use it as an async context manager."""

    def __init__(self, target: Target, connections: int = 1) -> None:
        self._target = target
        self._open = [channel(target.address, target) for _ in range(connections)]
        self._channels = itertools.cycle(self._open)
        self._stack = contextlib.AsyncExitStack()
        self._cable: Cable | None = None

    async def __aenter__(self) -> Self:
        self._cable = await self._stack.enter_async_context(laid(self._target.address))
        self._cut_channel = channel(self._cable.address, self._target)
        for each in (*self._open, self._cut_channel):
            self._stack.push_async_callback(each.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ask(self, question: Question, manner: Manner = WAIT) -> Outcome:
        """Return what came of asking ``question``; a caller that waits gives up after three minutes."""
        started = time.perf_counter()
        ask = self._ask_http if manner.transport == "http" else self._ask_grpc
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await ask(question, manner, started)
        except TimeoutError:
            return Outcome(NO_ANSWER, seconds=time.perf_counter() - started)

    async def _ask_grpc(self, question: Question, manner: Manner, started: float) -> Outcome:
        method, leaves = METHODS[question.method], manner.ending == "leave"
        asked = [message.SerializeToString() for message in question.messages]
        timeout = manner.seconds if manner.ending == "deadline" else None
        to = self._cut_channel if leaves else next(self._channels)
        begun = begin(to, method, asked, timeout=timeout, wait_for_ready=leaves)
        call = begun.call
        endings: dict[str, Callable[[], object]] = {"cancel": call.cancel, "leave": self._cut}
        end = endings.get(manner.ending, lambda: None)
        timer = asyncio.get_running_loop().call_later(manner.seconds, end)
        try:
            replies = [reply async for reply in call] if method.server_streaming else [await call]
            kind = GetMessageClass(method.output_type)
            return answered([kind.FromString(reply) for reply in replies], time.perf_counter() - started)
        except grpc.aio.AioRpcError as error:
            return of_error(await begun.statuses.own(error), time.perf_counter() - started)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # not the call was cancelled, but whoever asks
                raise
            return Outcome("CANCELLED", seconds=time.perf_counter() - started)
        finally:
            timer.cancel()
            begun.end()

    def _cut(self) -> None:
        assert self._cable is not None
        self._cable.cut()

    async def _ask_http(self, question: Question, manner: Manner, started: float) -> Outcome:
        headers = {"x-timeout-seconds": f"{manner.seconds:.3f}"} if manner.ending == "deadline" else {}
        patience = manner.seconds if manner.ending in ("cancel", "leave") else None
        try:
            async with http1.connected(self._target.http_address, self._target.tls) as (reader, writer):
                writer.write(http_request(question, headers))
                async with asyncio.timeout(patience):
                    reply = await http1.read_reply(reader)
        except (TimeoutError, OSError, EOFError) as error:
            return Outcome("CANCELLED" if patience else type(error).__name__, seconds=time.perf_counter() - started)
        return of_http(question.method, reply, time.perf_counter() - started)


def channel(address: str, target: Target | None = None) -> Any:
    """Return a channel with a connection of its own, on which nothing is tried twice."""
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", LONGEST_REPLY_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    )
    if target is None or target.authority is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(target.authority), options=options)


def of_error(error: "grpc.aio.AioRpcError", seconds: float) -> Outcome:
    """Return the outcome of a call over gRPC that failed."""
    details = (error.trailing_metadata() or {}).get(_DETAILS_HEADER)
    if isinstance(details, bytes):
        return refused(status_pb2.Status.FromString(details), seconds)
    return Outcome(error.code().name, seconds=seconds)


def of_http(method: str, reply: http1.Reply, seconds: float) -> Outcome:
    """Return the outcome of a call over HTTP."""
    streams = METHODS[method].server_streaming
    kind = GetMessageClass(METHODS[method].output_type)
    *lines, last = reply.body.splitlines() if streams and reply.body else [reply.body]
    try:
        if reply.status != 200:
            return refused(json_format.Parse(last, status_pb2.Status()), seconds)
        if streams and last.startswith(_ERROR_LINE):
            return refused(json_format.ParseDict(json.loads(last)["error"], status_pb2.Status()), seconds)
        return answered([json_format.Parse(line, kind()) for line in (*lines, last)], seconds)
    except json_format.ParseError:
        return Outcome(f"HTTP_{reply.status}", seconds=seconds)


def http_request(question: Question, headers: dict[str, str]) -> bytes:
    """Return ``question`` as a request of HTTP, its matrices packed, so that the answers are those of gRPC."""
    path = PATHS[question.method]
    if question.method == "ListModels":
        return http1.request_bytes("GET", path, headers)
    for message in question.messages:
        if "matrix_encoding" in message.DESCRIPTOR.fields_by_name:
            message.matrix_encoding = pb.MATRIX_ENCODING_PACKED_FLOAT32
    written = [json_format.MessageToJson(message, indent=None).encode() for message in question.messages]
    if METHODS[question.method].client_streaming:
        headers = {"content-type": _JSON_LINES, **headers}
    return http1.request_bytes("POST", path, headers, b"\n".join(written))


@dataclass(frozen=True)
class Begun:
    """A call over gRPC that was begun, bytes in and bytes out.

    Attributes:
        call: grpc.aio's own.
        writing: What it still writes; None where all was written at once.
        statuses: All it has had.
    """

    call: Any
    writing: "asyncio.Future[None] | None"
    statuses: Statuses

    def end(self) -> None:
        """Stop it, if it has not ended."""
        if self.writing is not None:
            self.writing.cancel()
        self.call.cancel()


def begin(to: Any, method: MethodDescriptor, asked: Sequence[bytes], **how: Any) -> Begun:
    """Begin a call.

    Args:
        to: A channel.
        method: Which call.
        asked: The message, or for a call that takes a stream all of them.
        how: Deadline and such, for gRPC.
    """
    kinds = {(False, False): to.unary_unary, (False, True): to.unary_stream, (True, True): to.stream_stream}
    kind = kinds[method.client_streaming, method.server_streaming]
    start = kind(f"/{method.containing_service.full_name}/{method.name}")
    call = start(**how) if method.client_streaming else start(asked[0], **how)
    writing = asyncio.ensure_future(_write(call, asked)) if method.client_streaming else None
    return Begun(call, writing, Statuses(call))


async def _write(call: Any, messages: Sequence[bytes]) -> None:
    """Write what the service still takes."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for message in messages:
            await call.write(message)
        await call.done_writing()
