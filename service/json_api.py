"""The calls over HTTP: a request in protobuf's JSON is posted, a reply or a google.rpc.Status in JSON comes back.

The explorer is served from the same origin, so no other origin is ever let in: there are no CORS headers, and a body
must say that it is JSON, which a page of another origin cannot do without asking first.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import Busy, DeadlinePassed, MediaTypeInvalid, OptionOutOfRange, RequestTooLarge
from service.gate import REQUEST_ID_HEADER, Gate, Method, Refusal, accepted_request_id
from service.pb import interlinear_pb2 as pb
from service.status import http_status_of
from service.wire import parse_json, write_json

TIMEOUT_HEADER = "x-timeout-seconds"
JSON = "application/json"

_POSTED = {
    "/v1/translate": "Translate",
    "/v1/explain": "Explain",
    "/v1/contrast": "Contrast",
    "/v1/alternatives": "ListAlternatives",
    "/v1/what-if": "WhatIf",
}
_FETCHED = {"/v1/models": "ListModels", "/v1/models/{name}": "GetModel"}
# Nothing in a reply is a page, whatever a browser takes it for; and no cache may keep a user's text.
_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
_LONGEST_TIMEOUT_SECONDS = 86_400.0


def routes(gate: Gate, max_request_bytes: int) -> list[Route]:
    """Return a route for every call; a body of more than ``max_request_bytes`` is refused before it is read whole."""

    def endpoint(method: Method) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            return await _respond(gate, method, _HttpCall(request, max_request_bytes))

        return respond

    return [
        Route(path, endpoint(gate.methods[name]), methods=[verb])
        for verb, paths in (("POST", _POSTED), ("GET", _FETCHED))
        for path, name in paths.items()
    ]


class _HttpCall:
    """A call that came over HTTP; its fields are in the body, or in the path of a GET."""

    transport = "http"

    def __init__(self, request: Request, max_request_bytes: int) -> None:
        self.request_id = accepted_request_id(request.headers.get(REQUEST_ID_HEADER))
        self._request = request
        self._max_request_bytes = max_request_bytes
        self._deadline: float | None = None
        self._is_read = asyncio.Event()

    async def read(self, request_type: type[Message]) -> Message:
        self._deadline = self._given_deadline()
        if self._request.method == "POST":
            request = parse_json(request_type, await self._body())
        else:
            request = request_type(**self._request.path_params)
        self._is_read.set()
        if getattr(request, "matrix_encoding", None) == pb.MATRIX_ENCODING_UNSPECIFIED:
            request.matrix_encoding = pb.MATRIX_ENCODING_FLOAT_LIST
        return request

    def deadline(self) -> float | None:
        return self._deadline

    async def write(self, reply: Message) -> bytes:
        # Python writes a large reply in tenths of a second, for which the loop must not stand still.
        return await asyncio.to_thread(write_json, reply)

    async def left(self) -> None:
        """Return when the caller has gone away, after its request was read."""
        await self._is_read.wait()
        while (await self._request.receive())["type"] != "http.disconnect":
            pass

    def _given_deadline(self) -> float | None:
        given = self._request.headers.get(TIMEOUT_HEADER)
        if given is None:
            return None
        try:
            seconds = float(given)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds <= _LONGEST_TIMEOUT_SECONDS:
            allowed = f"a number of seconds above 0 and at most {_LONGEST_TIMEOUT_SECONDS:g}"
            raise OptionOutOfRange(TIMEOUT_HEADER, f"{TIMEOUT_HEADER} is not {allowed}; leave it out to wait for ever")
        return asyncio.get_running_loop().time() + seconds

    async def _body(self) -> bytes:
        """Return the body.

        Raises:
            MediaTypeInvalid: It does not say that it is JSON.
            RequestTooLarge: It is too large, or says so.
            DeadlinePassed: It took too long to arrive.
        """
        media_type = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != JSON:
            raise MediaTypeInvalid("content-type", f"the body must be JSON; send it with content-type: {JSON}")
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._bytes()
        except TimeoutError:
            raise DeadlinePassed("the deadline passed before the whole body had arrived") from None
        except ClientDisconnect:
            raise asyncio.CancelledError from None  # as if it had gone away a moment later

    async def _bytes(self) -> bytes:
        limit = self._max_request_bytes
        too_large = RequestTooLarge(f"the body has more than {limit} bytes, the most here; send fewer or shorter texts")
        length = self._request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            raise too_large
        body = bytearray()
        async for part in self._request.stream():
            body += part
            if len(body) > limit:
                raise too_large
        return bytes(body)


async def _respond(gate: Gate, method: Method, call: _HttpCall) -> Response:
    """Return the response to one call; stop working on it when the caller goes away."""
    answering = asyncio.create_task(gate.answer(method, call))
    leaving = asyncio.create_task(call.left())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not answering.done():
            answering.cancel()
        await asyncio.wait((answering, leaving))
    headers = {**_HEADERS, REQUEST_ID_HEADER: call.request_id}
    if answering.cancelled():
        return Response(headers=headers)  # nobody reads it
    try:
        return Response(answering.result(), media_type=JSON, headers=headers)
    except Refusal as refusal:
        if isinstance(refusal.error, Busy):
            headers["retry-after"] = str(math.ceil(refusal.error.retry_after_seconds))
        return Response(write_json(refusal.status), http_status_of(refusal.error), headers, JSON)
