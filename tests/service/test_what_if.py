import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.decomposition import COMPONENTS, softmax
from bundle.tokenizer import Tokenizer
from service import what_if
from service.admission import Limits
from service.engine import Engine
from service.errors import (
    AttentionMissing,
    InterventionUnsupported,
    InvalidRequest,
    OptionOutOfRange,
    SourceEmpty,
    SourceTooLong,
    StatisticsMissing,
    TextInvalid,
    Unsupported,
)
from service.explainer import Explainer, WarningKind, load_tables
from service.metrics import Metrics
from service.scheduler import Scheduler
from service.translation import TranslatedHypothesis, TranslationOptions
from service.translator import Translator
from service.what_if import GivenRow, Intervention, WhatIf, WhatIfAnswer
from tests.service.samples import value
from tests.tiny_bundle import MAX_SOURCE_TOKENS, MAX_TARGET_TOKENS, SENTENCES

TEXT = SENTENCES[6]  # its translation is long
ALL_NINE = tuple((encoder, decoder) for encoder in COMPONENTS for decoder in COMPONENTS)
OPTIONS = TranslationOptions(alignment=True)


@pytest.fixture
def asking(translator: Translator, tiny_bundle: Path, metrics: Metrics) -> WhatIf:
    return WhatIf(translator, load_tables(tiny_bundle, translator.manifest), metrics)


def assert_identical(one: TranslatedHypothesis, other: TranslatedHypothesis) -> None:
    """To the last bit, alignment included."""
    assert replace(one, alignment=None) == replace(other, alignment=None)
    assert one.alignment is not None and other.alignment is not None
    assert one.alignment.links == other.alignment.links
    np.testing.assert_array_equal(one.alignment.piece_weights, other.alignment.piece_weights)
    np.testing.assert_array_equal(one.alignment.word_matrix, other.alignment.word_matrix)


def word_weights(hypothesis: TranslatedHypothesis) -> np.ndarray:
    assert hypothesis.alignment is not None
    return hypothesis.alignment.word_matrix


def assert_unmoved(answer: WhatIfAnswer) -> None:
    assert_identical(answer.changed, answer.baseline)
    assert (answer.baseline_words_changed, answer.changed_words) == ((), ())
    assert answer.log_probability_change == 0.0 and not any(answer.token_log_probability_changes)
    assert answer.attention_distance == 0.0 and not any(answer.row_attention_distances)


@pytest.mark.parametrize("intervention", [Intervention(), Intervention(kept_terms=ALL_NINE)])
@pytest.mark.parametrize("text", SENTENCES)
async def test_when_nothing_is_changed_both_translations_are_that_of_translate_to_the_last_bit(
    asking: WhatIf, translator: Translator, text: str, intervention: Intervention
) -> None:
    options = replace(OPTIONS, beam_size=1 + len(text) % 4)
    answer = await asking.answer(text, options, intervention)
    assert_identical(answer.baseline, (await translator.translate(text, options)).hypotheses[0])
    assert_unmoved(answer)
    assert answer.changed_source is None and answer.source.text == text


async def test_a_masked_word_gets_no_attention_and_the_others_share_it(asking: WhatIf) -> None:
    answer = await asking.answer(TEXT, OPTIONS, Intervention(masked_source_words=(1, 3)))
    weights = word_weights(answer.changed)
    assert not weights[:, [1, 3]].any() and word_weights(answer.baseline)[:, [1, 3]].all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)
    assert answer.attention_distance > 0 and answer.log_probability_change != 0
    for row in answer.row_attention_distances:
        assert 0 <= row <= 1


async def test_masking_every_word_leaves_the_end_of_sentence(asking: WhatIf, translator: Translator) -> None:
    words = range(len((await translator.translate(TEXT, OPTIONS)).source.words))
    answer = await asking.answer(TEXT, OPTIONS, Intervention(masked_source_words=tuple(words)))
    np.testing.assert_array_equal(word_weights(answer.changed)[:, -1], 1.0)


@pytest.mark.parametrize("kept", [ALL_NINE[:1], ALL_NINE[1:3], ALL_NINE[5:]])
async def test_kept_terms_are_those_that_explain_names(
    asking: WhatIf, translator: Translator, tiny_bundle: Path, metrics: Metrics, kept: tuple[tuple[str, str], ...]
) -> None:
    answer = await asking.answer(TEXT, OPTIONS, Intervention(kept_terms=kept))
    explainer = Explainer(translator, load_tables(tiny_bundle, translator.manifest), metrics)
    terms = (await explainer.explain(TEXT, None, OPTIONS)).decomposition.terms
    first_row = sum(terms[COMPONENTS.index(encoder), COMPONENTS.index(decoder), 0] for encoder, decoder in kept)
    assert answer.changed.alignment is not None
    np.testing.assert_allclose(answer.changed.alignment.piece_weights[0], softmax(np.asarray(first_row)), atol=1e-5)
    assert answer.attention_distance > 0
    assert WarningKind.UNSEEN_TOKEN in {warning.kind for warning in answer.warnings}


async def test_a_what_if_tells_what_forced_decoding_tells(asking: WhatIf, translator: Translator) -> None:
    """Without the change; with it, tests of the batch compare weights and what is emitted with the terms."""
    answer = await asking.answer(TEXT, OPTIONS, Intervention(masked_source_words=(0,)))
    assert answer.log_probability_change == pytest.approx(sum(answer.token_log_probability_changes))
    assert len(answer.token_log_probability_changes) == len(answer.baseline.token_log_probabilities)
    assert len(answer.row_attention_distances) == len(answer.baseline.token_log_probabilities)
    assert answer.attention_distance == pytest.approx(np.mean(answer.row_attention_distances))
    moved = Intervention(replaced_source_words=((0, "The"),))
    other = await asking.answer(TEXT, OPTIONS, moved)
    assert other.changed_source is not None
    prepared = await translator.prepare(other.changed_source.text, None, OPTIONS)
    baseline_ids = (*(piece.token_id for piece in other.baseline.target.pieces), translator.manifest.special_ids.eos)
    forced = await translator.trace_prepared(prepared.scoring(baseline_ids))
    expected = np.subtract(
        forced.translation.hypotheses[0].token_log_probabilities, other.baseline.token_log_probabilities
    )
    np.testing.assert_allclose(other.token_log_probability_changes, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("replacements", "changed"),
    [
        (((0, "The"),), "The father's car is older than yours."),
        (((3, ""),), "My father's is older than yours."),
        (((0, ""),), "father's car is older than yours."),
        (((7, ""),), "My father's car is older than."),
        (((8, ""),), "My father's car is older than yours"),
        (((1, ""),), "My's car is older than yours."),
        (((7, ""), (6, ""), (5, "very big")), "My father's car is very big."),
    ],
)
async def test_words_are_replaced_or_taken_out_with_their_space(
    asking: WhatIf, replacements: tuple[tuple[int, str], ...], changed: str
) -> None:
    assert TEXT == "My father's car is older than yours."
    answer = await asking.answer(TEXT, OPTIONS, Intervention(replaced_source_words=replacements))
    assert answer.changed_source is not None
    assert (answer.source.text, answer.changed_source.text) == (TEXT, changed)
    assert all(0 <= row <= 1 + 1e-9 for row in answer.row_attention_distances)


@pytest.mark.parametrize(
    ("text", "words", "changed"),
    [
        ("The house, however, is small.", (2,), "The house however, is small."),
        ("The house, however, is small.", (4,), "The house, however is small."),
        ("The house, however, is small.", (2, 3, 4), "The house is small."),
        ("The house is small.", (3,), "The house is."),
        ("small,big", (1,), "small big"),
    ],
)
async def test_words_that_a_taken_out_one_kept_apart_stay_apart(
    asking: WhatIf, text: str, words: tuple[int, ...], changed: str
) -> None:
    intervention = Intervention(replaced_source_words=tuple((word, "") for word in words))
    answer = await asking.answer(text, OPTIONS, intervention)
    assert answer.changed_source is not None and answer.changed_source.text == changed


async def test_a_queue_of_one_place_is_enough_for_one_call(engine: Engine, tiny_bundle: Path, metrics: Metrics) -> None:
    scheduler = Scheduler(engine, Limits(queue_capacity=1), metrics)
    translator = Translator(scheduler, Tokenizer(tiny_bundle / "tokenizer.model"), engine.manifest, metrics)
    tables = load_tables(tiny_bundle, translator.manifest)
    answer = await WhatIf(translator, tables, metrics).answer(TEXT, OPTIONS, Intervention(masked_source_words=(0,)))
    assert answer.attention_distance > 0
    await scheduler.close()


async def test_an_elided_word_leaves_no_words_run_together(asking: WhatIf) -> None:
    answer = await asking.answer("dans l'été", OPTIONS, Intervention(replaced_source_words=((1, ""),)))
    assert answer.changed_source is not None and answer.changed_source.text == "dans été"


async def test_a_replacement_counts_as_the_word_it_replaces(asking: WhatIf) -> None:
    """All attention on the replacement is as far from all attention on the word as a row is from itself: not at all."""
    rows = GivenRow(None, source_word=1)
    for replacement, word in (("house", 1), ("big house", 2), ("a", 1)):
        on_word = await asking.answer("The garden is small.", OPTIONS, Intervention(given_attention=(rows,)))
        intervention = Intervention(
            replaced_source_words=((1, replacement),), given_attention=(GivenRow(None, source_word=word),)
        )
        on_replacement = await asking.answer("The garden is small.", OPTIONS, intervention)
        np.testing.assert_allclose(on_replacement.row_attention_distances, on_word.row_attention_distances, atol=1e-6)
    gone = Intervention(replaced_source_words=((1, ""),))
    taken_out = await asking.answer("The garden is small.", OPTIONS, gone)
    assert min(taken_out.row_attention_distances) > 0


async def test_rows_of_attention_are_given_flat_on_a_word_or_by_weight(asking: WhatIf, translator: Translator) -> None:
    source = (await translator.translate(TEXT, OPTIONS)).source
    columns = len(source.pieces) + 1
    weights = tuple(float(index % 3) for index in range(columns))
    given_rows = (
        GivenRow(0, flat=True),
        GivenRow(1, source_word=1),
        GivenRow(2, weights=weights),
        GivenRow(None, source_word=0),
    )
    intervention = Intervention(masked_source_words=(3,), given_attention=given_rows)
    answer = await asking.answer(TEXT, OPTIONS, intervention)
    alignment = answer.changed.alignment
    assert alignment is not None and alignment.shift == 0
    rows = alignment.piece_weights
    masked = list(source.words[3].piece_indices)
    expected = np.full(columns, 1 / (columns - len(masked)))
    expected[masked] = 0
    np.testing.assert_allclose(rows[0], expected, atol=1e-6)
    pieces = list(source.words[1].piece_indices)
    np.testing.assert_allclose(rows[1][pieces], 1 / len(pieces), atol=1e-6)
    np.testing.assert_allclose(rows[2], np.array(weights) / sum(weights), atol=1e-6)
    np.testing.assert_allclose(rows[3:, list(source.words[0].piece_indices)].sum(axis=1), 1.0, atol=1e-6)


async def test_changed_words_are_told_by_place(asking: WhatIf) -> None:
    answer = await asking.answer(TEXT, OPTIONS, Intervention(replaced_source_words=((0, "The"), (5, "big"))))
    before, after = ([word.text for word in each.target.words] for each in (answer.baseline, answer.changed))
    assert before != after
    kept = [word for index, word in enumerate(before) if index not in answer.baseline_words_changed]
    assert kept == [word for index, word in enumerate(after) if index not in answer.changed_words]


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
@settings(deadline=None)
def test_words_that_did_not_change_are_the_same_in_the_same_order(before: list[str], after: list[str]) -> None:
    gone, new = what_if._different(before, after)
    kept = [word for index, word in enumerate(before) if index not in gone]
    assert kept == [word for index, word in enumerate(after) if index not in new]
    assert (gone, new) == ((), ()) or before != after


@pytest.mark.parametrize(
    ("intervention", "field", "message"),
    [
        (Intervention(masked_source_words=(0, 9)), "masked_source_words[1]", "is 9; the source has 9 words.* 0 to 8"),
        (Intervention(masked_source_words=(-1,)), "masked_source_words[0]", "is -1"),
        (Intervention(replaced_source_words=((9, "a"),)), "replaced_source_words[0].source_word", "allowed is 0 to 8"),
        (Intervention(replaced_source_words=((1, "a"), (1, "b"))), "replaced_source_words[1]", "word 1 .* twice"),
        (Intervention(masked_source_words=(0,) * 10), "masked_source_words", "has 10 items; allowed is up to 9"),
        (Intervention(replaced_source_words=((0, "a"),) * 10), "replaced_source_words", "has 10 items"),
        (
            Intervention(given_attention=(GivenRow(0, flat=True),) * (MAX_TARGET_TOKENS + 2)),
            "given_attention",
            f"has {MAX_TARGET_TOKENS + 2} items; allowed is up to {MAX_TARGET_TOKENS + 1}",
        ),
        (Intervention(given_attention=(GivenRow(0),)), "given_attention[0]", "exactly one of flat"),
        (Intervention(given_attention=(GivenRow(0, flat=True, source_word=1),)), "given_attention[0]", "exactly one"),
        (
            Intervention(given_attention=(GivenRow(MAX_TARGET_TOKENS, flat=True),)),
            "given_attention[0].target_token",
            f"is {MAX_TARGET_TOKENS}; allowed is 0 to {MAX_TARGET_TOKENS - 1}",
        ),
        (Intervention(given_attention=(GivenRow(0, source_word=9),)), "given_attention[0].source_word", "0 to 8"),
        (Intervention(given_attention=(GivenRow(0, weights=(1.0,)),)), "given_attention[0].weights", "has 1 values"),
        (
            Intervention(given_attention=(GivenRow(2, flat=True), GivenRow(2, flat=True))),
            "given_attention[1]",
            "row 2 is given twice",
        ),
        (
            Intervention(given_attention=(GivenRow(None, flat=True), GivenRow(None, flat=True))),
            "given_attention[1]",
            "every row is given twice",
        ),
    ],
)
async def test_an_intervention_that_does_not_fit_is_refused_by_field(
    asking: WhatIf, intervention: Intervention, field: str, message: str
) -> None:
    with pytest.raises(OptionOutOfRange, match=message) as caught:
        await asking.answer(TEXT, OPTIONS, intervention)
    assert caught.value.field == f"intervention.{field}"


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, 0.0, 1e308])
async def test_weights_that_are_none_are_refused(asking: WhatIf, translator: Translator, bad: float) -> None:
    columns = len((await translator.translate(TEXT, OPTIONS)).source.pieces) + 1
    weights = (bad, bad, *[0.0] * (columns - 2))
    with pytest.raises(OptionOutOfRange, match="finite values, none negative, and not all 0"):
        await asking.answer(TEXT, OPTIONS, Intervention(given_attention=(GivenRow(0, weights=weights),)))


@pytest.mark.parametrize(
    ("replacement", "error"),
    [("a " * MAX_SOURCE_TOKENS, SourceTooLong), ("\ud800", TextInvalid), ("", SourceEmpty)],
)
async def test_a_replacement_that_makes_no_source_is_refused_as_such(
    asking: WhatIf, replacement: str, error: type[InvalidRequest]
) -> None:
    with pytest.raises(error, match="with these words replaced") as caught:
        await asking.answer("house", OPTIONS, Intervention(replaced_source_words=((0, replacement),)))
    assert caught.value.field == "intervention.replaced_source_words"


async def test_kept_terms_need_tables_and_scores_that_split(
    asking: WhatIf, translator: Translator, metrics: Metrics
) -> None:
    kept = Intervention(kept_terms=ALL_NINE[:1])
    without = WhatIf(translator, None, metrics)
    with pytest.raises(StatisticsMissing):
        await without.answer(TEXT, OPTIONS, kept)
    assert (await without.answer(TEXT, OPTIONS, Intervention(masked_source_words=(0,)))).attention_distance > 0
    for score_kind, error in (("additive", Unsupported), ("none", AttentionMissing)):
        translator.manifest = replace(translator.manifest, score_kind=score_kind)
        with pytest.raises(error):
            await asking.answer(TEXT, OPTIONS, kept)
    assert value(metrics, "explanations_total", view="what_if", result="refused") == 3
    assert value(metrics, "explanations_total", view="what_if", result="ok") == 1


async def test_a_bundle_that_takes_no_attention_can_have_words_replaced_and_no_more(
    asking: WhatIf, engine: Engine
) -> None:
    engine.takes_given_attention = False  # as of a bundle exported before graphs had that input
    with pytest.raises(InterventionUnsupported, match="take no attention from outside"):
        await asking.answer(TEXT, OPTIONS, Intervention(masked_source_words=(0,)))
    answer = await asking.answer(TEXT, OPTIONS, Intervention(replaced_source_words=((0, "The"),)))
    assert answer.changed_source is not None


async def test_a_what_if_counts_as_no_translation(asking: WhatIf, metrics: Metrics) -> None:
    await asking.answer(TEXT, OPTIONS, Intervention(masked_source_words=(0,)))
    assert value(metrics, "sentences_total") == 0
    assert value(metrics, "alignment_entropy_nats_count") == 0
    assert value(metrics, "explanations_total", view="what_if", result="ok") == 1


async def test_a_translation_that_was_cut_is_compared_as_it_stands(asking: WhatIf) -> None:
    options = replace(OPTIONS, max_target_tokens=3, beam_size=1)
    answer = await asking.answer(TEXT, options, Intervention(masked_source_words=(0,)))
    assert answer.baseline.finish_reason == "max_length"
    assert len(answer.row_attention_distances) == 3
    assert WarningKind.TARGET_CUT in {warning.kind for warning in answer.warnings}
