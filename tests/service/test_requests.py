from typing import Any

import pytest

from service import errors
from service.pb import interlinear_pb2 as pb
from service.requests import (
    ALIGNMENT_METHODS,
    read_intervention,
    read_limit,
    read_options,
    read_views,
    refuse_options,
    refuse_several,
    smaller,
)
from service.translation import TranslationOptions
from service.what_if import GivenRow, Intervention


def test_absent_options_take_the_defaults_and_present_ones_win() -> None:
    assert read_options(pb.DecodingOptions(), alignment=False) == TranslationOptions()
    given_ = pb.DecodingOptions(
        beam_size=2, num_hypotheses=2, length_penalty=0.0, max_target_tokens=9, forced_prefix="Le"
    )
    assert read_options(given_, alignment=True) == TranslationOptions(2, 2, 0.0, 9, "Le", True)


def test_links_are_drawn_by_the_default_of_their_evidence_unless_another_method_is_named() -> None:
    options = [
        read_options(pb.DecodingOptions(), True, drawing)
        for drawing in (
            pb.AlignmentOptions(),
            pb.AlignmentOptions(method=pb.ALIGNMENT_METHOD_GROW_DIAG_FINAL_AND),
            pb.AlignmentOptions(method=pb.ALIGNMENT_METHOD_THRESHOLD, threshold=0.0),
        )
    ]
    assert [(read.alignment_method, read.alignment_threshold) for read in options] == [
        (None, None),
        ("grow_diag_final_and", None),
        ("threshold", 0.0),
    ]
    assert len(ALIGNMENT_METHODS) == len(pb.AlignmentMethod.values()) - 1


def test_no_view_means_every_view_but_the_states_and_an_unspecified_one_is_refused() -> None:
    every = set(pb.ExplanationView.values()) - {pb.EXPLANATION_VIEW_UNSPECIFIED}
    assert read_views([]) == every - {pb.EXPLANATION_VIEW_STATES}
    assert read_views([pb.EXPLANATION_VIEW_STATES]) == {pb.EXPLANATION_VIEW_STATES}
    with pytest.raises(errors.UnknownEnumValue, match="EXPLANATION_VIEW_ALIGNMENT"):
        read_views([pb.EXPLANATION_VIEW_UNSPECIFIED])


def test_options_beside_a_given_target_are_refused_even_when_they_are_the_default() -> None:
    refuse_options(pb.DecodingOptions())
    with pytest.raises(errors.OptionOutOfRange) as caught:
        refuse_options(pb.DecodingOptions(beam_size=4))
    assert caught.value.field == "options.beam_size"


def test_a_call_about_one_translation_takes_no_other_number_of_them() -> None:
    refuse_several(TranslationOptions(n_best=1))
    with pytest.raises(errors.OptionOutOfRange) as caught:
        refuse_several(TranslationOptions(n_best=2))
    assert caught.value.field == "options.num_hypotheses"


def test_five_alternatives_are_listed_unless_another_number_is_asked_for() -> None:
    assert read_limit(pb.ListAlternativesRequest()) == 5
    assert read_limit(pb.ListAlternativesRequest(limit=0)) == 0


def test_an_intervention_is_read_as_it_was_written() -> None:
    assert read_intervention(pb.Intervention()) == Intervention()
    message = pb.Intervention(
        kept_terms=[
            pb.TermKey(encoder=pb.COMPONENT_TEMPORAL, decoder=pb.COMPONENT_DELTA),
            pb.TermKey(encoder=pb.COMPONENT_INPUT_DRIVEN, decoder=pb.COMPONENT_TEMPORAL),
        ],
        masked_source_words=[2, 0],
        replaced_source_words=[pb.WordReplacement(source_word=1, text="cat"), pb.WordReplacement(source_word=0)],
        given_attention=[
            pb.GivenAttention(flat=True),
            pb.GivenAttention(target_token=0, source_word=0),
            pb.GivenAttention(target_token=3, weights=pb.SourceWeights(values=[0.5, 1.5])),
        ],
    )
    assert read_intervention(message) == Intervention(
        kept_terms=(("temporal", "delta"), ("input_driven", "temporal")),
        masked_source_words=(2, 0),
        replaced_source_words=((1, "cat"), (0, "")),
        given_attention=(GivenRow(None, flat=True), GivenRow(0, source_word=0), GivenRow(3, weights=(0.5, 1.5))),
    )


@pytest.mark.parametrize(
    ("message", "kind", "field"),
    [
        (
            pb.Intervention(kept_terms=[pb.TermKey(decoder=pb.COMPONENT_DELTA)]),
            errors.UnknownEnumValue,
            "intervention.kept_terms[0].encoder",
        ),
        (
            pb.Intervention(kept_terms=[pb.TermKey(encoder=pb.COMPONENT_DELTA)]),
            errors.UnknownEnumValue,
            "intervention.kept_terms[0].decoder",
        ),
        (
            pb.Intervention(given_attention=[pb.GivenAttention(flat=True), pb.GivenAttention(target_token=1)]),
            errors.OptionOutOfRange,
            "intervention.given_attention[1]",
        ),
        (
            pb.Intervention(given_attention=[pb.GivenAttention(flat=False)]),
            errors.OptionOutOfRange,
            "intervention.given_attention[0]",
        ),
        (
            pb.Intervention(given_attention=[pb.GivenAttention(weights=pb.SourceWeights())]),
            errors.OptionOutOfRange,
            "intervention.given_attention[0]",
        ),
    ],
)
def test_half_an_intervention_is_refused_by_name(message: Any, kind: type[errors.InvalidRequest], field: str) -> None:
    with pytest.raises(kind) as caught:
        read_intervention(message)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("request_", "advice"),
    [
        (pb.ExplainRequest(), "EXPLANATION_VIEW_TERMS"),
        (pb.ExplainRequest(views=pb.ExplanationView.values()[1:]), "EXPLANATION_VIEW_STATES"),
        (pb.ExplainRequest(views=[pb.EXPLANATION_VIEW_SCORES]), "EXPLANATION_VIEW_SCORES"),
        (pb.ExplainRequest(views=[pb.EXPLANATION_VIEW_SHARES]), "shorter"),
        (pb.TranslateRequest(alignment=pb.ALIGNMENT_DETAIL_PIECES), "ALIGNMENT_DETAIL_WORDS"),
        (pb.TranslateRequest(), "fewer"),
        (pb.ListAlternativesRequest(), "limit"),
        (pb.WhatIfRequest(), "shorter text"),
        (pb.ContrastRequest(), "shorter text"),
    ],
)
def test_whoever_asked_for_too_much_is_told_what_to_leave_out(request_: Any, advice: str) -> None:
    assert advice in smaller(request_)


def test_more_views_or_terms_than_there_are_are_refused_by_their_number() -> None:
    with pytest.raises(errors.OptionOutOfRange, match="views has 7 items; allowed is up to 6") as caught:
        read_views([pb.EXPLANATION_VIEW_TERMS] * 7)
    assert caught.value.field == "views"
    term = pb.TermKey(encoder=pb.COMPONENT_DELTA, decoder=pb.COMPONENT_DELTA)
    with pytest.raises(errors.OptionOutOfRange, match="has 10 items; allowed is up to 9") as caught:
        read_intervention(pb.Intervention(kept_terms=[term] * 10))
    assert caught.value.field == "intervention.kept_terms"
