"""JSON that anybody may have written: what is accepted means one thing, and what is refused is refused in time."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.decoding import MAX_DEPTH, parse

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_can_say_is_read_as_any_other_reader_does(value: Any) -> None:
    text = json.dumps(value)
    assert parse(text.encode()) == json.loads(text)


@given(st.binary(max_size=200))
def test_bytes_are_read_or_refused_with_a_value_error(content: bytes) -> None:
    try:
        parse(content)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice"),
        ("NaN", "NaN is no JSON number"),
        ("-Infinity", "-Infinity is no JSON number"),
        ("1e999", "the number 1e999 is too large"),
        (str(2**63), "does not fit into 64 bits"),
        (str(-(2**63) - 1), "does not fit into 64 bits"),
        ("9" * 1_000_000, "does not fit into 64 bits"),
        ('"\\ud800"', "lone surrogate"),
        ('{"\\udfff": 1}', "lone surrogate"),
        ("[" * 200_000, "nests deeper than 32 levels"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nests deeper than 32 levels"),
        ('{"a":' * 500_000, "nests deeper than 32 levels"),
        ("", "Expecting value"),
        ("\ufeff{}", "BOM"),
    ],
)
def test_what_two_readers_might_read_differently_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse(text.encode())


def test_the_deepest_and_the_largest_that_are_allowed_are_read() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is not None
    assert parse(str(2**63 - 1).encode()) == 2**63 - 1
    assert math.isclose(parse(b"1e308"), 1e308)
