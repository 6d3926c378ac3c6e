"""From bytes that anybody may have written to typed values: strict JSON, and what is wrong with it, all at once.

Nothing here trusts its input: a document may be deep, hold numbers that no other program could read back, or name a key
twice so that two readers see two different documents.
"""

import dataclasses
import json
import math
import types
import typing
from collections import Counter
from collections.abc import Sequence
from typing import Any

Json = Any  # a JSON value; its shape is the business of the module that writes it

MAX_DEPTH = 32  # lists and objects inside each other; real documents have 5
_INT64 = range(-(2**63), 2**63)
_MAX_DIGITS = 20  # of an integer: enough for any of 64 bits, and too few to make parsing slow
_SHOWN = 40  # characters of a number or key that a fault repeats


def parse(content: bytes) -> Json:
    """Return the value of a JSON document in UTF-8.

    Raises:
        ValueError: It is none; or it names a key twice, nests deeper than ``MAX_DEPTH``, or holds a number outside of
            64 bits, one that is not finite, or text that is not Unicode.
    """
    try:
        value = json.loads(
            content.decode(),
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_finite,
            object_pairs_hook=_object,
        )
        _refuse_depth(value, MAX_DEPTH)
        json.dumps(value, ensure_ascii=False).encode()  # an escape can spell half a character, which nothing can write
    except RecursionError:
        raise ValueError(f"it nests deeper than {MAX_DEPTH} levels") from None
    except UnicodeEncodeError:
        raise ValueError("a string holds a lone surrogate, so it is not Unicode") from None
    return value


def decode(value: Json, expected: Any, where: str, faults: list[str]) -> Any:
    """Return ``value`` as the type ``expected``, adding to ``faults`` every place where it is something else.

    Args:
        value: What ``parse`` returned, or a part of it.
        expected: A frozen dataclass, ``int``, ``str``, ``Json``, or a ``dict``, ``tuple`` or ``| None`` of such.
        where: Path of the value; empty for the whole document.
        faults: Where to add one sentence a fault; what is returned is whole only if none was added.
    """
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Json:
        return value
    if origin is types.UnionType:
        return None if value is None else decode(value, arguments[0], where, faults)
    if dataclasses.is_dataclass(expected):
        return _decode_fields(value, expected, where, faults)
    if origin is dict and isinstance(value, dict):
        return {key: decode(item, arguments[1], f"{where}.{key}", faults) for key, item in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(decode(item, arguments[0], f"{where}[{index}]", faults) for index, item in enumerate(value))
    if expected in (int, str) and type(value) is expected:  # not isinstance: JSON true is no integer
        return value
    wanted = {dict: "an object", tuple: "a list", int: "an integer", str: "a string"}[origin or expected]
    faults.append(f"{where or 'the document'} is {kind_of(value)}; it must be {wanted}")
    return None


def kind_of(value: Json) -> str:
    """Return what a person calls a value of this JSON type, with its article.

    >>> kind_of([]), kind_of(None)
    ('a list', 'null')
    """
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "an integer"}
    return "null" if value is None else names.get(type(value), "a number")


def _decode_fields(value: Json, expected: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(value, dict):
        faults.append(f"{where or 'the document'} is {kind_of(value)}; it must be an object")
        return None
    hints = typing.get_type_hints(expected)
    prefix = f"{where}." if where else ""
    faults.extend(f"{prefix}{key[:_SHOWN]} is not a key of this format" for key in value.keys() - hints.keys())
    faults.extend(f"{prefix}{key} is missing" for key in hints.keys() - value.keys())
    known = {key: decode(value[key], hints[key], prefix + key, faults) for key in hints if key in value}
    return None if faults else expected(**known)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS or int(digits) not in _INT64:
        raise ValueError(f"the number {digits[:_SHOWN]} does not fit into 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:_SHOWN]} is too large")
    return number


def _object(pairs: Sequence[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:_SHOWN]!r} stands twice in one object")
    return found


def _refuse_depth(value: Json, levels: int) -> None:
    if isinstance(value, dict | list):
        if levels == 0:
            raise RecursionError
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_depth(part, levels - 1)
