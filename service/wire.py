"""Bytes to messages and back, as protobuf and as JSON; what is no message is refused by the name of the field at fault.

JSON is protobuf's own mapping. No error repeats a value of the caller's, for it may be their text.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sized
from typing import Any, TypeVar

from google.protobuf import empty_pb2, json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from service.errors import InvalidRequest, MessageInvalid, OptionOutOfRange, TextInvalid, UnknownEnumValue

Request = TypeVar("Request", bound=Message)

MOST_ITEMS = 4096  # of a list; looking through one that fills a request would hold up every other caller

_LENGTH_DELIMITED = 2  # wire type of strings and messages
_SHOWN_KEY = 64  # characters of a key of the caller's that an error repeats
_NAMES_OF_TYPES = {
    FieldDescriptor.TYPE_STRING: "a string",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.TYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.TYPE_DOUBLE: "a number",
}


def parse(request_type: type[Request], payload: bytes) -> Request:
    """Return the request that ``payload`` encodes.

    Raises:
        TextInvalid: A string is not valid UTF-8; the error names it.
        MessageInvalid: The bytes are no message of this type.
        UnknownEnumValue: An enum holds a number this version does not know.
    """
    name = request_type.DESCRIPTOR.full_name
    try:
        request: Request = request_type.FromString(payload)
    except DecodeError:
        try:
            field = next(_fields_not_utf8(payload, request_type.DESCRIPTOR), None)
        except DecodeError:
            field = None
        if field is None:
            raise MessageInvalid("", f"the bytes are not a message of type {name}") from None
        raise TextInvalid(field, f"{field} is not valid UTF-8; convert the text before sending it") from None
    _check_lists_and_enums(request)
    return request


def parse_json(request_type: type[Request], payload: bytes) -> Request:
    """Return the request that ``payload`` holds as JSON, its fields named as in the proto or in lowerCamelCase.

    Raises:
        TextInvalid: The bytes are not UTF-8, or a string holds half a surrogate pair.
        MessageInvalid: They are no JSON object, or a key stands twice in one, or a field is unknown or of another type.
        UnknownEnumValue: An enum holds a name or number this version does not know.
    """
    try:
        fields = json.loads(payload.decode(), object_pairs_hook=_without_repetition)
    except UnicodeDecodeError:
        raise TextInvalid("", "the body is not valid UTF-8; convert it before sending it") from None
    except (ValueError, RecursionError) as error:
        place = _place(error) if isinstance(error, json.JSONDecodeError) else ""
        raise MessageInvalid("", f"the body is not JSON{place}; send one object, and no key twice in it") from None
    if not isinstance(fields, dict):
        raise MessageInvalid("", "the body is JSON, but not an object")
    _check_shape(request_type.DESCRIPTOR, fields)
    request: Request = request_type()
    if not _read_into(request, fields):
        raise _fault(request_type, fields, "")
    _check_lists_and_enums(request)
    return request


def write_json(message: Message) -> bytes:
    """Return ``message`` as JSON in UTF-8, without spaces."""
    fields = json_format.MessageToDict(message)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _place(error: json.JSONDecodeError) -> str:
    """Return where JSON is torn; its only line has no number, for it may be one of a body of many messages."""
    return f" at line {error.lineno}, column {error.colno}" if "\n" in error.doc else f" at column {error.colno}"


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of the body; half a surrogate pair in a key, which protobuf fails on, becomes its escape."""
    fields = {key.encode(errors="backslashreplace").decode(): value for key, value in pairs}
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


def _read_into(message: Message, fields: dict[str, Any]) -> bool:
    """Fill ``message`` from JSON; return whether all of it could be read."""
    try:
        json_format.ParseDict(fields, message)
    except (json_format.ParseError, RecursionError):
        return False
    return True


def _fault(kind: type[Message], fields: dict[str, Any], path: str) -> InvalidRequest:
    """Return what is wrong with the first of ``fields`` that cannot be read, each tried alone."""
    known = {name: field for field in kind.DESCRIPTOR.fields for name in (field.name, field.json_name)}
    where = path.rstrip(".")
    for key, value in fields.items():
        if key not in known:
            names = ", ".join(field.name for field in kind.DESCRIPTOR.fields)
            shown = key[:_SHOWN_KEY]
            return MessageInvalid(f"{path}{shown}", f"{where or 'the request'} has no field {shown!r}; it has {names}")
        if not _read_into(kind(), {key: value}):
            return _fault_of_field(kind, known[key], value, f"{path}{known[key].name}")
    return MessageInvalid(where, f"{where or 'the request'} sets two fields of which only one may be set")


def _fault_of_field(kind: type[Message], field: FieldDescriptor, value: Any, name: str) -> InvalidRequest:
    """Return what is wrong with a field whose value cannot be read."""
    if field.is_repeated:
        if not isinstance(value, list):
            return MessageInvalid(name, f"{name} is not a list")
        index = _first_fault(kind, field, value)
        value, name = value[index], f"{name}[{index}]"
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _fault(GetMessageClass(field.message_type), value, f"{name}.")
    if field.type == FieldDescriptor.TYPE_ENUM:
        return UnknownEnumValue(name, f"{name} is unknown; known values are {_names(field)}")
    if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, str):
        return TextInvalid(name, f"{name} holds half a surrogate pair, which is no character; remove it")
    return MessageInvalid(name, f"{name} is not {_NAMES_OF_TYPES[field.type]}")


def _first_fault(kind: type[Message], field: FieldDescriptor, items: list[Any]) -> int:
    """Return which item of a list, one of which cannot be read, is the first: by halves, which reads each item once."""
    start, end = 0, len(items)
    while end - start > 1:
        middle = (start + end) // 2
        if _read_into(kind(), {field.name: items[start:middle]}):
            start = middle
        else:
            end = middle
    return start


def _names(field: FieldDescriptor) -> str:
    return ", ".join(value.name for value in field.enum_type.values)


def _fields_not_utf8(payload: bytes, descriptor: Descriptor, path: str = "") -> Iterator[str]:
    """Yield the paths of the strings in ``payload`` that are not UTF-8, in order; none of a part that is too long.

    Raises:
        DecodeError: The bytes are no message at all.
    """
    seen: Counter[str] = Counter()
    parts = UnknownFieldSet(empty_pb2.Empty.FromString(payload))
    if len(parts) > MOST_ITEMS:
        return
    for part in parts:
        field = descriptor.fields_by_number.get(part.field_number)
        if field is None or part.wire_type != _LENGTH_DELIMITED:
            continue
        name = f"{path}{field.name}[{seen[field.name]}]" if field.is_repeated else f"{path}{field.name}"
        seen[field.name] += 1
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _fields_not_utf8(part.data, field.message_type, f"{name}.")
        elif field.type == FieldDescriptor.TYPE_STRING:
            try:
                part.data.decode()
            except UnicodeDecodeError:
                yield name


def _check_shape(descriptor: Descriptor, fields: dict[str, Any], path: str = "") -> None:
    """Refuse lists in JSON that are too long, and what protobuf would read as an empty message though it is no object.

    Raises:
        OptionOutOfRange: A list is too long.
        MessageInvalid: There is something else where an object must be.
    """
    for key, value in fields.items():
        field = descriptor.fields_by_name.get(key) or descriptor.fields_by_camelcase_name.get(key)
        if field is None or value is None or (field.is_repeated and not isinstance(value, list)):
            continue  # unset, or refused where it is read
        name = f"{path}{field.name}"
        if field.is_repeated:
            _check_length(name, value)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for where, item in _items(field, value, name):
                if not isinstance(item, dict):
                    raise MessageInvalid(where, f"{where} is not an object")
                _check_shape(field.message_type, item, f"{where}.")


def _check_lists_and_enums(message: Message, path: str = "") -> None:
    """Refuse lists that are too long, and enums that hold a number that they do not have.

    Raises:
        OptionOutOfRange: A list is too long.
        UnknownEnumValue: An enum holds such a number.
    """
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        if field.is_repeated:
            _check_length(name, value)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for where, item in _items(field, value, name):
                _check_lists_and_enums(item, f"{where}.")
        elif field.type == FieldDescriptor.TYPE_ENUM:
            for where, number in _items(field, value, name):
                if number not in field.enum_type.values_by_number:
                    raise UnknownEnumValue(where, f"{where} is {number}; known values are {_names(field)}")


def _check_length(name: str, items: Sized) -> None:
    if len(items) > MOST_ITEMS:
        raise OptionOutOfRange(name, f"{name} has {len(items)} items; allowed is up to {MOST_ITEMS}")


def _items(field: FieldDescriptor, value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield path and value of what stands in a field: the items of a list, or its only value."""
    if field.is_repeated:
        yield from ((f"{name}[{index}]", item) for index, item in enumerate(value))
    else:
        yield name, value
