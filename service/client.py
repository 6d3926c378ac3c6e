"""A thin client: one channel with retries, deadlines and health checks set up, and errors a person can act on."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from jaxtyping import Float

from service.call_status import Statuses, unreached
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc

DEFAULT_TIMEOUT_SECONDS = 60.0

_DETAILS_HEADER = "grpc-status-details-bin"
_LARGEST_REPLY_BYTES = 64 << 20
# A larger request is sent once: gRPC keeps no copy of it. That is right where it is too large for the service as well,
# which gRPC answers with the very code of a full queue, and a retry policy cannot tell the two apart.
_LARGEST_RETRIED_BYTES = 256 << 10
_PING_MILLISECONDS = 60_000
_RECONNECT_MILLISECONDS = 200, 5_000  # gRPC's own 1 s and 120 s are long for whoever waits for a service to start
_RETRIES = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
}
_RESUMPTIONS = 5  # in a row without a sentence
_RESUMPTION_SECONDS = 0.2  # before the first; twice as long before each further one


def service_config(timeout_seconds: float, wait_for_ready: bool) -> dict[str, Any]:
    """Return what gRPC does by itself for each call, as a gRPC service config; see ``Client`` for the arguments.

    A call that finds the service down, draining or full is tried up to five times. Where the service names a time to
    try again (``grpc-retry-pushback-ms``), it is obeyed. Replicas behind one name share the calls, but for those whose
    health check does not say SERVING.
    """
    every = [{"service": service.full_name} for service in pb.DESCRIPTOR.services_by_name.values()]
    # A stream may last as long as it likes; how long it may be silent is the client's business, not gRPC's.
    streams = [
        {"service": service.full_name, "method": method.name}
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.server_streaming
    ]
    config = {"waitForReady": wait_for_ready, "retryPolicy": _RETRIES}
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
        "methodConfig": [
            {"name": every, "timeout": f"{timeout_seconds:.3f}s", **config},
            {"name": streams, **config},
        ],
    }


@dataclass(frozen=True)
class Security:
    """How a client and a service come to trust each other; by default they speak plain text and neither asks.

    Attributes:
        key: API key.
        tls: Whether to speak TLS; any of the following says so too.
        authority: PEM of the authorities that sign the service's certificate; None for those that gRPC comes with.
        certificate: PEM of the client's certificate chain, for a service that asks for one.
        certificate_key: PEM of its private key.
        server_name: Name in the service's certificate, where it is reached by another, as through a tunnel.
    """

    key: str | None = None
    tls: bool = False
    authority: bytes | None = None
    certificate: bytes | None = None
    certificate_key: bytes | None = None
    server_name: str | None = None

    def channel(self, address: str, options: Any) -> grpc.aio.Channel:
        """Return a channel to ``address``."""
        if not self.encrypts:
            return grpc.aio.insecure_channel(address, options=options)
        if self.server_name is not None:
            options = (*options, ("grpc.ssl_target_name_override", self.server_name))
        credentials = grpc.ssl_channel_credentials(self.authority, self.certificate_key, self.certificate)
        return grpc.aio.secure_channel(address, credentials, options=options)

    @property
    def encrypts(self) -> bool:
        """Whether TLS is spoken."""
        return self.tls or any((self.authority, self.certificate, self.server_name))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call carries."""
        return () if self.key is None else (("authorization", f"Bearer {self.key}"),)


PLAIN = Security()


class CallFailed(Exception):
    """The service refused a call or a text, or could not be reached; the message says what to do.

    Attributes:
        code: What kind of failure.
        reason: The service's own name for it, UPPER_SNAKE; empty when the service was not reached.
        field: The offending field of the request; empty when there is none.
    """

    def __init__(self, message: str, code: grpc.StatusCode, reason: str = "", field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.field = field


class Client:
    """Calls one Interlinear service; use it as an async context manager.

    Every method raises ``CallFailed``. A call that finds the service down, draining or full is tried up to five times,
    within its deadline.
    """

    def __init__(
        self,
        address: str,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        wait_for_ready: bool = False,
        security: Security = PLAIN,
    ) -> None:
        """Prepare a channel; nothing is connected yet.

        Args:
            address: ``host:port`` of gRPC, or any gRPC target (``dns:///name:port`` balances over all its addresses).
            timeout_seconds: Deadline of each call, retries included; of a call that streams, of each message.
            wait_for_ready: Wait for the service, as long as the deadline allows, instead of failing when it is down.
            security: How the two come to trust each other.
        """
        self._address = address
        self._timeout_seconds = timeout_seconds
        options = (
            ("grpc.service_config", json.dumps(service_config(timeout_seconds, wait_for_ready))),
            ("grpc.max_receive_message_length", _LARGEST_REPLY_BYTES),
            ("grpc.per_rpc_retry_buffer_size", _LARGEST_RETRIED_BYTES),
            ("grpc.keepalive_time_ms", _PING_MILLISECONDS),
            ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MILLISECONDS[0]),
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MILLISECONDS[1]),
        )
        self._metadata, self._encrypts = security.metadata, security.encrypts
        self._channel = security.channel(address, options)
        self._translations = pb_grpc.TranslationServiceStub(self._channel)
        self._explanations = pb_grpc.ExplanationServiceStub(self._channel)
        self._models = pb_grpc.ModelServiceStub(self._channel)
        self._administration = pb_grpc.ModelAdminServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def translate(self, request: pb.TranslateRequest) -> pb.TranslateResponse:
        """Return the results of several texts, one each; ``translation_of`` reads one."""
        reply: pb.TranslateResponse = await self._call(self._translations.Translate, request)
        return reply

    async def explain(self, request: pb.ExplainRequest) -> pb.ExplainResponse:
        """Return an explanation."""
        reply: pb.ExplainResponse = await self._call(self._explanations.Explain, request)
        return reply

    async def contrast(self, request: pb.ContrastRequest) -> pb.ContrastResponse:
        """Return how a word of a translation compares with another."""
        reply: pb.ContrastResponse = await self._call(self._explanations.Contrast, request)
        return reply

    async def list_alternatives(self, request: pb.ListAlternativesRequest) -> pb.ListAlternativesResponse:
        """Return what else might stand at a place of a translation."""
        reply: pb.ListAlternativesResponse = await self._call(self._explanations.ListAlternatives, request)
        return reply

    async def what_if(self, request: pb.WhatIfRequest) -> pb.WhatIfResponse:
        """Return what becomes of a translation when its attention or its source is changed."""
        reply: pb.WhatIfResponse = await self._call(self._explanations.WhatIf, request)
        return reply

    async def list_models(self) -> pb.ListModelsResponse:
        """Return the loaded models, the default one first."""
        reply: pb.ListModelsResponse = await self._call(self._models.ListModels, pb.ListModelsRequest())
        return reply

    async def get_model(self, name: str = "") -> pb.GetModelResponse:
        """Return one model with its card; the default one when no name is given."""
        reply: pb.GetModelResponse = await self._call(self._models.GetModel, pb.GetModelRequest(name=name))
        return reply

    async def load_model(self, folder: str) -> pb.LoadModelResponse:
        """Return what was loaded from a folder of the service's; the address must be that of administration."""
        reply: pb.LoadModelResponse = await self._call(
            self._administration.LoadModel, pb.LoadModelRequest(folder=folder)
        )
        return reply

    async def activate_model(self, name: str, version: str = "") -> pb.ActivateModelResponse:
        """Return which version of a model answers from now on; the address must be that of administration."""
        request = pb.ActivateModelRequest(name=name, version=version)
        reply: pb.ActivateModelResponse = await self._call(self._administration.ActivateModel, request)
        return reply

    async def unload_model(self, name: str, version: str) -> None:
        """Return when a version is unloaded; the address must be that of administration."""
        await self._call(self._administration.UnloadModel, pb.UnloadModelRequest(name=name, version=version))

    async def stream_tokens(self, request: pb.StreamTokensRequest) -> AsyncIterator[pb.StreamTokensResponse]:
        """Yield what a translation gains, as it grows; the last message has all of it."""
        with self._failing():
            call = self._translations.StreamTokens(request, metadata=self._metadata)
            async for reply in self._in_time(call):
                yield reply

    async def translate_stream(
        self, options: pb.DocumentOptions, parts: Iterable[str]
    ) -> AsyncIterator[pb.TranslateStreamResponse]:
        """Yield the sentences of a document in order, then its end; a connection that breaks is made again.

        Args:
            options: How to translate.
            parts: The document, cut anywhere. It is sent anew after a connection broke, so what can be gone through
                only once, such as a generator, is not resumed.
        """
        asked = pb.DocumentOptions()
        asked.CopyFrom(options)
        failures = 0
        while True:
            try:
                async for reply in self._document(asked, parts):
                    failures = 0
                    if reply.WhichOneof("response") == "sentence":
                        asked.last_sequence_id = reply.sentence.sequence_id
                    yield reply
                return
            except CallFailed as error:
                failures += 1
                once = iter(parts) is parts
                if error.code is not grpc.StatusCode.UNAVAILABLE or once or failures > _RESUMPTIONS:
                    raise
                await asyncio.sleep(_RESUMPTION_SECONDS * 2 ** (failures - 1))

    async def _document(
        self, options: pb.DocumentOptions, parts: Iterable[str]
    ) -> AsyncIterator[pb.TranslateStreamResponse]:
        def requests() -> Iterator[pb.TranslateStreamRequest]:
            yield pb.TranslateStreamRequest(options=options)
            for part in parts:
                yield pb.TranslateStreamRequest(text=part)

        with self._failing():
            call = self._translations.TranslateStream(requests(), metadata=self._metadata)
            async for reply in self._in_time(call):
                yield reply

    async def _call(self, method: Any, request: Any) -> Any:
        with self._failing():
            return await method(request, metadata=self._metadata)

    async def _in_time(self, call: Any) -> AsyncIterator[Any]:
        """Yield the replies of a call that streams, none of which may take longer than the deadline.

        Raises:
            CallFailed: One does.
        """
        replies, statuses = aiter(call), Statuses(call)
        try:
            while True:
                async with asyncio.timeout(self._timeout_seconds):
                    reply = await anext(replies, None)
                if reply is None:
                    return
                yield reply
        except TimeoutError:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise CallFailed(self._advice(code, ""), code) from None
        except grpc.aio.AioRpcError as error:
            raise await statuses.own(error) from None
        finally:
            call.cancel()  # without effect on one that has ended

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn gRPC's errors into ours."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None

    def _failure(self, error: grpc.aio.AioRpcError) -> CallFailed:
        details = (error.trailing_metadata() or {}).get(_DETAILS_HEADER)
        if isinstance(details, bytes):
            return failure(status_pb2.Status.FromString(details))
        code = error.code()
        return CallFailed(self._advice(code, error.details() or ""), code)

    def _advice(self, code: grpc.StatusCode, details: str) -> str:
        if code == grpc.StatusCode.UNAVAILABLE:
            return unreached(self._address, details, self._encrypts)
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer from {self._address} within {self._timeout_seconds:g} s; allow more with --timeout."
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return f"the server at {self._address} is not an Interlinear service of this version ({details})."
        return f"{self._address} answered {code.name}: {details}"


def failure(status: status_pb2.Status) -> CallFailed:
    """Return the error that a status stands for; the status of one text reads just like that of a whole call."""
    info, fault, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, fault, retry):
            detail.Unpack(message)
    codes = {code.value[0]: code for code in grpc.StatusCode}
    message = status.message
    if retry.HasField("retry_delay"):
        message += f" (try again in {retry.retry_delay.ToTimedelta().total_seconds():.1f} s)"
    field = fault.field_violations[0].field if fault.field_violations else ""
    return CallFailed(message, codes.get(status.code, grpc.StatusCode.UNKNOWN), info.reason, field)


def translation_of(result: pb.TranslationResult) -> pb.Translation:
    """Return the translation of one text.

    Raises:
        CallFailed: There is none.
    """
    if result.WhichOneof("result") == "translation":
        return result.translation
    raise failure(result.error)


def array(matrix: pb.Matrix) -> Float[np.ndarray, "rows columns"]:
    """Return a matrix of a reply as an array, however it was packed."""
    values = np.frombuffer(matrix.packed_float32, "<f4") if matrix.packed_float32 else np.array(matrix.values, "<f4")
    return values.reshape(matrix.rows, matrix.columns)
