"""The calls over HTTP: a request in protobuf's JSON is posted, a reply or a google.rpc.Status in JSON comes back.

Calls that stream send one message a line, and where they take many messages, read one a line. The explorer is served
from the same origin, so no other origin is ever let in: there are no CORS headers, and a body must say that it is JSON,
which a page of another origin cannot do without asking first.
"""

import asyncio
import contextlib
import math
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import Busy, Unauthenticated, Unavailable
from service.gate import Gate
from service.http_call import JSON, LINES, HttpCall
from service.http_connection import BREAK_OFF, Message, Receive, Send
from service.incoming import REQUEST_ID_HEADER, Method, Refusal
from service.status import http_status_of
from service.wire import write_json

PUBLIC = {
    "POST /v1/translate": "Translate",
    "POST /v1/translate-stream": "TranslateStream",
    "POST /v1/stream-tokens": "StreamTokens",
    "POST /v1/explain": "Explain",
    "POST /v1/contrast": "Contrast",
    "POST /v1/alternatives": "ListAlternatives",
    "POST /v1/what-if": "WhatIf",
    "GET /v1/models": "ListModels",
    "GET /v1/models/{name}": "GetModel",
}
ADMINISTRATION = {
    "POST /v1/admin/models/load": "LoadModel",
    "POST /v1/admin/models/activate": "ActivateModel",
    "POST /v1/admin/models/unload": "UnloadModel",
}

_READING_SECONDS = 300.0  # how long a client may take to read one reply
_PIECE_BYTES = 64 << 10  # written at once: the rest of a reply waits until the client has read


def routes(gate: Gate, paths: Mapping[str, str], max_request_bytes: int) -> list[Route]:
    """Return a route for each of ``paths``: by verb and path, the method of the proto.

    A message of more than ``max_request_bytes`` is refused before it is read whole.
    """
    return [
        Route(path, _Endpoint(gate, gate.methods[name], max_request_bytes), methods=[verb])
        for (verb, path), name in ((place.split(), name) for place, name in paths.items())
    ]


def refused(refusal: Refusal, headers: Mapping[str, str] | None = None, status: int | None = None) -> Response:
    """Return the answer that tells of a refusal.

    Args:
        refusal: What to tell.
        headers: To be sent besides.
        status: HTTP's, where it is not the one that goes with the error.
    """
    error = refusal.error
    sent = {**(headers or {}), REQUEST_ID_HEADER: refusal.request_id}
    if isinstance(error, (Busy, Unavailable)):
        sent["retry-after"] = str(math.ceil(error.retry_after_seconds))
    if isinstance(error, Unauthenticated):
        sent["www-authenticate"] = "Bearer"
    return Response(write_json(refusal.status), status or http_status_of(error), sent, JSON)


class _Endpoint:
    """Answers one route; stops working for a caller that goes away."""

    def __init__(self, gate: Gate, method: Method, max_request_bytes: int) -> None:
        self._gate = gate
        self._method = method
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        call = HttpCall(Request(scope, receive), self._max_request_bytes)
        answer = self._answer if self._method.kind == "unary" else self._stream
        answering = asyncio.create_task(answer(call, scope, receive, send))
        leaving = asyncio.create_task(call.left())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not answering.done():
                answering.cancel()
            await asyncio.wait((answering, leaving))
        if not answering.cancelled():
            answering.result()  # raises what nobody foresaw

    async def _answer(self, call: HttpCall, scope: Message, receive: Receive, send: Send) -> None:
        try:
            with call.unsent:
                reply = await self._gate.answer(self._method, call)
                stalled = asyncio.get_running_loop().call_later(_READING_SECONDS, scope[BREAK_OFF])
                call.unsent.callback(stalled.cancel)
                headers = {REQUEST_ID_HEADER: call.request_id, "content-length": str(len(reply))}
                await _begin(send, JSON, headers)
                for start in range(0, len(reply), _PIECE_BYTES):
                    await _continue(send, reply[start : start + _PIECE_BYTES])
                await _end(send)
        except Refusal as refusal:
            await refused(refusal)(scope, receive, send)

    async def _stream(self, call: HttpCall, scope: Message, receive: Receive, send: Send) -> None:
        has_begun = False
        try:
            async with contextlib.aclosing(self._gate.stream(self._method, call)) as replies:
                async for reply in replies:
                    if not has_begun:
                        await _begin(send, LINES, {REQUEST_ID_HEADER: call.request_id})
                        has_begun = True
                    try:
                        await _continue(send, reply + b"\n")
                    except asyncio.CancelledError as cancelled:
                        await replies.athrow(cancelled)  # the gate knows whether the caller is owed a reason
                        raise
            await _end(send)
        except Refusal as refusal:
            if not has_begun:
                await refused(refusal)(scope, receive, send)
                return
            await _continue(send, b'{"error":' + write_json(refusal.status) + b"}\n")
            await _end(send)


async def _begin(send: Send, media_type: str, headers: Mapping[str, str]) -> None:
    sent = [(name.encode(), value.encode()) for name, value in {"content-type": media_type, **headers}.items()]
    await send({"type": "http.response.start", "status": 200, "headers": sent})


async def _continue(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _end(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})
