"""A call as a transport brings it, the method of the proto that it asks for, and what it gets instead of a reply."""

import random
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from service.calls import Behavior, Streaming
from service.errors import ServiceError
from service.pb import interlinear_pb2 as pb
from service.status import status_of

TRANSPORTS = ("grpc", "http")
REQUEST_ID_HEADER = "x-request-id"
ADMINISTRATION = "interlinear.v1.ModelAdminService"

Kind = Literal["unary", "server_stream", "bidi_stream"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BEARER = "bearer "
_CHARGED = ("text", "target", "alternative")  # fields that hold one text each; ``texts`` holds several
_ids = random.Random()  # of its own, which nobody else seeds


class Call(Protocol):
    """One call as a transport brings it.

    Attributes:
        transport: One of ``TRANSPORTS``.
        request_id: What log and reply call it.
        headers: By name in lower case; over gRPC, metadata.
        certificate_names: Who the caller's certificate says it is; empty if it has none.
        unsent: What is held until the transport has got rid of the reply; the transport closes it then.
    """

    transport: str
    request_id: str
    headers: Mapping[str, str]
    certificate_names: Sequence[str]
    unsent: ExitStack

    async def read(self, request_type: type[Message]) -> Any:
        """Return the request of a call that has one; raise ``ServiceError`` where it is none."""

    def requests(self, request_type: type[Message]) -> AsyncGenerator[Any, None]:
        """Yield the requests of a call that may have many, each read only when it is asked for."""

    def deadline(self) -> float | None:
        """Return when, on the running loop's clock, the answer is no longer wanted; None if it always is."""

    async def write(self, reply: Message) -> bytes:
        """Return a reply as it travels."""


@dataclass(frozen=True)
class Method:
    """A call of the proto and what answers it.

    Attributes:
        service: Full name of the service.
        name: Of the method.
        kind: Who sends how many messages: one each way, one for many, or many for many.
        request_type: What it takes.
        behavior: What answers; one that streams is an asynchronous generator.
    """

    service: str
    name: str
    kind: Kind
    request_type: type[Message]
    behavior: Behavior | Streaming

    def labels(self, transport: str) -> tuple[str, str, str, str]:
        """Return the labels of its metrics, in their order."""
        return self.kind, self.service, self.name, transport


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

    @classmethod
    def of(cls, error: ServiceError, request_id: str) -> "Refusal":
        """Return the refusal that ``error`` stands for."""
        return cls(status_of(error), error, request_id)


def methods_of(behaviors: Mapping[str, Behavior], streams: Mapping[str, Streaming]) -> dict[str, Method]:
    """Return the methods of the proto that something answers, by name."""
    answering: dict[str, Behavior | Streaming] = {**behaviors, **streams}
    return {
        method.name: Method(
            service.full_name, method.name, _kind(method), GetMessageClass(method.input_type), answering[method.name]
        )
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.name in answering
    }


def accepted_request_id(given: object) -> str:
    """Return the caller's request id if it is harmless, else one made up."""
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else _made_up()


def _made_up() -> str:
    """Return an id that no other call has; one that cannot be foretold would cost ten times as much."""
    return f"{_ids.getrandbits(128):032x}"


def key_of(headers: Mapping[str, str]) -> str | None:
    """Return the API key that a caller sends as ``authorization: Bearer KEY`` or ``x-api-key: KEY``, if it does.

    >>> key_of({"authorization": "bearer ilk_1"})
    'ilk_1'
    """
    authorization = headers.get("authorization", "")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return headers.get("x-api-key")


def characters_in(request: Message) -> int:
    """Return the code points of the texts in a request, of whatever its sender wants translated or read."""
    texts = [*getattr(request, "texts", ()), *(getattr(request, field, "") for field in _CHARGED)]
    if isinstance(options := getattr(request, "options", None), pb.DecodingOptions):
        texts.append(options.forced_prefix)
    if isinstance(request, pb.WhatIfRequest):
        texts += [word.text for word in request.intervention.replaced_source_words]
    return sum(map(len, texts))


def _kind(method: MethodDescriptor) -> Kind:
    if method.client_streaming:
        return "bidi_stream"
    return "server_stream" if method.server_streaming else "unary"
