from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bundle.decomposition import COMPONENTS
from service import errors
from service.client import array
from service.explainer import WarningKind
from service.messages import parse, read_options, read_views, refuse_options, smaller, write_matrix
from service.pb import interlinear_pb2 as pb
from service.translator import TranslationOptions

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6), elements=FLOAT32)


def encoded(number: int, content: bytes) -> bytes:
    """Return one length-delimited field as it travels."""
    return bytes([number << 3 | 2, len(content)]) + content


@given(MATRICES, st.sampled_from([pb.MATRIX_ENCODING_PACKED_FLOAT32, pb.MATRIX_ENCODING_FLOAT_LIST]))
def test_a_matrix_arrives_as_it_was_sent(values: np.ndarray, encoding: int) -> None:
    message = pb.Matrix.FromString(write_matrix(values, encoding).SerializeToString())
    assert np.array_equal(array(message), values)
    assert bool(message.values) is (encoding == pb.MATRIX_ENCODING_FLOAT_LIST and values.size > 0)


def test_packed_values_are_little_endian_row_after_row() -> None:
    matrix = write_matrix(np.array([[1.0, 2.0], [3.0, 4.0]]), pb.MATRIX_ENCODING_UNSPECIFIED)
    assert matrix.packed_float32.hex() == "0000803f" + "00000040" + "00004040" + "00008040"


@given(st.builds(pb.TranslateRequest, model=st.text(max_size=5), texts=st.lists(st.text(max_size=9), max_size=4)))
def test_a_request_is_parsed_as_it_was_written(request: Any) -> None:
    assert parse(pb.TranslateRequest, request.SerializeToString()) == request


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
    try:
        assert isinstance(parse(pb.TranslateRequest, payload), pb.TranslateRequest)
    except errors.InvalidRequest as error:
        assert str(error)


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


def test_absent_options_take_the_defaults_and_present_ones_win() -> None:
    assert read_options(pb.DecodingOptions(), alignment=False) == TranslationOptions()
    given_ = pb.DecodingOptions(
        beam_size=2, num_hypotheses=2, length_penalty=0.0, max_target_tokens=9, forced_prefix="Le"
    )
    assert read_options(given_, alignment=True) == TranslationOptions(2, 2, 0.0, 9, "Le", True)


def test_no_view_means_every_view_and_an_unspecified_one_is_refused() -> None:
    assert len(read_views([])) == len(pb.ExplanationView.values()) - 1
    assert read_views([pb.EXPLANATION_VIEW_TERMS]) == {pb.EXPLANATION_VIEW_TERMS}
    with pytest.raises(errors.UnknownEnumValue, match="EXPLANATION_VIEW_ALIGNMENT"):
        read_views([pb.EXPLANATION_VIEW_UNSPECIFIED])


def test_options_beside_a_given_target_are_refused_even_when_they_are_the_default() -> None:
    refuse_options(pb.DecodingOptions())
    with pytest.raises(errors.OptionOutOfRange) as caught:
        refuse_options(pb.DecodingOptions(beam_size=4))
    assert caught.value.field == "options.beam_size"


def test_every_warning_and_component_of_the_domain_has_its_name_on_the_wire() -> None:
    assert {f"WARNING_KIND_{kind.name}" for kind in WarningKind} <= set(pb.WarningKind.keys())
    assert [f"COMPONENT_{name.upper()}" for name in COMPONENTS] == pb.Component.keys()[1:]


@pytest.mark.parametrize(
    ("request_", "advice"),
    [
        (pb.ExplainRequest(), "EXPLANATION_VIEW_TERMS"),
        (pb.ExplainRequest(views=[pb.EXPLANATION_VIEW_SCORES]), "EXPLANATION_VIEW_SCORES"),
        (pb.ExplainRequest(views=[pb.EXPLANATION_VIEW_SHARES]), "shorter"),
        (pb.TranslateRequest(alignment=pb.ALIGNMENT_DETAIL_PIECES), "ALIGNMENT_DETAIL_WORDS"),
        (pb.TranslateRequest(), "fewer"),
    ],
)
def test_whoever_asked_for_too_much_is_told_what_to_leave_out(request_: Any, advice: str) -> None:
    assert advice in smaller(request_)
