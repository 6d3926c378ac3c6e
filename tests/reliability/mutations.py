"""Requests that are almost right: messages and JSON filled by the proto, then broken in one of its fields or bytes."""

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

MARKER = "Zyzzyva"  # in every text: what of it turns up in a log was a user's

Chance: TypeAlias = random.Random

_INTEGERS = (0, 1, -1, 2, 3, 17, 4096, 2**15, 2**31 - 1, -(2**31))
_LONG_INTEGERS = (*_INTEGERS, 2**53 + 1, 2**63 - 1, -(2**63))
_DOUBLES = (0.0, -0.0, 0.5, 1.0, -1.0, 5e-324, 1.8e308, float("nan"), float("inf"), -float("inf"))
_STRINGS = (
    *("", " ", "\0", "\n\r\t", "\x7f\x1b[31m", "\u202e\u200b\ufeff", "\U0010ffff\ufffe", "e" + "\u0301" * 500),
    *("ﬁ ﷺ ½ 𝔄 İ ß", "👩‍👩‍👧‍👦" * 50, "../../../etc/passwd", "%s%n{0}${x}", "<b>&amp;</b>", "en-fr@", "@", "a" * 64),
    *(
        "a" * 100_000,
        "word " * 5_000,
        "12345678 " * 300,
        "https://example.org/?q=" + "x" * 300,
        "日本語の文章です。" * 100,
    ),
)
_NOT_UTF8 = (b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\xe2\x82", b"\x80" * 100)
_JSON_VALUES: Sequence[Any] = (
    *(None, True, False, 0, -1, 1.5, 1e300, 2**31, 2**63, 2**64, -(2**70), "", "x", "NaN", "-Infinity", "1e5", "\0"),
    *([], {}, [[]], [None], {"": 0}, {"a": {"b": {}}}, [1, "2", {}], [[[[[[]]]]]], "\U0010ffff", "a" * 70_000),
)
_JSON_TEXTS = (
    *("", " ", "null", "[]", "1", '""', "{", "}", "{}", "[{}]", "{}{}", "{,}", "{'text': 1}", '{"text": undefined}'),
    *('{"text": "\\ud800"}', '{"\\udfff": 1}', '{"texts": ["a"], "texts": ["b"]}', '{"text": "\x01"}', "// {}"),
    *("[" * 100_000, '{"a":' * 50_000, '{"options": ' * 5_000 + "1", '{"text": ' + "9" * 50_000 + "}", "1e999999999"),
    *('{"options": {"lengthPenalty": NaN}}', '{"options": {"beamSize": 1e999}}', '{"a": 1' + ' , "a": 1' * 5_000 + "}"),
)
_LENGTH_DELIMITED = 2


def filled(kind: Descriptor, chance: Chance) -> Message:
    """Return a message of that kind with about half of its fields set to something reasonable."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if chance.random() < 0.5:
            _set(message, field, [_reasonable(field, chance) for _ in range(chance.randint(1, 3))])
    return message


def broken_bytes(kind: Descriptor, chance: Chance) -> bytes:
    """Return the bytes of a message of that kind with something wrong in them; at times they are still valid."""
    message = filled(kind, chance)
    if chance.random() < 0.6:
        for _ in range(chance.randint(1, 3)):
            _break_field(message, chance)
        return bytes(message.SerializeToString())
    break_bytes = chance.choice(_BYTE_FAULTS)
    return break_bytes(message.SerializeToString(), kind, chance)


def broken_json(kind: Descriptor, chance: Chance) -> bytes:
    """Return JSON for a message of that kind with something wrong in it; at times it is still valid."""
    way = chance.random()
    if way < 0.15:
        return chance.choice(_JSON_TEXTS).encode("utf-8", "surrogatepass")
    fields: dict[str, Any] = json_format.MessageToDict(filled(kind, chance))
    if way < 0.7:
        for _ in range(chance.randint(1, 3)):
            _break_json(fields, kind, chance)
        return json.dumps(fields, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    written = json.dumps(fields, ensure_ascii=False)
    if way < 0.8:
        return written.encode(chance.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037")), "replace")
    return _scrambled(written.encode(), kind, chance)


def _reasonable(field: FieldDescriptor, chance: Chance) -> Any:
    if field.message_type is not None:
        return filled(field.message_type, chance)
    if field.enum_type is not None:
        return chance.choice(field.enum_type.values).number
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice((f"{MARKER} sees the house.", "", "en", "fr", "La maison."))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    return chance.choice((0, 1, 2, 4))


def _hostile(field: FieldDescriptor, chance: Chance) -> Any:
    if field.message_type is not None:
        return filled(field.message_type, chance)
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(_STRINGS) + chance.choice(("", MARKER))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return chance.choice(_DOUBLES)
    return chance.choice(_LONG_INTEGERS if field.type == FieldDescriptor.TYPE_INT64 else _INTEGERS)


def _set(message: Message, field: FieldDescriptor, values: Sequence[Any]) -> None:
    """Set ``field``: a list to ``values``, anything else to the first of them."""
    if field.is_repeated:
        getattr(message, field.name).extend(values)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(values[0])
    else:
        setattr(message, field.name, values[0])


def _break_field(message: Message, chance: Chance) -> None:
    """Put something hostile into a field of ``message`` or of a message inside it."""
    field = chance.choice(message.DESCRIPTOR.fields) if message.DESCRIPTOR.fields else None
    if field is None:
        return
    inside = field.message_type is not None and not field.is_repeated
    if inside and chance.random() < 0.8:
        return _break_field(getattr(message, field.name), chance)
    if field.is_repeated:
        message.ClearField(field.name)
        count = chance.choice((0, 1, 2, 16, 129, 1025, 4097))
        few = [_hostile(field, chance) for _ in range(min(count, 3))]
        _set(message, field, [few[index % 3] for index in range(count)] if count > 100 else few)
    else:
        _set(message, field, [_hostile(field, chance)])


def _break_json(fields: dict[str, Any], kind: Descriptor, chance: Chance) -> None:
    """Put a wrong value, or a field that does not exist, into an object or one inside it."""
    names = [field.json_name for field in kind.fields]
    name = chance.choice([*names, *names, "unknown", "", "__proto__", "@type", "text\0"])
    field = kind.fields_by_camelcase_name.get(name)
    inner = fields.get(name)
    if field is not None and field.message_type is not None and isinstance(inner, dict) and chance.random() < 0.8:
        return _break_json(inner, field.message_type, chance)
    fields[name] = chance.choice(_JSON_VALUES)


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def _tag(field_number: int, wire_type: int) -> bytes:
    return _varint(field_number << 3 | wire_type)


def _scrambled(payload: bytes, kind: Descriptor, chance: Chance) -> bytes:
    """Cut, flip, insert, double or remove bytes."""
    data = bytearray(payload)
    at, size = chance.randrange(len(data) + 1), chance.randint(1, 8)
    change = chance.randrange(5)
    if change == 0:
        del data[at:]
    elif change == 1:
        for _ in range(size * bool(data)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif change == 2:
        data[at:at] = chance.randbytes(size)
    elif change == 3:
        data[at:at] = data[: chance.randrange(len(data) + 1)]
    else:
        del data[at : at + size]
    return bytes(data)


def _noise(payload: bytes, kind: Descriptor, chance: Chance) -> bytes:
    return chance.randbytes(chance.choice((1, 2, 10, 100, 5_000)))


def _wrong_wire_type(payload: bytes, kind: Descriptor, chance: Chance) -> bytes:
    """Send a field of the message, or one that it does not have, as another type than it is."""
    number = chance.choice([*kind.fields_by_number, 99, 19_000, 2**29 - 1, 0])
    value = chance.choice((b"\x05", struct.pack("<q", -1), struct.pack("<f", 1.0), b"\x03abc", b"\xff" * 11))
    return payload + _tag(number, chance.randrange(8)) + value


def _false_length(payload: bytes, kind: Descriptor, chance: Chance) -> bytes:
    """Promise more bytes than come."""
    length = chance.choice((1, 100, 2**20, 2**31 - 1, 2**32, 2**63, 2**64 - 1))
    return payload + _tag(chance.choice([*kind.fields_by_number, 99]), _LENGTH_DELIMITED) + _varint(length)


def _groups(payload: bytes, kind: Descriptor, chance: Chance) -> bytes:
    """Open groups inside groups, which proto3 has no use for, and close them or not."""
    depth, number = chance.choice((1, 50, 99, 101, 10_000, 200_000)), chance.choice((1, 99))
    closed = chance.random() < 0.5
    return payload + _tag(number, 3) * depth + _tag(number, 4) * (depth * closed)


def _not_utf8(payload: bytes, kind: Descriptor, chance: Chance) -> bytes:
    """Put bytes that are no text where text must be, or may be, inside other messages too."""
    number = chance.choice([*kind.fields_by_number, 99])
    text = chance.choice(_NOT_UTF8)
    for _ in range(chance.choice((1, 1, 2, 3, 5_000))):
        payload += _tag(number, _LENGTH_DELIMITED) + _varint(len(text)) + text
    if chance.random() < 0.3:
        inner = _tag(chance.randint(1, 5), _LENGTH_DELIMITED) + _varint(len(text)) + text
        payload += _tag(number, _LENGTH_DELIMITED) + _varint(len(inner)) + inner
    return payload


_BYTE_FAULTS: Sequence[Callable[[bytes, Descriptor, Chance], bytes]] = (
    *(_scrambled, _scrambled, _scrambled, _noise, _wrong_wire_type, _wrong_wire_type, _false_length),
    *(_groups, _not_utf8),
)
