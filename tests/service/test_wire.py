import json
import time
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from service import errors
from service.pb import interlinear_pb2 as pb
from service.wire import parse, parse_json, write_json

KEYS = st.sampled_from(
    [
        "model",
        "texts",
        "text",
        "options",
        "beamSize",
        "beam_size",
        "lengthPenalty",
        "intervention",
        "givenAttention",
        "keptTerms",
        "encoder",
        "flat",
        "weights",
        "values",
        "sourceWord",
        "views",
        "alignment",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=4)  # halves of surrogate pairs too
    | st.sampled_from(["COMPONENT_DELTA", "EXPLANATION_VIEW_TERMS", "[a.b]", "@type"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
REQUESTS = [pb.TranslateRequest, pb.ExplainRequest, pb.WhatIfRequest, pb.GetModelRequest]


def encoded(number: int, content: bytes) -> bytes:
    """Return one length-delimited field as it travels."""
    return bytes([number << 3 | 2, len(content)]) + content


def refusal(request_type: type[Message], fields: Any) -> errors.InvalidRequest:
    with pytest.raises(errors.InvalidRequest) as caught:
        parse_json(request_type, json.dumps(fields).encode())
    return caught.value


@given(st.builds(pb.TranslateRequest, model=st.text(max_size=5), texts=st.lists(st.text(max_size=9), max_size=4)))
def test_a_request_is_parsed_as_it_was_written(request: Any) -> None:
    assert parse(pb.TranslateRequest, request.SerializeToString()) == request
    assert parse_json(pb.TranslateRequest, write_json(request)) == request


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (encoded(1, b"\xe9t\xe9"), "model"),
        (encoded(4, b"good") + encoded(4, b"caf\xe9"), "texts[1]"),
        (encoded(5, encoded(5, b"\xff")), "options.forced_prefix"),
        (encoded(4, b"\xed\xa0\x80"), "texts[0]"),
    ],
    ids=["model", "second text", "nested", "surrogate"],
)
def test_a_text_that_is_not_utf_8_is_named(payload: bytes, path: str) -> None:
    with pytest.raises(errors.TextInvalid) as caught:
        parse(pb.TranslateRequest, payload)
    assert caught.value.field == path


@given(st.binary(max_size=40))
def test_no_bytes_do_worse_than_be_refused(payload: bytes) -> None:
    for read in (parse, parse_json):
        try:
            assert isinstance(read(pb.TranslateRequest, payload), pb.TranslateRequest)
        except errors.InvalidRequest as error:
            assert str(error)


@given(st.sampled_from(REQUESTS), VALUES)
def test_no_json_does_worse_than_be_refused(request_type: Any, fields: Any) -> None:
    try:
        assert isinstance(parse_json(request_type, json.dumps(fields).encode()), request_type)
    except errors.InvalidRequest as error:
        str(error).encode(), error.field.encode()  # neither holds what cannot travel in a reply


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(errors.MessageInvalid, match="TranslateRequest"):
        parse(pb.TranslateRequest, b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("request_type", "field", "value", "path"),
    [
        (pb.TranslateRequest, "alignment", 9, "alignment"),
        (pb.TranslateRequest, "matrix_encoding", 3, "matrix_encoding"),
        (pb.ExplainRequest, "views", [1, 77], "views[1]"),
    ],
)
def test_an_enum_number_of_another_version_is_refused_with_the_known_ones(
    request_type: Any, field: str, value: Any, path: str
) -> None:
    with pytest.raises(errors.UnknownEnumValue, match="UNSPECIFIED") as caught:
        parse(request_type, request_type(**{field: value}).SerializeToString())
    assert caught.value.field == path
    by_number = refusal(request_type, {field: value})
    assert isinstance(by_number, errors.UnknownEnumValue) and by_number.field == path


@pytest.mark.parametrize(
    ("request_type", "fields", "kind", "field"),
    [
        (pb.TranslateRequest, {"txets": ["a"]}, errors.MessageInvalid, "txets"),
        (pb.TranslateRequest, {"options": {"beamSise": 4}}, errors.MessageInvalid, "options.beamSise"),
        (pb.TranslateRequest, {"options": {"beamSize": "four"}}, errors.MessageInvalid, "options.beam_size"),
        (pb.TranslateRequest, {"options": {"beam_size": 2**40}}, errors.MessageInvalid, "options.beam_size"),
        (pb.TranslateRequest, {"options": {"lengthPenalty": []}}, errors.MessageInvalid, "options.length_penalty"),
        (pb.TranslateRequest, {"options": 4}, errors.MessageInvalid, "options"),
        (pb.TranslateRequest, {"options": []}, errors.MessageInvalid, "options"),
        (pb.TranslateRequest, {"options": ""}, errors.MessageInvalid, "options"),
        (
            pb.WhatIfRequest,
            {"intervention": {"keptTerms": [{}, []]}},
            errors.MessageInvalid,
            "intervention.kept_terms[1]",
        ),
        (
            pb.WhatIfRequest,
            {"intervention": {"keptTerms": [None]}},
            errors.MessageInvalid,
            "intervention.kept_terms[0]",
        ),
        (pb.WhatIfRequest, {"intervention": {"keptTerms": {}}}, errors.MessageInvalid, "intervention.kept_terms"),
        (pb.TranslateRequest, {"texts": "a"}, errors.MessageInvalid, "texts"),
        (pb.TranslateRequest, {"texts": ["a", 5]}, errors.MessageInvalid, "texts[1]"),
        (pb.TranslateRequest, {"texts": ["a", "\ud800"]}, errors.TextInvalid, "texts[1]"),
        (pb.TranslateRequest, {"\ud800": 1}, errors.MessageInvalid, "\\ud800"),
        (pb.TranslateRequest, {"alignment": "ALL"}, errors.UnknownEnumValue, "alignment"),
        (pb.ExplainRequest, {"views": ["STATES"]}, errors.UnknownEnumValue, "views[0]"),
        (
            pb.WhatIfRequest,
            {"intervention": {"givenAttention": [{"flat": True}, {"flat": True, "sourceWord": 1}]}},
            errors.MessageInvalid,
            "intervention.given_attention[1]",
        ),
        (
            pb.WhatIfRequest,
            {"intervention": {"givenAttention": [{"flat": 1}]}},
            errors.MessageInvalid,
            "intervention.given_attention[0].flat",
        ),
        (pb.TranslateRequest, [], errors.MessageInvalid, ""),
        (pb.TranslateRequest, None, errors.MessageInvalid, ""),
    ],
)
def test_a_fault_in_json_is_named_in_the_words_of_the_proto(
    request_type: Any, fields: Any, kind: type[errors.InvalidRequest], field: str
) -> None:
    error = refusal(request_type, fields)
    assert (type(error), error.field) == (kind, field)
    assert field.rpartition(".")[2] in str(error)


@pytest.mark.parametrize(
    ("long", "field"),
    [
        (pb.WhatIfRequest(intervention={"kept_terms": [{}] * 4097}), "intervention.kept_terms"),
        (pb.WhatIfRequest(intervention={"masked_source_words": [0] * 4097}), "intervention.masked_source_words"),
        (
            pb.WhatIfRequest(intervention={"given_attention": [{"weights": {"values": [1.0] * 4097}}]}),
            "intervention.given_attention[0].weights.values",
        ),
        (pb.ExplainRequest(views=[pb.EXPLANATION_VIEW_TERMS] * 4097), "views"),
    ],
)
def test_a_list_that_would_take_long_to_look_through_is_refused_by_its_length(long: Any, field: str) -> None:
    for read, payload in ((parse, long.SerializeToString()), (parse_json, write_json(long))):
        with pytest.raises(errors.OptionOutOfRange, match="has 4097 items; allowed is up to 4096") as caught:
            read(type(long), payload)
        assert caught.value.field == field


def test_refusing_lists_that_fill_a_request_takes_no_longer_than_decoding_a_few_steps() -> None:
    terms = pb.WhatIfRequest(intervention={"kept_terms": [{}] * 200_000}).SerializeToString()
    masks = pb.WhatIfRequest(intervention={"masked_source_words": [0] * 3_000_000}).SerializeToString()
    for payload in (terms, masks):
        began = time.perf_counter()
        with pytest.raises(errors.InvalidRequest):
            parse(pb.WhatIfRequest, payload)
        assert time.perf_counter() - began < 0.5


def test_the_first_fault_of_a_long_list_is_found_in_the_time_that_a_few_readings_take() -> None:
    seconds: dict[str, float] = {}
    kinds: tuple[tuple[str, list[Any]], ...] = (
        ("valid", ["a"] * 4096),
        ("last", ["a"] * 4095 + [1]),
        ("two", ["a"] * 3000 + [1, "a", 2]),
    )
    for name, texts in kinds:
        fields = {"texts": texts}
        durations = []
        for _ in range(5):
            began = time.perf_counter()
            if name == "valid":
                json_format.ParseDict(fields, pb.TranslateRequest())
            else:
                assert refusal(pb.TranslateRequest, fields).field == f"texts[{texts.index(1)}]"
            durations.append(time.perf_counter() - began)
        seconds[name] = min(durations)
    assert max(seconds["last"], seconds["two"]) < 8 * seconds["valid"]


def test_what_is_wrong_with_a_field_is_told_without_its_value() -> None:
    assert "secret" not in str(refusal(pb.TranslateRequest, {"texts": "secret"}))
    assert "secret" not in str(refusal(pb.TranslateRequest, {"alignment": "secret"}))
    assert "beam_size, num_hypotheses" in str(refusal(pb.TranslateRequest, {"options": {"beam": 4}}))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "not JSON at column 1;"),
        (b'{"texts":\n"a', "at line 2, column 1;"),
        (b'{"texts": ["a"}', "column 15"),
        (b'{"model": "a", "model": "b"}', "no key twice"),
        (b"[" * 100_000, "not JSON"),
        (b'{"texts": ["\xe9"]}', "UTF-8"),
    ],
    ids=["empty", "torn in a later line", "torn", "twice", "deep", "latin"],
)
def test_a_body_that_is_no_json_is_refused_with_its_place(body: bytes, match: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=match):
        parse_json(pb.TranslateRequest, body)


def test_json_is_written_as_protobuf_maps_it() -> None:
    message = pb.ListModelsResponse(models=[pb.Model(name="né", tables=pb.ComponentTables(sentences=2**40))])
    written = write_json(message)
    assert json.loads(written) == {"models": [{"name": "né", "tables": {"sentences": str(2**40)}}]}
    assert json_format.Parse(written.decode(), pb.ListModelsResponse()) == message
