from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle.tokenizer import Tokenizer
from service.admission import Limits
from service.contrast import Alternatives, Comparer, Contrast, Question
from service.engine import Engine
from service.errors import (
    AlternativeInvalid,
    AttentionMissing,
    InvalidRequest,
    OptionOutOfRange,
    TargetTooLong,
    TextInvalid,
)
from service.explainer import Explainer, WarningKind, load_tables
from service.metrics import Metrics
from service.scheduler import Scheduler
from service.translation import TranslatedHypothesis, TranslationOptions
from service.translator import Translator
from tests.service.samples import value
from tests.tiny_bundle import MAX_TARGET_TOKENS, SENTENCES

TEXT = "The garden is small."
TARGET = "Je sais voir l'été, mais le jardin est petit."
WORDS = ("Je", "sais", "voir", "l'", "été", ",", "mais", "le", "jardin", "est", "petit", ".")
OPTIONS = TranslationOptions()


@pytest.fixture
def comparer(translator: Translator, tiny_bundle: Path, metrics: Metrics) -> Comparer:
    return Comparer(translator, load_tables(tiny_bundle, translator.manifest), metrics)


def texts(hypothesis: TranslatedHypothesis) -> list[str]:
    return [word.text for word in hypothesis.target.words]


async def forced(translator: Translator, hypothesis: TranslatedHypothesis) -> TranslatedHypothesis:
    """The same pieces, scored from scratch."""
    ids = tuple(piece.token_id for piece in hypothesis.target.pieces)
    if hypothesis.finish_reason == "eos":
        ids += (translator.manifest.special_ids.eos,)
    prepared = await translator.prepare(TEXT, None, OPTIONS)
    return (await translator.trace_prepared(prepared.scoring(ids))).translation.hypotheses[0]


@pytest.mark.parametrize(
    ("word", "alternative", "expected"),
    [(0, "Il", ["Il"]), (4, "an", ["an"]), (4, "an grand", ["an", "grand"]), (5, ";", [";"]), (8, "la maison", None)],
)
async def test_the_other_word_stands_where_the_first_stood_after_the_same_words(
    comparer: Comparer, word: int, alternative: str, expected: list[str] | None
) -> None:
    contrast = await comparer.contrast(Question(TEXT, TARGET, OPTIONS, word), alternative)
    chosen, other = contrast.chosen, contrast.alternative
    assert tuple(texts(chosen.hypothesis)) == WORDS and chosen.hypothesis.text == TARGET
    assert chosen.target_words == (word,)
    expected = expected or alternative.split()
    assert other.target_words == tuple(range(word, word + len(expected)))
    assert texts(other.hypothesis)[: word + len(expected)] == [*WORDS[:word], *expected]


async def assert_whole(contrast: Contrast, translator: Translator) -> None:
    """Every promise that a contrast makes."""
    for side in (contrast.chosen, contrast.alternative):
        scored = await forced(translator, side.hypothesis)
        assert scored.token_log_probabilities == side.hypothesis.token_log_probabilities
        words = [scored.word_log_probabilities[word] for word in side.target_words]
        assert side.log_probability == pytest.approx(sum(words), abs=1e-9)
        assert side.hypothesis.alignment is not None
        rows = side.hypothesis.alignment.word_matrix[list(side.target_words)]
        np.testing.assert_allclose(side.source_weights, rows.mean(axis=0), atol=1e-6)
        assert side.source_weights.sum() == pytest.approx(1, abs=1e-5)
        assert side.shares is not None and side.shares.sum() == pytest.approx(1)
    assert contrast.log_probability_difference == pytest.approx(
        contrast.chosen.log_probability - contrast.alternative.log_probability
    )
    weights, shares = contrast.source_weight_differences, contrast.share_differences
    np.testing.assert_allclose(weights, contrast.chosen.source_weights - contrast.alternative.source_weights, atol=1e-6)
    assert shares is not None and contrast.chosen.shares is not None and contrast.alternative.shares is not None
    np.testing.assert_allclose(shares, contrast.chosen.shares - contrast.alternative.shares, atol=1e-9)
    assert shares.sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("target", [TARGET, None])
async def test_what_a_contrast_says_is_what_forced_decoding_says(
    comparer: Comparer, translator: Translator, target: str | None
) -> None:
    for word, alternative in ((0, "le"), (0, "maison"), (3 if target else 0, "est grand")):
        await assert_whole(await comparer.contrast(Question(TEXT, target, OPTIONS, word), alternative), translator)


async def test_words_of_one_piece_begin_from_the_same_row(comparer: Comparer) -> None:
    contrast = await comparer.contrast(Question(TEXT, TARGET, OPTIONS, 5), ";")
    for side in (contrast.chosen, contrast.alternative):
        assert sum(len(side.hypothesis.target.words[word].piece_indices) for word in side.target_words) == 1
    assert not contrast.source_weight_differences.any()
    assert contrast.share_differences is not None and not contrast.share_differences.any()


async def test_the_shares_of_a_side_are_those_of_its_rows_in_an_explanation(
    comparer: Comparer, translator: Translator, tiny_bundle: Path, metrics: Metrics
) -> None:
    contrast = await comparer.contrast(Question(TEXT, TARGET, OPTIONS, 8), "frère")
    explainer = Explainer(translator, load_tables(tiny_bundle, translator.manifest), metrics)
    explanation = await explainer.explain(TEXT, TARGET, OPTIONS)
    rows = list(contrast.chosen.hypothesis.target.words[8].piece_indices)
    assert len(rows) > 1
    terms = explanation.decomposition.terms[:, :, rows]
    centred = terms - terms.mean(axis=3, keepdims=True)
    covariances = (centred * centred.sum(axis=(0, 1))).sum(axis=(2, 3))
    assert contrast.chosen.shares is not None
    np.testing.assert_allclose(contrast.chosen.shares, covariances / covariances.sum(), atol=1e-9)
    assert contrast.warnings == explanation.warnings


async def test_an_alternative_stays_the_word_it_is_however_much_the_model_would_write_on(
    comparer: Comparer, translator: Translator
) -> None:
    """This model runs pieces together without end; every alternative is a word of its own all the same."""
    options = TranslationOptions(beam_size=2)
    extended = 0
    for text in SENTENCES:
        for alternative in ("g", "ren", "d'"):
            contrast = await comparer.contrast(Question(text, TARGET, options, 4), alternative)
            words = texts(contrast.alternative.hypothesis)
            assert words[:5] == [*WORDS[:4], alternative], text
            begun = await translator.translate(text, replace(options, forced_prefix=f"Je sais voir l'{alternative}"))
            extended += texts(begun.hypotheses[0])[4] != alternative
    assert extended


async def test_a_space_comes_between_where_an_alternative_would_run_into_the_word_before(comparer: Comparer) -> None:
    contrast = await comparer.contrast(Question(TEXT, TARGET, OPTIONS, 5), "et")
    assert contrast.alternative.hypothesis.text.startswith("Je sais voir l'été et")


@pytest.mark.parametrize(
    ("alternative", "error", "message"),
    [
        ("", AlternativeInvalid, "is empty"),
        (" \t ", AlternativeInvalid, "is empty"),
        ("\u200b", AlternativeInvalid, "nothing to write"),
        ("jardin", AlternativeInvalid, "is the word of the translation"),
        (" jardin ", AlternativeInvalid, "is the word of the translation"),
        ("\u6f22", AlternativeInvalid, "1 pieces outside the model's vocabulary"),
        ("a\ud800", TextInvalid, "lone surrogate"),
        ("a " * MAX_TARGET_TOKENS, TargetTooLong, "tokens"),
    ],
)
async def test_an_alternative_that_cannot_be_is_refused(
    comparer: Comparer, metrics: Metrics, alternative: str, error: type[InvalidRequest], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        await comparer.contrast(Question(TEXT, TARGET, OPTIONS, 8), alternative)
    assert caught.value.field == "alternative"
    assert value(metrics, "explanations_total", view="contrast", result="refused") == 1


async def test_an_alternative_that_leaves_no_room_for_an_end_is_refused(comparer: Comparer) -> None:
    options = TranslationOptions(max_target_tokens=4)
    with pytest.raises(TargetTooLong, match="may have 4") as caught:
        await comparer.contrast(Question(TEXT, TARGET, options, 8), "maison")
    assert caught.value.field == "alternative"


@pytest.mark.parametrize("word", [-1, 12])
async def test_a_word_that_is_not_there_is_refused_with_the_range(comparer: Comparer, word: int) -> None:
    with pytest.raises(
        OptionOutOfRange, match=f"target_word is {word}; the translation has 12 words, so allowed is 0 to 11"
    ) as caught:
        await comparer.contrast(Question(TEXT, TARGET, OPTIONS, word), "maison")
    assert caught.value.field == "target_word"


async def test_a_target_with_words_outside_the_vocabulary_can_be_asked_about(comparer: Comparer) -> None:
    contrast = await comparer.contrast(Question(TEXT, "La \u6f22 maison est grande.", OPTIONS, 3), "petit")
    assert contrast.alternative.target_words == (3,)
    assert WarningKind.UNKNOWN_TOKEN in {warning.kind for warning in contrast.warnings}
    found = await comparer.alternatives(Question(TEXT, "La \u6f22 maison", OPTIONS, 2), 4)
    assert all("\u2047" not in alternative.text for alternative in found.alternatives)


async def test_an_unknown_word_of_the_beginning_lets_the_model_write_no_other(translator: Translator) -> None:
    """That a ban holds after the prefix alone is told by the tests of the search."""
    prepared, unknown = await translator.prepare(TEXT, None, OPTIONS), translator.manifest.special_ids.unk
    search = translator.begun(prepared, (unknown, 7), "target").job.options
    assert (search.forced_prefix, search.banned_token_ids) == ((unknown, 7), (unknown,))


async def test_a_queue_of_one_place_is_enough_for_one_call(engine: Engine, tiny_bundle: Path, metrics: Metrics) -> None:
    scheduler = Scheduler(engine, Limits(queue_capacity=1), metrics)
    translator = Translator(scheduler, Tokenizer(tiny_bundle / "tokenizer.model"), engine.manifest, metrics)
    comparer = Comparer(translator, None, metrics)
    for target in (TARGET, None):
        assert (await comparer.contrast(Question(TEXT, target, OPTIONS, 0), "maison")).log_probability_difference
        assert len((await comparer.alternatives(Question(TEXT, target, OPTIONS, 0), 5)).alternatives) == 5
    await scheduler.close()


async def test_without_tables_words_are_compared_without_shares(translator: Translator, metrics: Metrics) -> None:
    contrast = await Comparer(translator, None, metrics).contrast(Question(TEXT, TARGET, OPTIONS, 8), "frère")
    assert contrast.chosen.shares is None and contrast.share_differences is None
    assert contrast.log_probability_difference


async def test_a_model_without_attention_is_refused_by_name(comparer: Comparer, translator: Translator) -> None:
    translator.manifest = replace(translator.manifest, score_kind="none")
    with pytest.raises(AttentionMissing):
        await comparer.contrast(Question(TEXT, TARGET, OPTIONS, 8), "frère")
    with pytest.raises(AttentionMissing):
        await comparer.alternatives(Question(TEXT, TARGET, OPTIONS, 8), 5)


async def assert_listed(found: Alternatives, words: list[str], translator: Translator) -> None:
    """Every promise that a list of alternatives makes; ``words`` are those before the place."""
    log_probabilities = [alternative.log_probability for alternative in found.alternatives]
    assert log_probabilities == sorted(log_probabilities, reverse=True)
    assert len({alternative.text for alternative in found.alternatives}) == len(found.alternatives)
    place = len(words)
    for alternative in found.alternatives:
        hypothesis = alternative.hypothesis
        assert texts(hypothesis)[:place] == words
        assert texts(hypothesis)[place : place + 1] == ([alternative.text] if alternative.text else [])
        start = len(hypothesis.target.pieces)
        if alternative.text:
            start = hypothesis.target.words[place].piece_indices[0]
        scored = (await forced(translator, hypothesis)).token_log_probabilities
        assert alternative.log_probability == pytest.approx(scored[start], abs=1e-4)
        np.testing.assert_allclose(hypothesis.token_log_probabilities, scored, atol=1e-4)


@pytest.mark.parametrize("word", [0, 3, 4, 5, 9, 12])
async def test_alternatives_follow_the_same_words_most_probable_first(
    comparer: Comparer, translator: Translator, word: int
) -> None:
    found = await comparer.alternatives(Question(TEXT, TARGET, OPTIONS, word), 3)
    assert found.source.text == TEXT and found.target.text == TARGET
    assert len(found.alternatives) == 3
    await assert_listed(found, list(WORDS[:word]), translator)


async def test_our_own_translation_is_looked_into_where_none_is_given(
    comparer: Comparer, translator: Translator, metrics: Metrics
) -> None:
    own = (await translator.translate(TEXT, OPTIONS)).hypotheses[0]
    for word in range(len(own.target.words) + 1):
        found = await comparer.alternatives(Question(TEXT, None, OPTIONS, word), 5)
        assert found.target == own.target
        await assert_listed(found, texts(own)[:word], translator)
    assert found.alternatives and "" in {alternative.text for alternative in found.alternatives}
    assert value(metrics, "explanations_total", view="alternatives", result="ok") == len(own.target.words) + 1
    assert value(metrics, "sentences_total") == 1  # that of translate alone


async def test_the_end_of_the_sentence_is_an_alternative_with_no_text(
    comparer: Comparer, translator: Translator
) -> None:
    found = await comparer.alternatives(Question(TEXT, TARGET, OPTIONS, 4), 16)
    (end,) = [alternative for alternative in found.alternatives if not alternative.text]
    assert texts(end.hypothesis) == list(WORDS[:4]) and end.hypothesis.finish_reason == "eos"
    assert end.log_probability == end.hypothesis.token_log_probabilities[-1]


async def test_the_alternatives_of_a_place_are_its_likeliest_pieces(comparer: Comparer, translator: Translator) -> None:
    """Against the whole distribution: pieces left out are less likely, or run into the word before."""
    found = await comparer.alternatives(Question(TEXT, TARGET, OPTIONS, 1), 16)
    prefix = tuple(piece.token_id for piece in found.target.pieces[: found.target.words[1].piece_indices[0]])
    prepared = await translator.prepare(TEXT, None, OPTIONS)
    vocabulary = range(3, translator.tokenizer.vocabulary_size)
    scored = [await translator.trace_prepared(prepared.scoring((*prefix, token_id))) for token_id in vocabulary]
    by_token = {each.target_ids[0][-1]: each.translation.hypotheses[0].token_log_probabilities[-1] for each in scored}
    likeliest = sorted(by_token.values(), reverse=True)[:16]
    for alternative in found.alternatives:
        assert min(abs(alternative.log_probability - value) for value in likeliest) < 1e-4


@pytest.mark.parametrize(
    ("word", "limit", "field"), [(13, 5, "target_word"), (-1, 5, "target_word"), (0, 0, "limit"), (0, 17, "limit")]
)
async def test_a_place_or_a_number_out_of_range_is_refused(
    comparer: Comparer, word: int, limit: int, field: str
) -> None:
    with pytest.raises(OptionOutOfRange, match="allowed is") as caught:
        await comparer.alternatives(Question(TEXT, TARGET, OPTIONS, word), limit)
    assert caught.value.field == field


async def test_a_place_at_the_longest_length_has_alternatives_that_are_cut(comparer: Comparer) -> None:
    options = TranslationOptions(max_target_tokens=2, beam_size=1)
    found = await comparer.alternatives(Question("It's raining again; take your umbrella!", None, options, 0), 3)
    assert len(found.target.pieces) == 2
    assert all(len(each.hypothesis.token_log_probabilities) <= 2 for each in found.alternatives)
    with pytest.raises(TargetTooLong, match="may have 2") as caught:
        words = len(found.target.words)
        await comparer.alternatives(Question("It's raining again; take your umbrella!", None, options, words), 3)
    assert caught.value.field == "target_word"
