"""Bytes for the bare ports that no client would send: frames of HTTP/2, requests of HTTP/1.1, and noise.

A conversation is what one connection says: parts, with pauses between them, and how it ends. The frames are those of
RFC 9113; floods and resets are the attacks that servers have been taken down with.
"""

import itertools
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.reliability.mutations import MARKER

Chance: TypeAlias = random.Random

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PATH = "/interlinear.v1.TranslationService/Translate"
_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    range(10)
)
_END_STREAM, _END_HEADERS = 0x1, 0x4
_CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(195)
_BODY = b'{"texts": ["The house is small."]}'
_HEAD = b"POST /v1/translate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


Maker: TypeAlias = "Callable[[Chance], Conversation]"


@dataclass(frozen=True)
class Conversation:
    """What one connection says.

    Attributes:
        name: What is wrong with it.
        parts: Bytes to send, one after the other.
        pause_seconds: Between two of them.
        half_closed: Whether to say afterwards that nothing more comes.
    """

    name: str
    parts: Sequence[bytes]
    pause_seconds: float = 0.0
    half_closed: bool = False


def for_grpc(chance: Chance) -> Conversation:
    """Return something to say to the port of gRPC."""
    make = chance.choice(_FOR_GRPC)
    return Conversation(make.__name__.strip("_"), make(chance), *_ending(chance))


def calls(path: str, count: int = 1, *headers: tuple[str, str]) -> bytes:
    """Return calls of one connection to ``path``, a byte a character; each but the last is given up at once."""
    block = _headers((":path", path), *headers)
    numbers = range(1, 2 * count, 2)
    begun = [_frame(_HEADERS, _END_HEADERS | _END_STREAM, number, block) for number in numbers]
    resets = [_frame(_RST_STREAM, 0, number, struct.pack(">I", 8)) for number in numbers[:-1]]
    return b"".join(_begin(*(frame for pair in itertools.zip_longest(begun, resets, fillvalue=b"") for frame in pair)))


def for_http(chance: Chance) -> Conversation:
    """Return something to say to the port of HTTP."""
    make = chance.choice(_FOR_HTTP)
    return Conversation(make.__name__.strip("_"), make(chance), *_ending(chance))


def _ending(chance: Chance) -> tuple[float, bool]:
    return chance.choice((0.0, 0.0, 0.001)), chance.random() < 0.3


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _text(value: str) -> bytes:
    """Return a string of HPACK, without Huffman."""
    written = value.encode("latin-1", "replace")
    if len(written) < 127:
        return bytes([len(written)]) + written
    more, length = bytearray(), len(written) - 127
    while length > 0x7F:
        more.append(length & 0x7F | 0x80)
        length >>= 7
    return b"\x7f" + bytes([*more, length]) + written


def _headers(*changes: tuple[str, str]) -> bytes:
    """Return the header block of a call, with ``changes`` to its headers or besides them."""
    usual = {":method": "POST", ":scheme": "http", ":path": _PATH, ":authority": "localhost"}
    usual |= {"te": "trailers", "content-type": "application/grpc", **dict(changes)}
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in usual.items())


def _begin(*frames: bytes) -> list[bytes]:
    return [_PREFACE + _frame(_SETTINGS, 0, 0), *frames]


def _noise(chance: Chance) -> list[bytes]:
    return [chance.randbytes(chance.choice((1, 9, 100, 5_000)))]


def _tls(chance: Chance) -> list[bytes]:
    return [_CLIENT_HELLO]


def _nothing(chance: Chance) -> list[bytes]:
    return []


def _random_frames(chance: Chance) -> list[bytes]:
    frames = []
    for _ in range(chance.randint(1, 20)):
        stream = chance.choice((0, 1, 2, 3, 2**31 - 1))
        payload = chance.randbytes(chance.choice((0, 1, 4, 8, 100, 20_000)))
        frames.append(_frame(chance.choice((*range(12), 255)), chance.randrange(256), stream, payload))
    return _begin(*frames)


def _false_frame_length(chance: Chance) -> list[bytes]:
    frame = bytearray(_frame(chance.randrange(10), 4, 1, _headers()))
    frame[0:3] = chance.randbytes(3)
    return _begin(bytes(frame))


def _absurd_settings(chance: Chance) -> list[bytes]:
    values = (struct.pack(">HI", chance.randrange(10), chance.choice((0, 1, 2**31, 2**32 - 1))) for _ in range(20))
    return [_PREFACE + _frame(_SETTINGS, 0, 0, b"".join(values)), _frame(_HEADERS, 5, 1, _headers())]


def _flood(chance: Chance) -> list[bytes]:
    flooded = chance.choice(
        (
            _frame(_PING, 0, 0, bytes(8)),
            _frame(_SETTINGS, 0, 0),
            _frame(_SETTINGS, 1, 0),
            _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
            _frame(_PRIORITY, 0, 1, bytes(5)),
            _frame(_DATA, 0, 1),
            _frame(_GOAWAY, 0, 0, bytes(8)),
        )
    )
    return _begin(*[flooded * 100] * 20)


def _rapid_resets(chance: Chance) -> list[bytes]:
    block = _headers()
    reset = struct.pack(">I", 8)
    pairs = (_frame(_HEADERS, 4, at, block) + _frame(_RST_STREAM, 0, at, reset) for at in range(1, 400, 2))
    return _begin(*pairs)


def _endless_headers(chance: Chance) -> list[bytes]:
    more = _frame(_CONTINUATION, 0, 1, b"\x00" + _text("x-long") + _text("y" * 4_000))
    return _begin(_frame(_HEADERS, 0, 1, _headers()), *[more * 10] * chance.choice((1, 10)))


def _bad_hpack(chance: Chance) -> list[bytes]:
    blocks = (
        b"\x80",
        b"\xff" * 12,
        b"\x3f\xff\xff\xff\xff\x7f",
        b"\x00\x85\xff\xff\xff\xff\xff\x01a",
        b"\x40\x7f\xff\xff",
    )
    grown = b"\x40" + _text("x-bomb") + _text("z" * 3_000) + b"\xbe" * 10_000  # one entry, referred to again and again
    return _begin(_frame(_HEADERS, 5, 1, chance.choice((*blocks, grown, chance.randbytes(200)))))


def _odd_call_headers(chance: Chance) -> list[bytes]:
    changes = chance.choice(
        (
            *(
                ("grpc-timeout", value)
                for value in ("abc", "-1S", "0n", "99999999999H", "1", "", "9999999999S", "1.5S")
            ),
            *(
                (":path", value)
                for value in ("", "/", "*", "//x", _PATH + "/more", "/interlinear.v1.Nothing/At", "é" * 99)
            ),
            *((":method", value) for value in ("GET", "CONNECT", "", "post")),
            *(("content-type", value) for value in ("text/html", "application/grpc+json", "", "application/grpc-web")),
            *(("grpc-encoding", value) for value in ("gzip", "deflate", "identity", "nothing", "")),
            *(
                ("authorization", value)
                for value in ("Bearer", "Bearer ", "Basic eA==", "Bearer " + "k" * 5_000, "\x00")
            ),
            *(
                ("traceparent", value)
                for value in ("00-0-0-0", "ff-" + "f" * 60, "00-" + "0" * 32 + "-" + "0" * 16 + "-01")
            ),
            *(("te", ""), (":scheme", "gopher"), ("Upper", "case"), ("x-request-id", "\r\nx: y"), (":unknown", "1")),
            *(("grpc-trace-bin", "%%%"), ("x-api-key", "\xff\xfe" + MARKER), ("connection", "close"), ("", "empty")),
        )
    )
    return _begin(_frame(_HEADERS, 4, 1, _headers(changes)), _frame(_DATA, 1, 1, b"\x00\x00\x00\x00\x00"))


def _bad_message(chance: Chance) -> list[bytes]:
    flag, length = chance.choice((0, 1, 2, 255)), chance.choice((0, 1, 10, 2**22 + 1, 2**31, 2**32 - 1))
    data = bytes([flag]) + struct.pack(">I", length) + chance.randbytes(chance.choice((0, 9, 5_000)))
    return _begin(_frame(_HEADERS, 4, 1, _headers()), _frame(_DATA, chance.randrange(2), 1, data))


def _bad_streams(chance: Chance) -> list[bytes]:
    block = _headers()
    wrong = (
        [_frame(_HEADERS, 5, 2, block)],
        [_frame(_HEADERS, 5, 0, block)],
        [_frame(_DATA, 1, 1, b"x")],
        [_frame(_HEADERS, 5, 9, block), _frame(_HEADERS, 5, 1, block)],
        [_frame(_HEADERS, 5, 1, block), _frame(_DATA, 1, 1, b"late")],
        [_frame(_PUSH_PROMISE, 4, 1, struct.pack(">I", 2) + block)],
        [_frame(_WINDOW_UPDATE, 0, 0, bytes(4))],
        [_frame(_HEADERS, 0x24, 1, struct.pack(">IB", 1, 0) + block)],
        [_frame(_HEADERS, 0x0C, 1, b"\xff" + block)],
    )
    return _begin(*chance.choice(wrong))


def _drip(chance: Chance) -> list[bytes]:
    """Say something right, very slowly."""
    whole = b"".join(_begin(_frame(_HEADERS, 4, 1, _headers())))
    return [whole[at : at + 4] for at in range(0, len(whole), 4)]


def _http_to_grpc(chance: Chance) -> list[bytes]:
    return [_HEAD + b"content-length: 2\r\n\r\n{}"]


def _preface_to_http(chance: Chance) -> list[bytes]:
    return _begin(_frame(_HEADERS, 5, 1, _headers()))


def _bad_request_line(chance: Chance) -> list[bytes]:
    lines = (
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 500,
        b"GET  / HTTP/1.1\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
    )
    more = (
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
    )
    targets = (
        b"http://other/v1/models",
        b"*",
        b"/v1/../../etc/passwd",
        b"/%00",
        b"/v1/models/%ff%fe",
        b"/v1//translate",
    )
    odd = (b"GET " + target + b" HTTP/1.1\r\nhost: a\r\n\r\n" for target in targets)
    return [chance.choice((*lines, *more, *odd))]


def _bad_http_headers(chance: Chance) -> list[bytes]:
    wrong = (b"no colon", b"na me: 1", b": empty", b"a\x00b: 1", b"x: \x01\x02", b" folded: 1", b"x:" + b"y" * 100_000)
    more = (b"host: b", b"expect: 100-continue", b"upgrade: h2c", b"connection: upgrade\r\nupgrade: websocket")
    odd = (b"x-timeout-seconds: nan", b"x-timeout-seconds: 1e999", b"x-timeout-seconds: -1", b"x-timeout-seconds: \xff")
    keys = (
        b"authorization: Bearer",
        b"authorization: \xff\xfe",
        b"x-api-key: \xff" + MARKER.encode() * 999,
        b"traceparent: 00-zz-zz-zz",
    )
    many = b"\r\n".join(b"x-%d: y" % number for number in range(2_000))
    line = chance.choice((*wrong, *more, *odd, *keys, many))
    return [_HEAD + line + b"\r\ncontent-length: %d\r\n\r\n" % len(_BODY), _BODY]


def _bad_length(chance: Chance) -> list[bytes]:
    lengths = (
        b"-1",
        b"+5",
        b"abc",
        b"",
        b"1, 2",
        b"99999999999999999999",
        b"4194305",
        b"5",
        b"500",
        b"0x10",
        b"1\r\ncontent-length: 2",
    )
    return [_HEAD + b"content-length: " + chance.choice(lengths) + b"\r\n\r\n" + _BODY]


def _bad_chunks(chance: Chance) -> list[bytes]:
    chunks = (
        b"zz\r\n",
        b"-1\r\nx",
        b"ffffffffffffffff\r\nx",
        b"5\r\nabc",
        b"0\r\n\r\n",
        b"3;" + b"e" * 50_000 + b"\r\nabc\r\n0\r\n\r\n",
    )
    twice = b"content-length: 3\r\n" if chance.random() < 0.3 else b""
    coding = chance.choice((b"chunked", b"chunked, chunked", b"gzip", b"identity", b"x"))
    return [_HEAD + twice + b"transfer-encoding: " + coding + b"\r\n\r\n", chance.choice(chunks)]


def _pipelined(chance: Chance) -> list[bytes]:
    one = _HEAD + b"content-length: 2\r\n\r\n{}"
    return [one * chance.choice((2, 50))]


def _drip_http(chance: Chance) -> list[bytes]:
    whole = _HEAD + b"content-length: 34\r\n\r\n" + _BODY
    return [whole[at : at + 4] for at in range(0, chance.randrange(len(whole)), 4)]


_FOR_GRPC: Sequence[Callable[[Chance], list[bytes]]] = (
    *(_noise, _tls, _nothing, _random_frames, _false_frame_length, _absurd_settings, _flood, _rapid_resets),
    *(
        _endless_headers,
        _bad_hpack,
        _odd_call_headers,
        _odd_call_headers,
        _bad_message,
        _bad_streams,
        _drip,
        _http_to_grpc,
    ),
)
_FOR_HTTP: Sequence[Callable[[Chance], list[bytes]]] = (
    *(_noise, _tls, _nothing, _preface_to_http, _bad_request_line, _bad_http_headers, _bad_http_headers, _bad_length),
    *(_bad_chunks, _pipelined, _drip_http),
)
