"""One malformed request after another, each made from a seed and its number, and what may come of it."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from service.pb import interlinear_pb2 as pb
from tests.reliability import garbage, http1
from tests.reliability.answers import Outcome, documented
from tests.reliability.load import METHODS, PATHS, begin, of_error, of_http
from tests.reliability.mutations import MARKER, broken_bytes, broken_json
from tests.reliability.process import Service

_PATIENCE_SECONDS = 60.0
_LISTEN_SECONDS = 0.05
_MOST_REPLIES = 20
_GRPC_OWN = {"RESOURCE_EXHAUSTED"}  # a message too large: docs/api.md, Errors
_METADATA = (
    *(("x-request-id", value) for value in ("", "a b", "x" * 5_000, "ok-1", "'; --")),
    *(
        ("traceparent", value)
        for value in ("", "00", "00-" + "z" * 32 + "-1-1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    ),
    *(("authorization", value) for value in ("", "Bearer", "Bearer ilk_", "Basic x", "bearer " + "k" * 5_000)),
    *(("x-api-key", value) for value in ("", " ", "ilk_" + "0" * 43)),
    *(
        ("content-language", "xx"),
        ("tracestate", "a=b,,=,c"),
        ("accept-encoding", "*;q=-1"),
        ("x-timeout-seconds", "5"),
    ),
)
_HTTP_HEADERS = (
    *(("x-timeout-seconds", value) for value in ("", "nan", "inf", "-1", "0", "1e-9", "1e999", "86401", "1_0", "٣")),
    *(("content-type", value) for value in ("", "text/plain", "application/json; charset=utf-16", "application/jsonx")),
    *(("content-encoding", "gzip"), ("accept", "nothing/at-all"), ("cookie", "a" * 8_000), ("range", "bytes=0-")),
    *(
        ("origin", "http://evil.example"),
        ("x-forwarded-for", "1.1.1.1, ::1"),
        ("host", "[::1"),
        ("connection", "close"),
    ),
)


class Bad(Exception):
    """A reply that must not be."""


class Fuzzer:
    """Sends cases to one service."""

    def __init__(self, service: Service, channels: Sequence[Any], admin_channel: Any, seed: int) -> None:
        self._service = service
        self._channels = itertools.cycle(channels)
        self._admin_channel = admin_channel
        self._seed = seed
        self._documented = documented()
        self._kinds: Sequence[tuple[str, float, Callable[[random.Random], Awaitable[str]]]] = (
            ("message over gRPC", 42, self._message),
            ("stream over gRPC", 10, self._stream),
            ("health and reflection", 3, self._standard),
            ("JSON over HTTP", 25, self._json),
            ("stream over HTTP", 5, self._lines),
            ("bytes to gRPC", 8, self._bytes_to_grpc),
            ("bytes to HTTP", 7, self._bytes_to_http),
        )

    async def send(self, number: int) -> tuple[str, str]:
        """Send that case; return its kind and what came of it.

        Raises:
            Bad: Something that must not be.
        """
        chance = random.Random(f"{self._seed} {number}")
        names, shares, sends = zip(*self._kinds, strict=True)
        kind, send = chance.choices(list(zip(names, sends, strict=True)), shares)[0]
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return kind, await send(chance)
        except TimeoutError:
            raise Bad(f"{kind}: no answer within {_PATIENCE_SECONDS:g} s") from None
        except Bad as bad:
            raise Bad(f"{kind}: {bad}") from None

    async def _message(self, chance: random.Random) -> str:
        method = METHODS[chance.choice([name for name, method in METHODS.items() if not method.client_streaming])]
        return await self._call(method, [broken_bytes(method.input_type, chance)], chance)

    async def _stream(self, chance: random.Random) -> str:
        """Break messages of a document, or send right ones in the wrong order."""
        method = METHODS["TranslateStream"]
        broken = [broken_bytes(method.input_type, chance) for _ in range(2)]
        parts = chance.choices([*_document_messages(chance), *broken], k=chance.randint(0, 5))
        return await self._call(method, parts, chance)

    async def _standard(self, chance: random.Random) -> str:
        services = ((health_pb2, "Check"), (health_pb2, "Watch"), (reflection_pb2, "ServerReflectionInfo"))
        module, name = chance.choice(services)
        method = next(iter(module.DESCRIPTOR.services_by_name.values())).methods_by_name[name]
        return await self._call(method, [broken_bytes(method.input_type, chance)], chance)

    async def _call(self, method: MethodDescriptor, asked: Sequence[bytes], chance: random.Random) -> str:
        """Call a method with bytes and return what came of it."""
        metadata = tuple(chance.sample(_METADATA, chance.choice((0, 0, 0, 1, 3))))
        administrative = "Admin" in method.containing_service.name
        to = self._admin_channel if administrative else next(self._channels)
        begun = begin(to, method, asked, metadata=metadata)
        call = begun.call
        try:
            if method.name == "Watch":  # it never ends
                await call.read()
            elif method.server_streaming:
                for _ in range(_MOST_REPLIES):  # a document of a hundred thousand letters takes minutes
                    if await call.read() is grpc.aio.EOF:
                        break
            else:
                await call
            return "answered"
        except grpc.aio.AioRpcError as error:
            return self._judged(of_error(await begun.statuses.own(error), 0.0), _GRPC_OWN)
        finally:
            begun.end()

    async def _json(self, chance: random.Random) -> str:
        name = chance.choice([name for name, path in PATHS.items() if not METHODS[name].client_streaming])
        headers = dict(chance.sample((*_METADATA, *_HTTP_HEADERS), chance.choice((0, 0, 0, 1, 3))))
        if name == "ListModels":
            model = "".join(f"%{byte:02x}" for byte in chance.randbytes(chance.randint(1, 40)))
            return await self._post("GetModel", http1.request_bytes("GET", f"/v1/models/{model}", headers))
        body = broken_json(METHODS[name].input_type, chance)
        return await self._post(name, http1.request_bytes("POST", PATHS[name], headers, body))

    async def _lines(self, chance: random.Random) -> str:
        kind = METHODS["TranslateStream"].input_type
        lines = [broken_json(kind, chance) for _ in range(chance.randint(0, 4))]
        right = [b'{"options": {}}', b'{"text": "The house is small. "}', b"", b'{"options": {"lastSequenceId": "-1"}}']
        lines += chance.choices(right, k=chance.randint(0, 4))
        chance.shuffle(lines)
        body = chance.choice((b"\n", b"\r\n", b"\n\n", b"\r")).join(lines)
        headers = {"content-type": chance.choice(("application/x-ndjson", "application/x-ndjson", "application/json"))}
        return await self._post("TranslateStream", http1.request_bytes("POST", PATHS["TranslateStream"], headers, body))

    async def _post(self, method: str, request: bytes) -> str:
        try:
            async with http1.connected(self._service.http_address) as (reader, writer):
                writer.write(request)
                async with asyncio.timeout(_PATIENCE_SECONDS / 2):
                    reply = await http1.read_reply(reader)
        except TimeoutError:
            if METHODS[method].server_streaming:
                return "answered"  # and a document so long that the answer still goes on
            raise
        except (EOFError, ConnectionError) as error:
            raise Bad(f"the connection was closed without a reply: {type(error).__name__}") from None
        outcome = of_http(method, reply, 0.0)
        if outcome.code == "OK":
            return "answered"
        came = self._judged(outcome, {"HTTP_400", "HTTP_404", "HTTP_405"})
        has_begun = reply.status == 200  # and was refused in the middle
        if came == "refused" and not has_begun and self._documented[outcome.reason].http_status != str(reply.status):
            raise Bad(f"{outcome.reason} came with HTTP status {reply.status}")
        return came

    def _judged(self, outcome: Outcome, own: set[str]) -> str:
        """Return what came of a call that was not answered; ``own`` are codes of the transport's own."""
        if not outcome.reason and outcome.code in own:
            return f"refused by the transport, {outcome.code}"
        if outcome.code == "INTERNAL" or outcome.reason not in self._documented:
            raise Bad(f"{outcome.code} {outcome.reason or 'without ErrorInfo'}")
        if self._documented[outcome.reason].code != outcome.code:
            raise Bad(f"{outcome.reason} came with {outcome.code}")
        return "refused"

    async def _bytes_to_grpc(self, chance: random.Random) -> str:
        address = chance.choice((self._service.address, self._service.address, self._service.admin_address))
        return await self._raw(address, garbage.for_grpc(chance))

    async def _bytes_to_http(self, chance: random.Random) -> str:
        address = chance.choice(
            (self._service.http_address, self._service.http_address, self._service.admin_http_address)
        )
        return await self._raw(address, garbage.for_http(chance))

    async def _raw(self, address: str, conversation: garbage.Conversation) -> str:
        """Say it all and listen for a moment; what comes back is the transport's, but no failure."""
        heard = b""
        try:
            async with http1.connected(address) as (reader, writer):
                for part in conversation.parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(conversation.pause_seconds)
                if conversation.half_closed:
                    writer.write_eof()
                async with asyncio.timeout(_LISTEN_SECONDS):
                    heard = await reader.read(4096)
        except (TimeoutError, OSError):
            pass
        if heard.startswith((b"HTTP/1.1 500", b"HTTP/1.1 502")):
            raise Bad(f"{conversation.name}: {heard[:20].decode()}")
        return "said"


def _document_messages(chance: random.Random) -> list[bytes]:
    """Return right messages of a document, in the right order."""
    options = pb.DocumentOptions(last_sequence_id=chance.choice((0, -1, 1, 2**63 - 1)))
    text = pb.TranslateStreamRequest(text=f"{MARKER} sees the house. \n\n It is small.")
    return [pb.TranslateStreamRequest(options=options).SerializeToString(), text.SerializeToString(), b""]
