import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import tokenizer
from bundle.manifest import Manifest
from service.errors import (
    AttentionMissing,
    BundleRefused,
    DeadlinePassed,
    InvalidRequest,
    OptionOutOfRange,
    SourceEmpty,
    SourceTooLong,
    TargetEmpty,
    TargetTooLong,
    TextInvalid,
)
from service.metrics import Metrics
from service.models.loading import load_tokenizer
from service.translation import Guard, TranslationOptions
from service.translator import Translator
from tests.service.samples import value
from tests.tiny_bundle import MAX_SOURCE_TOKENS, MAX_TARGET_TOKENS, SENTENCES

TEXT = "The garden is small; I don't know."


async def test_a_translation_says_what_it_is_made_of(translator: Translator) -> None:
    translation = await translator.translate(TEXT, TranslationOptions(n_best=3))
    assert translation.source.text == TEXT
    assert [word.text for word in translation.source.words][:3] == ["The", "garden", "is"]
    scores = [hypothesis.normalized_score for hypothesis in translation.hypotheses]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert len({hypothesis.text for hypothesis in translation.hypotheses}) > 1
    for hypothesis in translation.hypotheses:
        length = len(hypothesis.token_log_probabilities)
        assert hypothesis.log_probability == pytest.approx(sum(hypothesis.token_log_probabilities))
        assert hypothesis.normalized_score == pytest.approx(hypothesis.log_probability / length)
        assert length == len(hypothesis.target.pieces) + (hypothesis.finish_reason == "eos")
        assert hypothesis.text == hypothesis.target.text
        assert hypothesis.alignment is None


async def test_the_same_text_gives_the_same_translation(translator: Translator) -> None:
    options = TranslationOptions(n_best=2, alignment=True)
    first, *rest = [await translator.translate(TEXT, options) for _ in range(3)]
    for other in rest:
        for one, two in zip(first.hypotheses, other.hypotheses, strict=True):
            assert (one.text, one.token_log_probabilities) == (two.text, two.token_log_probabilities)
            assert one.alignment is not None and two.alignment is not None
            np.testing.assert_array_equal(one.alignment.piece_weights, two.alignment.piece_weights)


async def test_many_callers_get_what_each_would_get_alone(translator: Translator) -> None:
    alone = [await translator.translate(text, TranslationOptions()) for text in SENTENCES]
    together = await asyncio.gather(*(translator.translate(text, TranslationOptions()) for text in SENTENCES))
    assert [each.hypotheses for each in alone] == [each.hypotheses for each in together]
    assert max(each.batch_size for each in together) > 1


def test_a_damaged_tokenizer_is_refused_as_the_bundle_is(translator: Translator, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(BundleRefused, match="not a SentencePiece model"):
        load_tokenizer(tmp_path, translator.manifest)


def test_a_tokenizer_of_another_bundle_is_refused_with_both_values(translator: Translator, tiny_bundle: Path) -> None:
    manifest = translator.manifest
    assert load_tokenizer(tiny_bundle, manifest).vocabulary_size == manifest.sizes["vocabulary"]
    special_ids = replace(manifest.special_ids, bos=manifest.special_ids.eos)
    other = replace(manifest, sizes={**manifest.sizes, "vocabulary": 7}, special_ids=special_ids)
    with pytest.raises(BundleRefused) as caught:
        load_tokenizer(tiny_bundle, other)
    assert "a vocabulary of 120; the manifest says 7" in str(caught.value)
    assert "the bos id 2; the manifest says 3" in str(caught.value)
    assert "eos" not in str(caught.value)


async def test_an_alignment_covers_words_and_pieces_and_its_rows_sum_to_one(translator: Translator) -> None:
    translation = await translator.translate(TEXT, TranslationOptions(n_best=4, alignment=True))
    source = translation.source
    for hypothesis in translation.hypotheses:
        alignment, end = hypothesis.alignment, hypothesis.finish_reason == "eos"
        assert alignment is not None
        assert alignment.piece_weights.shape == (len(hypothesis.target.pieces) + end, len(source.pieces) + 1)
        assert alignment.word_matrix.shape == (len(hypothesis.target.words) + end, len(source.words) + 1)
        assert alignment.word_matrix.dtype == np.float32
        np.testing.assert_allclose(alignment.piece_weights.sum(axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(alignment.word_matrix.sum(axis=1), 1.0, atol=1e-5)
        for target_index, source_index, weight in alignment.links:
            assert weight == pytest.approx(alignment.word_matrix[target_index].max())
            assert source_index < len(source.words)


async def test_timings_add_up_to_the_time_it_took(translator: Translator) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    timings = (await translator.translate(TEXT, TranslationOptions())).timings
    whole = loop.time() - began
    parts = [timings.queue, timings.tokenize, timings.encode, timings.decode, timings.detokenize]
    assert all(part > 0 for part in parts)
    assert sum(parts) <= whole
    assert timings.explain == 0
    aligned = (await translator.translate(TEXT, TranslationOptions(alignment=True))).timings
    assert aligned.explain > 0


@pytest.mark.parametrize("text", ["", "   ", "\u200b", "\n\t \u00a0"])
async def test_nothing_to_translate_is_refused(translator: Translator, text: str) -> None:
    with pytest.raises(SourceEmpty) as caught:
        await translator.translate(text, TranslationOptions())
    assert caught.value.field == "text"


async def test_a_text_one_token_too_long_is_refused_with_both_counts(translator: Translator) -> None:
    text = " ".join("a" * (MAX_SOURCE_TOKENS - 1))
    await translator.translate(text, TranslationOptions(beam_size=1, max_target_tokens=1))
    with pytest.raises(SourceTooLong, match=f"text has {MAX_SOURCE_TOKENS + 1} tokens.*allows {MAX_SOURCE_TOKENS}"):
        await translator.translate(text + " a", TranslationOptions())


async def test_a_very_long_text_is_refused_without_tokenizing_it(translator: Translator) -> None:
    with pytest.raises(SourceTooLong, match="text has 4000000 characters"):
        async with asyncio.timeout(1):
            await translator.translate("a b " * 1_000_000, TranslationOptions())


async def test_the_loop_goes_round_between_the_texts_of_one_request(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.translator._TOKENIZING_SECONDS", 0.0)  # every text uses up a turn
    texts = 20
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    translations = [translator.translate("a " * 200, TranslationOptions()) for _ in range(texts)]
    outcomes = await asyncio.gather(*translations, return_exceptions=True)
    counting.cancel()
    assert all(isinstance(outcome, SourceTooLong) for outcome in outcomes)
    assert turns >= texts


async def test_a_text_too_long_costs_no_spans(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.tokenizer._placed", None)  # calling it would be a TypeError
    with pytest.raises(SourceTooLong, match="tokens"):
        await translator.translate("a " * 200, TranslationOptions())


@pytest.mark.parametrize("guard", ["free", "report", "retry"])
async def test_spans_are_worked_out_for_who_asks_for_an_alignment_or_is_guarded_by_attention(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, guard: Guard
) -> None:
    placed: list[str] = []
    place = tokenizer._placed

    def count(text: str, found: Sequence[Any]) -> Any:
        placed.append(text)
        return place(text, found)

    monkeypatch.setattr(tokenizer, "_placed", count)
    await translator.translate(TEXT, TranslationOptions(guard=guard))
    assert placed == [TEXT] * (guard != "free")
    aligned = await translator.translate(TEXT, TranslationOptions(guard=guard, alignment=True))
    assert sorted(placed[-2:]) == sorted([TEXT, aligned.hypotheses[0].text])


@pytest.mark.parametrize(("text", "what"), [("a \ud800 b", "lone surrogate"), ("a \0 b", "NUL")])
async def test_what_is_not_text_is_refused(translator: Translator, text: str, what: str) -> None:
    with pytest.raises(TextInvalid, match=what) as caught:
        await translator.translate(text, TranslationOptions())
    assert caught.value.field == "text"
    with pytest.raises(TextInvalid, match=what):
        await translator.trace(TEXT, text, TranslationOptions())


@pytest.mark.parametrize(
    ("options", "field", "allowed"),
    [
        (TranslationOptions(beam_size=0), "beam_size", "1 to 16"),
        (TranslationOptions(beam_size=17), "beam_size", "1 to 16"),
        (TranslationOptions(beam_size=2, n_best=3), "num_hypotheses", "1 to 2"),
        (TranslationOptions(length_penalty=-0.5), "length_penalty", "0 to 5"),
        (TranslationOptions(length_penalty=float("nan")), "length_penalty", "0 to 5"),
        (TranslationOptions(max_target_tokens=0), "max_target_tokens", f"1 to {MAX_TARGET_TOKENS}"),
        (TranslationOptions(max_target_tokens=41), "max_target_tokens", f"1 to {MAX_TARGET_TOKENS}"),
    ],
)
async def test_an_option_out_of_range_is_named_with_its_range(
    translator: Translator, options: TranslationOptions, field: str, allowed: str
) -> None:
    with pytest.raises(OptionOutOfRange, match=allowed) as caught:
        await translator.translate(TEXT, options)
    assert caught.value.field == f"options.{field}"


async def test_a_translation_is_cut_at_the_length_asked_for(translator: Translator) -> None:
    translation = await translator.translate(TEXT, TranslationOptions(max_target_tokens=2, length_penalty=0.0))
    assert all(len(hypothesis.token_log_probabilities) <= 2 for hypothesis in translation.hypotheses)


async def test_a_forced_prefix_starts_the_translation(translator: Translator) -> None:
    translation = await translator.translate(TEXT, TranslationOptions(forced_prefix="Je ne", n_best=2))
    assert all(hypothesis.text.startswith("Je ne") for hypothesis in translation.hypotheses)


@pytest.mark.parametrize(
    ("prefix", "limit", "error"),
    [("Je ne sais pas", 3, TargetTooLong), ("Je \u6f22", None, TextInvalid), ("la " * 60, None, TargetTooLong)],
)
async def test_a_forced_prefix_that_cannot_be_is_refused(
    translator: Translator, prefix: str, limit: int | None, error: type[InvalidRequest]
) -> None:
    with pytest.raises(error) as caught:
        await translator.translate(TEXT, TranslationOptions(forced_prefix=prefix, max_target_tokens=limit))
    assert caught.value.field == "options.forced_prefix"


async def test_an_unknown_character_is_counted_and_never_produced(translator: Translator, metrics: Metrics) -> None:
    translation = await translator.translate("The \u6f22 house", TranslationOptions(n_best=4))
    assert value(metrics, "unknown_source_tokens_total") == 1
    unk = translator.manifest.special_ids.unk
    assert all(piece.token_id != unk for each in translation.hypotheses for piece in each.target.pieces)


async def test_an_alignment_of_a_model_without_attention_is_refused_by_name(
    translator: Translator, metrics: Metrics
) -> None:
    fields = translator.manifest.__dict__ | {"score_kind": "none", "architecture": "ved"}
    without = Translator(translator._scheduler, translator.tokenizer, Manifest(**fields), metrics)
    with pytest.raises(AttentionMissing, match=r"'tiny' \(ved\) has no attention"):
        await without.translate(TEXT, TranslationOptions(alignment=True))
    assert (await without.translate(TEXT, TranslationOptions())).hypotheses


async def test_a_given_target_is_traced_as_it_was_given(translator: Translator) -> None:
    target = "La maison est \u6f22 grande."
    traced = await translator.trace(TEXT, target, TranslationOptions())
    (hypothesis,) = traced.translation.hypotheses
    assert hypothesis.text == target and hypothesis.finish_reason == "eos"
    eos = translator.manifest.special_ids.eos
    (target_ids,), (trace,) = traced.target_ids, traced.traces
    assert target_ids == (*translator.tokenizer.encode(target).token_ids, eos)
    assert trace.attention_scores is not None
    assert trace.attention_scores.shape == (len(target_ids), len(traced.source_ids))


async def test_a_target_that_cannot_be_is_refused(translator: Translator) -> None:
    with pytest.raises(TargetEmpty):
        await translator.trace(TEXT, " ", TranslationOptions())
    with pytest.raises(TargetTooLong, match=f"this bundle allows {MAX_TARGET_TOKENS}"):
        await translator.trace(TEXT, "maison " * 30, TranslationOptions())


async def test_a_deadline_reaches_the_scheduler(translator: Translator) -> None:
    with pytest.raises(DeadlinePassed):
        await translator.translate(TEXT, TranslationOptions(), deadline=asyncio.get_running_loop().time() - 1)


async def test_sentences_tokens_and_stages_are_metered(translator: Translator, metrics: Metrics) -> None:
    translation = await translator.translate(TEXT, TranslationOptions(alignment=True))
    best = translation.hypotheses[0]
    assert value(metrics, "sentences_total") == 1
    assert value(metrics, "source_characters_total") == len(TEXT)
    assert value(metrics, "source_tokens_total") == len(translation.source.pieces) + 1
    assert value(metrics, "target_tokens_total") == len(best.token_log_probabilities)
    assert value(metrics, "finish_reason_total", reason=best.finish_reason) == 1
    assert value(metrics, "alignment_entropy_nats_count") == 1
    for stage in ("queue", "tokenize", "encode", "decode", "explain", "detokenize"):
        assert value(metrics, "stage_duration_seconds_count", stage=stage) == 1
    await translator.trace(TEXT, "La maison", TranslationOptions())
    assert value(metrics, "sentences_total") == 1
