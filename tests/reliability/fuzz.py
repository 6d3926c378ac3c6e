"""A hundred thousand malformed requests over gRPC and HTTP, aware of their structure or mere bytes: nothing happens.

The bars: the process lives through it and answers a right request at any moment, every reply is one that docs/api.md
knows, nothing is answered INTERNAL or without ErrorInfo, nothing a user sent is in the log, and memory stays bounded.
Every case is made from the seed and its own number; ``--case`` sends one of them again and prints what comes back.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from rich.console import Console
from rich.table import Table

from service.pb import interlinear_pb2 as pb
from tests.reliability import garbage, http1
from tests.reliability.answers import Outcome, documented
from tests.reliability.load import METHODS, PATHS, WAIT, Caller, Target, begin, channel, of_error, of_http
from tests.reliability.mutations import MARKER, broken_bytes, broken_json
from tests.reliability.process import SHIPPED_BUNDLE, Service, running
from tests.reliability.questions import Question
from tests.reliability.verdict import Bar, concluded, none

_CHANNELS = 4
_AT_ONCE = 24
_PATIENCE_SECONDS = 60.0
_LISTEN_SECONDS = 0.05
_MOST_REPLIES = 20
_PROBE_SECONDS = 0.25
_PROBE_PATIENCE_SECONDS = 10.0
_BOUND_BYTES = 512 << 20
_GRPC_OWN = {"RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}  # a message too large, a call that is none: docs/api.md, Errors
_STANDARD_OWN = {*_GRPC_OWN, "NOT_FOUND"}  # health's answer for a service that it does not know
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


@dataclass
class Fuzzed:
    """What happened so far.

    Attributes:
        cases: Number of cases by kind and what came of them.
        faults: What must not have happened, with the numbers of its cases; -1 for a probe.
        probes: Seconds that each right request took meanwhile.
        resident_bytes: Of the service, now and then.
    """

    cases: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: dict[str, list[int]] = field(default_factory=dict)
    probes: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)

    def blame(self, number: int, fault: str) -> None:
        """Note what must not have happened in that case."""
        self.faults.setdefault(fault, []).append(number)

    @property
    def malformed(self) -> int:
        """How many were refused: those that stayed valid do not count."""
        return sum(number for (_, came), number in self.cases.items() if came != "answered")


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
        except grpc.aio.AioRpcError:
            own = _GRPC_OWN if method.name in METHODS else _STANDARD_OWN
            return self._judged(of_error(await begun.error(), 0.0), own)
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
        if came == "refused" and not has_begun and self._documented[outcome.reason].http_status != reply.status:
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


async def fuzz(service: Service, requests: int, seed: int) -> Fuzzed:
    """Send cases until so many were malformed; return what happened."""
    fuzzed, numbers = Fuzzed(), itertools.count()
    async with _fuzzer(service, seed) as fuzzer:
        watching = asyncio.create_task(_probe(service, fuzzed))

        async def keep_sending() -> None:
            for number in numbers:
                if fuzzed.malformed >= requests or not service.alive:
                    return
                try:
                    fuzzed.cases[await fuzzer.send(number)] += 1
                except Bad as bad:
                    fuzzed.blame(number, str(bad))

        await asyncio.gather(*(keep_sending() for _ in range(_AT_ONCE)))
        watching.cancel()
        await asyncio.wait([watching])
    return fuzzed


@contextlib.asynccontextmanager
async def _fuzzer(service: Service, seed: int) -> AsyncIterator[Fuzzer]:
    async with contextlib.AsyncExitStack() as stack:
        channels = [channel(service.address) for _ in range(_CHANNELS)]
        admin_channel = channel(service.admin_address)
        for each in (*channels, admin_channel):
            stack.push_async_callback(each.close)
        yield Fuzzer(service, channels, admin_channel, seed)


async def _probe(service: Service, fuzzed: Fuzzed) -> None:
    """Ask something right again and again, as long as it lasts."""
    asked = Question("Translate", (pb.TranslateRequest(texts=["The house is small."]),))
    async with Caller(Target(service.address, service.http_address)) as caller:
        right = (await caller.ask(asked)).answer
        while True:
            begun = time.perf_counter()
            outcome = await caller.ask(asked, WAIT)
            async with http1.connected(service.http_address) as (reader, writer):
                writer.write(http1.request_bytes("GET", "/readyz", {}))
                ready = await http1.read_reply(reader)
            if outcome.answer != right or ready.status != 200:
                fuzzed.blame(-1, f"a probe got {outcome.code} {outcome.reason}, /readyz {ready.status}")
            fuzzed.probes.append(time.perf_counter() - begun)
            fuzzed.resident_bytes.append(service.resident_bytes())
            await asyncio.sleep(_PROBE_SECONDS)


def bars(fuzzed: Fuzzed, requests: int, service: Service) -> list[Bar]:
    """Return what was promised, and what became of it."""
    slowest, log = max(fuzzed.probes), service.log()
    peak, first = service.peak_bytes() / 2**20, fuzzed.resident_bytes[0] / 2**20
    bound = _BOUND_BYTES / 2**20
    return [
        Bar("malformed requests", f"{requests:,}", f"{fuzzed.malformed:,}", fuzzed.malformed >= requests),
        Bar("the process", "lives", "lives" if service.alive else "ended", service.alive),
        none("replies that must not be", sum(map(len, fuzzed.faults.values()))),
        Bar(
            "right requests meanwhile",
            f"within {_PROBE_PATIENCE_SECONDS:g} s",
            f"{len(fuzzed.probes):,}, slowest {slowest:.2f} s",
            slowest <= _PROBE_PATIENCE_SECONDS,
        ),
        none("calls in flight afterwards", int(service.metrics().total("interlinear_requests_in_flight"))),
        Bar(
            "resident memory, MiB", f"at most {bound:.0f} more", f"{first:.0f}, peak {peak:.0f}", peak <= first + bound
        ),
        none("errors logged", len(_errors(service))),
        none("texts in the log", log.count(MARKER)),
    ]


def _errors(service: Service) -> list[dict[str, object]]:
    return [event for event in service.events() if event["level"] in ("error", "critical")]


def _tell(fuzzed: Fuzzed) -> None:
    table = Table(title=f"{fuzzed.cases.total():,} cases")
    for heading in ("kind", "what came of it"):
        table.add_column(heading)
    table.add_column("cases", justify="right")
    for (kind, came), number in sorted(fuzzed.cases.items()):
        table.add_row(kind, came, f"{number:,}")
    Console(width=120).print(table)
    for fault, numbers in fuzzed.faults.items():
        print(f"{len(numbers):,} times: {fault} (--case {numbers[0]})")


async def _send_one(service: Service, seed: int, number: int) -> str:
    async with _fuzzer(service, seed) as fuzzer:
        return ": ".join(await fuzzer.send(number))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.fuzz", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE, help="folder of the bundle to serve")
    parser.add_argument("--requests", type=int, default=100_000, help="malformed ones to send (default 100,000)")
    parser.add_argument("--seed", type=int, default=1, help="of every case (default 1)")
    parser.add_argument("--case", type=int, help="send only the case of that number")
    given = parser.parse_args(arguments)
    with running(given.bundle) as service:
        if given.case is not None:
            print(asyncio.run(_send_one(service, given.seed, given.case)))
            return 0
        fuzzed = asyncio.run(fuzz(service, given.requests, given.seed))
        found = bars(fuzzed, given.requests, service)
        for event in _errors(service)[:3]:
            print(event)
    _tell(fuzzed)
    return concluded("Fuzz", found)


if __name__ == "__main__":
    sys.exit(main())
