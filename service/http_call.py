"""A call that came over HTTP: its request in protobuf's JSON, one message or a line each."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request

from service.errors import (
    DeadlinePassed,
    InvalidRequest,
    MediaTypeInvalid,
    OptionOutOfRange,
    RequestTooLarge,
    ServiceError,
)
from service.http_connection import CERTIFICATE_NAMES
from service.incoming import REQUEST_ID_HEADER, accepted_request_id
from service.pb import interlinear_pb2 as pb
from service.wire import parse_json, write_json

TIMEOUT_HEADER = "x-timeout-seconds"
JSON = "application/json"
LINES = "application/x-ndjson"

_LONGEST_TIMEOUT_SECONDS = 86_400.0
_BODY_SECONDS = 60.0  # for a whole body to arrive
_LARGE_BYTES = 32 << 10  # of JSON, which Python reads in a millisecond or more: the loop must not stand still for that
# Two at most: each takes the interpreter from the loop; with one for every caller the loop would hardly get its turn.
_JSON_THREADS = ThreadPoolExecutor(2, thread_name_prefix="json")


class HttpCall:
    """A call that came over HTTP; its fields are in the body, or in the path of a GET.

    Args:
        request: Starlette's own.
        max_request_bytes: Size of one message.
    """

    transport = "http"

    def __init__(self, request: Request, max_request_bytes: int) -> None:
        self.headers: Mapping[str, str] = request.headers
        self.request_id = accepted_request_id(request.headers.get(REQUEST_ID_HEADER))
        self.certificate_names: Sequence[str] = request.scope.get(CERTIFICATE_NAMES, ())
        self.unsent = ExitStack()
        self._request = request
        self._max_request_bytes = max_request_bytes
        self._is_read = asyncio.Event()
        self._has_left = False
        self._deadline: float | None = None
        self._fault: ServiceError | None = None
        if (given := request.headers.get(TIMEOUT_HEADER)) is not None:
            self._set_deadline(given)

    async def read(self, request_type: type[Message]) -> Message:
        """Return the request.

        Raises:
            ServiceError: It is none, too large, or did not arrive in time.
        """
        self._raise_fault()
        if self._request.method == "POST":
            self._check_media_type(JSON)
            request = await _parsed(request_type, await self._body())
        else:
            request = request_type(**self._request.path_params)
        self._is_read.set()
        return request

    async def requests(self, request_type: type[Message]) -> AsyncGenerator[Message, None]:
        """Yield the requests, one a line.

        Raises:
            ServiceError: A line is none, or too large.
        """
        self._raise_fault()
        self._check_media_type(LINES)
        number = 0
        async for line in self._lines():
            number += 1
            if line.strip():
                try:
                    request = await _parsed(request_type, line)
                except InvalidRequest as error:
                    raise type(error)(error.field, f"line {number}: {error}") from error
                yield request
        self._is_read.set()

    def deadline(self) -> float | None:
        """Return when the caller gives up, as its header says."""
        return self._deadline

    async def write(self, reply: Message) -> bytes:
        """Return a reply as JSON."""
        # Python writes a large reply in tenths of a second, for which the loop must not stand still.
        return await asyncio.get_running_loop().run_in_executor(_JSON_THREADS, write_json, reply)

    async def left(self) -> None:
        """Return when the caller has gone away."""
        await self._is_read.wait()  # until then, whoever reads the request notices
        while not self._has_left and (await self._request.receive())["type"] != "http.disconnect":
            pass

    def _set_deadline(self, given: str) -> None:
        try:
            seconds = float(given)
        except ValueError:
            seconds = math.nan
        if 0 < seconds <= _LONGEST_TIMEOUT_SECONDS:
            self._deadline = asyncio.get_running_loop().time() + seconds
            return
        allowed = f"a number of seconds above 0 and at most {_LONGEST_TIMEOUT_SECONDS:g}"
        message = f"{TIMEOUT_HEADER} is not {allowed}; leave it out to wait for ever"
        self._fault = OptionOutOfRange(TIMEOUT_HEADER, message)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _check_media_type(self, needed: str) -> None:
        media_type = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != needed:
            what = "JSON" if needed == JSON else "JSON, one message a line"
            raise MediaTypeInvalid("content-type", f"the body must be {what}; send it with content-type: {needed}")

    async def _body(self) -> bytes:
        limit = self._max_request_bytes
        too_large = RequestTooLarge(f"the body has more than {limit} bytes, the most here; send fewer or shorter texts")
        length = self._request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            raise too_large
        latest = asyncio.get_running_loop().time() + _BODY_SECONDS
        body = bytearray()
        try:
            async with asyncio.timeout_at(latest if self._deadline is None else min(latest, self._deadline)):
                async for part in self._parts():
                    body += part
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise DeadlinePassed("the deadline passed before the whole body had arrived") from None
        return bytes(body)

    async def _lines(self) -> AsyncIterator[bytes]:
        """Yield the lines of the body, each when it is complete."""
        limit, rest = self._max_request_bytes, bytearray()
        async for part in self._parts():
            first, *others = part.split(b"\n")
            rest += first
            for begun in others:
                yield bytes(rest)
                rest = bytearray(begun)
            if len(rest) > limit:
                raise RequestTooLarge(f"a line has more than {limit} bytes, the most here; send shorter texts")
        yield bytes(rest)

    async def _parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; once the caller has gone, wait to be cancelled, as ``left`` brings about."""
        try:
            async for part in self._request.stream():
                yield part
        except ClientDisconnect:
            self._has_left = True
            self._is_read.set()
            await asyncio.get_running_loop().create_future()


async def _parsed(request_type: type[Message], payload: bytes) -> Message:
    """Return the message; its matrices come as lists where it does not ask for another encoding."""
    if len(payload) > _LARGE_BYTES:
        loop = asyncio.get_running_loop()
        request: Message = await loop.run_in_executor(_JSON_THREADS, parse_json, request_type, payload)
    else:
        request = parse_json(request_type, payload)
    options = request
    if isinstance(request, pb.TranslateStreamRequest):
        if request.WhichOneof("request") != "options":
            return request
        options = request.options
    if getattr(options, "matrix_encoding", None) == pb.MATRIX_ENCODING_UNSPECIFIED:
        options.matrix_encoding = pb.MATRIX_ENCODING_FLOAT_LIST
    return request
