"""The guard: what it says of numbers alone, and of translations by the tests' bundle, which is untrained and loops."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.figures import figure_faults
from bundle.manifest import read
from bundle.tokenizer import Tokenizer
from service import guard
from service.batch import Job
from service.errors import AttentionMissing, DeadlinePassed
from service.guard import (
    RETRY_NGRAM_SIZE,
    Evidence,
    Norms,
    Reason,
    Suspicion,
    loops,
    repeated_tokens,
    severity,
    suspicions,
)
from service.metrics import Metrics
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from service.scheduler import Outcome
from service.settings import Settings
from service.translation import TranslationOptions
from service.translator import Translator
from tests.service.edge import Served
from tests.service.samples import value
from tests.tiny_bundle import SENTENCES

EOS = 3
NORMS = Norms(length_ratio=1.1, least_log_probability=-1.0, entropy_ratio=0.2)
NOTHING_KNOWN = Norms(None, None, None)
EMBEDDED = read(Settings().bundle)
RETRY = TranslationOptions(guard="retry")


@pytest.fixture(scope="module")
def words(tiny_bundle: Path) -> Any:
    """Ten words, ten pieces or more."""
    return Tokenizer(tiny_bundle / "tokenizer.model").encode("a a a a a a a a a a").words


def fine(words: Any, **changes: Any) -> Evidence:
    """Return the evidence of a translation that nothing speaks against, but for ``changes``."""
    source = sum(len(word.piece_indices) for word in words) + 1
    sharp = np.eye(source, dtype=np.float32)
    evidence = Evidence((*range(10, 9 + source), EOS), 0, words, (*range(50, 49 + source), EOS), -0.4 * source, sharp)
    return replace(evidence, **changes)


def reasons(evidence: Evidence, norms: Norms = NORMS) -> list[str]:
    return [suspicion.reason for suspicion in suspicions(evidence, norms)]


@pytest.mark.parametrize("token_ids", [(1, 1, 1, 1), (9, 1, 2, 1, 2, 1, 2), tuple(range(16)) * 3])
def test_a_run_said_three_times_over_is_a_loop(token_ids: tuple[int, ...]) -> None:
    assert repeated_tokens(token_ids) >= 4


@pytest.mark.parametrize("token_ids", [(), (1,), (1, 1, 1), (1, 2, 1, 2), (1, 2, 3, 1, 2, 3), tuple(range(40))])
def test_a_word_said_again_is_no_loop(token_ids: tuple[int, ...]) -> None:
    assert repeated_tokens(token_ids) == 0


@given(
    st.lists(st.integers(10, 99), unique=True, max_size=9),
    st.lists(st.integers(100, 199), unique=True, min_size=1, max_size=16),
    st.integers(4, 6),
    st.lists(st.integers(200, 299), unique=True, max_size=9),
)
def test_exactly_the_tokens_of_a_loop_are_counted(
    before: list[int], run: list[int], times: int, after: list[int]
) -> None:
    assert repeated_tokens([*before, *run * times, *after]) == len(run) * times


@given(
    st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=17).flatmap(
            lambda run: st.integers(1, 4).map(lambda times: run * times)
        ),
        max_size=5,
    )
)
def test_what_is_passed_over_quickly_has_no_loop(runs: list[list[int]]) -> None:
    """The search is spared where no three tokens come twice: against the search of every text."""
    token_ids = [token_id for run in runs for token_id in run]
    found = guard._LOOP.finditer("".join(map(chr, token_ids)))
    assert repeated_tokens(token_ids) == sum(loop.end() - loop.start() for loop in found)


def test_nothing_speaks_against_a_plain_translation(words: Any) -> None:
    assert reasons(fine(words)) == []


def test_each_sign_is_named_with_what_was_measured_and_what_counts(words: Any) -> None:
    source = len(fine(words).source_ids)
    flat = np.full((source, source), 1 / source, np.float32)
    at_the_end = np.zeros((source, source), np.float32)
    at_the_end[:, -1] = 1.0
    cases: list[tuple[dict[str, Any], str, float]] = [
        ({"target_ids": (*[7] * (source - 1), EOS)}, "repetition", (source - 1) / source),
        ({"attention_weights": at_the_end}, "uncovered_source", 1.0),
        ({"attention_weights": flat}, "diffuse_attention", 1.0),
        ({"target_ids": tuple(range(50, 50 + 3 * source)), "log_probability": -1.0}, "length", 3.0),
        ({"target_ids": (EOS,), "log_probability": -0.1}, "length", 1 / source),
        ({"log_probability": -2.0 * source}, "low_probability", -2.0),
        ({"unknown_source_tokens": source - 1}, "unknown_source", 1.0),
    ]
    for changes, reason, expected in cases:
        [found] = suspicions(fine(words, **changes), NORMS)
        assert str(found.reason) == reason and found.value == pytest.approx(expected)
        too_low = reason == "low_probability" or (reason == "length" and expected < 1)
        assert found.value < found.threshold if too_low else found.value >= found.threshold
        assert found.message and found.message[0].isprintable()


def test_a_translation_that_was_cut_off_is_suspicious_whatever_is_known(words: Any) -> None:
    for norms in (NORMS, NOTHING_KNOWN):
        [found] = suspicions(fine(words, cut_off=True), norms)
        length = len(fine(words).target_ids)
        assert (found.reason, found.value, found.threshold) == ("length", 1.0, 1.0)
        assert f"cut off at {length} tokens" in found.message


def test_what_the_source_repeats_may_be_repeated(words: Any) -> None:
    source = len(fine(words).source_ids)
    laughter = (*[7] * (source - 1), EOS)
    assert reasons(fine(words, source_ids=laughter, target_ids=laughter)) == []
    assert reasons(fine(words, source_ids=laughter, target_ids=laughter[:-1] * 3)) == ["repetition", "length"]


def test_without_attention_nothing_is_said_of_it(words: Any) -> None:
    source = len(fine(words).source_ids)
    flat = np.full((source, source), 1 / source, np.float32)
    assert reasons(fine(words, attention_weights=flat)) == ["diffuse_attention"]
    assert reasons(fine(words, attention_weights=None)) == []


def test_a_bundle_without_reference_is_not_judged_by_the_figures_of_another(tiny_bundle: Path, words: Any) -> None:
    assert Norms.of(read(tiny_bundle)) == NOTHING_KNOWN
    source = len(fine(words).source_ids)
    flat = np.full((1, source), 1 / source, np.float32)
    odd = fine(words, target_ids=(EOS,), log_probability=-99.0, attention_weights=flat)
    assert reasons(odd, NOTHING_KNOWN) == ["uncovered_source"]


def test_what_is_normal_is_read_from_the_reference(tiny_bundle: Path) -> None:
    def histogram(bounds: list[float], counts: list[int]) -> dict[str, Any]:
        return {"upper_bounds": bounds, "counts": counts}

    histograms = {
        "source_length_tokens": histogram([8, 12], [0, 50, 0]),
        "target_length_tokens": histogram([18, 22], [0, 50, 0]),
        "alignment_entropy_nats": histogram([0.4, 0.6], [0, 50, 0]),
        "token_log_probability_nats": histogram([-2.0, -1.0], [0, 100, 0]),
    }
    norms = Norms.of(replace(read(tiny_bundle), reference={"histograms": histograms}))
    assert norms.length_ratio == pytest.approx(2.0)
    assert norms.entropy_ratio == pytest.approx(0.5 / math.log(10))
    assert norms.least_log_probability == pytest.approx(-1.99)


@given(
    st.lists(st.floats(-1e299, 1e299), unique=True, max_size=3).map(sorted),
    st.lists(st.integers(0, 2**53 - 1), min_size=4, max_size=4),
)
def test_any_histograms_that_a_manifest_may_hold_can_be_read(bounds: list[float], counts: list[int]) -> None:
    counts = counts[: len(bounds) + 1]
    histogram = {"upper_bounds": bounds, "counts": counts}
    assert not list(figure_faults({}, {"histograms": {"any": histogram}}))
    names = ("source_length_tokens", "target_length_tokens", "alignment_entropy_nats", "token_log_probability_nats")
    manifest = replace(EMBEDDED, reference={"histograms": dict.fromkeys(names, histogram)})
    norms = Norms.of(manifest)
    if not bounds or not any(counts):
        assert norms == NOTHING_KNOWN


def test_the_embedded_bundle_says_what_is_normal() -> None:
    norms = Norms.of(EMBEDDED)
    assert norms.length_ratio == pytest.approx(1.1, abs=0.1)
    assert norms.least_log_probability == pytest.approx(-0.7, abs=0.2)
    assert norms.entropy_ratio == pytest.approx(0.13, abs=0.05)


def test_less_of_a_loop_is_less_suspicious_than_fewer_reasons() -> None:
    loop, small = (Suspicion("repetition", share, 0.1, "") for share in (0.9, 0.2))
    odd = Suspicion("length", 0.1, 0.3, "")
    ordered = [(), (odd,), (small,), (small, odd), (loop,)]
    assert sorted(ordered[::-1], key=severity) == ordered
    assert [loops(found) for found in ordered] == [False, False, True, True, True]


async def test_a_loop_is_reported_by_all_and_made_again_only_where_asked(
    translator: Translator, metrics: Metrics
) -> None:
    for number, text in enumerate(SENTENCES, 1):
        before = value(metrics, "repetition_suspected_total")
        plain = await translator.translate(text, TranslationOptions())
        assert value(metrics, "repetition_suspected_total") - before == loops(plain.suspicions)
        report = await translator.translate(text, replace(RETRY, guard="report"))
        assert report.hypotheses == plain.hypotheses and not report.retried
        assert set(plain.suspicions) <= set(report.suspicions)
        again = await translator.translate(text, RETRY)
        assert severity(again.suspicions) <= severity(report.suspicions)
        if again.retried:
            blocked = replace(RETRY, guard="report", no_repeat_ngram_size=RETRY_NGRAM_SIZE)
            assert again.hypotheses == (await translator.translate(text, blocked)).hypotheses
        else:
            assert again.hypotheses == plain.hypotheses and not loops(plain.suspicions)
        assert again.hypotheses[0].alignment is None
        assert value(metrics, "sentences_total") >= 3 * number
    better = value(metrics, "guard_retries_total", result="better")
    assert better > 2
    assert value(metrics, "suspicions_total", reason="repetition") >= 2 * better


async def test_no_run_comes_twice_where_that_is_asked_for(translator: Translator) -> None:
    for size in (1, 2, 3):
        traced = await asyncio.gather(
            *(translator.trace(text, None, TranslationOptions(no_repeat_ngram_size=size)) for text in SENTENCES)
        )
        for each in traced:
            for ids in each.target_ids:
                runs = [ids[first : first + size] for first in range(len(ids) - size + 1)]
                assert len(set(runs)) == len(runs)


async def test_neighbors_that_block_runs_change_no_bit_of_a_sentence(translator: Translator) -> None:
    options = [TranslationOptions(no_repeat_ngram_size=size) for size in (0, 2, 0, 3, 0, 16)]
    asked = [(text, options[index % len(options)]) for index, text in enumerate(SENTENCES * 2)]
    alone = [await translator.translate(*each) for each in asked]
    together = await asyncio.gather(*(translator.translate(*each) for each in asked))
    assert [each.hypotheses for each in alone] == [each.hypotheses for each in together]
    assert max(each.batch_size for each in together) > 1


async def looping(translator: Translator) -> str:
    """Return a text whose translation loops."""
    for text in SENTENCES:
        if loops((await translator.translate(text, TranslationOptions())).suspicions):
            return text
    raise AssertionError("the untrained bundle loops no more; choose another seed for it")


async def test_a_translation_that_was_blocked_already_is_not_made_again(
    translator: Translator, metrics: Metrics
) -> None:
    text = await looping(translator)
    await translator.translate(text, replace(RETRY, no_repeat_ngram_size=1))
    assert not any(value(metrics, "guard_retries_total", result=result) for result in ("better", "kept"))


async def test_a_deadline_that_comes_before_the_second_one_passes_for_the_whole(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, loop = await looping(translator), asyncio.get_running_loop()
    scheduler = translator._scheduler
    submit, made = scheduler.submit, []

    async def late(job: Job, deadline: float | None = None) -> Outcome:
        made.append(job)
        return await submit(job, loop.time() if len(made) == 2 else deadline)

    monkeypatch.setattr(scheduler, "submit", late)
    with pytest.raises(DeadlinePassed):
        await translator.translate(text, RETRY, deadline=loop.time() + 30.0)
    assert [job.options.no_repeat_ngram_size for job in made] == [0, RETRY_NGRAM_SIZE]


async def test_the_time_of_both_attempts_is_told(translator: Translator) -> None:
    text = await looping(translator)
    again = await translator.translate(text, RETRY)
    blocked = await translator.translate(text, TranslationOptions(no_repeat_ngram_size=RETRY_NGRAM_SIZE))
    assert again.retried and again.timings.decode > blocked.timings.decode / 2
    assert 0 < again.timings.tokenize < 0.1


async def test_attention_of_a_model_that_has_none_is_not_guarded(translator: Translator, metrics: Metrics) -> None:
    manifest = replace(translator.manifest, score_kind="none")
    without = Translator(translator._scheduler, translator.tokenizer, manifest, metrics)
    assert (await without.translate(SENTENCES[0], TranslationOptions())).hypotheses
    with pytest.raises(AttentionMissing, match="has no attention"):
        await without.translate(SENTENCES[0], RETRY)


async def test_what_was_found_arrives_over_the_wire(service: Served, channel: grpc.aio.Channel) -> None:
    text = await looping(service.model.translator)
    translations, explanations = pb_grpc.TranslationServiceStub(channel), pb_grpc.ExplanationServiceStub(channel)
    plain = (await translations.Translate(pb.TranslateRequest(texts=[text]))).results[0].translation
    [found] = plain.suspicions
    assert found.reason == pb.SUSPICION_REASON_REPETITION and found.value >= found.threshold and found.message
    again = await translations.Translate(pb.TranslateRequest(texts=[text], guard=pb.TRANSLATION_GUARD_RETRY))
    assert again.results[0].translation.retried and not again.results[0].translation.suspicions
    assert again.effective_options.no_repeat_ngram_size == 0  # as asked for; `retried` tells the rest
    blocked = pb.TranslateRequest(texts=[text], options=pb.DecodingOptions(no_repeat_ngram_size=RETRY_NGRAM_SIZE))
    reply = await translations.Translate(blocked)
    assert reply.effective_options.no_repeat_ngram_size == RETRY_NGRAM_SIZE
    assert reply.results[0].translation.hypotheses == again.results[0].translation.hypotheses
    explained = await explanations.Explain(pb.ExplainRequest(text=text))
    assert found in explained.suspicions
    with pytest.raises(grpc.aio.AioRpcError, match="no_repeat_ngram_size is 17; allowed is 0 to 16"):
        await translations.Translate(
            pb.TranslateRequest(texts=[text], options=pb.DecodingOptions(no_repeat_ngram_size=17))
        )


async def test_whatever_is_cut_off_is_told_by_every_call_and_at_every_level(channel: grpc.aio.Channel) -> None:
    options, text = pb.DecodingOptions(max_target_tokens=2), SENTENCES[0]
    translations, explanations = pb_grpc.TranslationServiceStub(channel), pb_grpc.ExplanationServiceStub(channel)
    answers = []
    for level in pb.TranslationGuard.values():
        reply = await translations.Translate(pb.TranslateRequest(texts=[text], options=options, guard=level))
        answers.append(reply.results[0].translation.suspicions)
        document = [
            pb.TranslateStreamRequest(options=pb.DocumentOptions(options=options, guard=level)),
            pb.TranslateStreamRequest(text=text),
        ]
        first = await anext(aiter(translations.TranslateStream(document)))
        answers.append(first.sentence.translation.suspicions)
    told = [part async for part in translations.StreamTokens(pb.StreamTokensRequest(text=text, options=options))]
    answers.append(told[-1].translation.suspicions)
    answers.append((await explanations.Explain(pb.ExplainRequest(text=text, options=options))).suspicions)
    whole = await translations.Translate(pb.TranslateRequest(texts=[text]))
    for found in answers:
        [cut] = [each for each in found if each.reason == pb.SUSPICION_REASON_LENGTH]
        assert "cut off at 2 tokens" in cut.message
    assert not whole.results[0].translation.suspicions


def test_every_reason_has_its_name_on_the_wire() -> None:
    assert [f"SUSPICION_REASON_{reason.upper()}" for reason in get_args(Reason)] == pb.SuspicionReason.keys()[1:]


async def test_an_explanation_is_judged_by_its_attention_too(translator: Translator) -> None:
    translator._norms = NORMS
    for text in SENTENCES:
        traced = await translator.trace(text, None, TranslationOptions())
        report = await translator.translate(text, TranslationOptions(guard="report"))
        assert traced.translation.suspicions == report.suspicions
