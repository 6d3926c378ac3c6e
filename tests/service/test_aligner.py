"""Alignments by every method and from either evidence, on a bundle and a second one that plays its reverse."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from bundle import manifest as manifests
from bundle.alignment import CONFIDENT, links
from bundle.symmetrization import RULES, symmetrized
from service.client import array
from service.errors import (
    BundleRefused,
    OptionOutOfRange,
    PosteriorMissing,
    ReverseModelMissing,
    TargetEmpty,
)
from service.metrics import Metrics
from service.models.loading import loaded
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from service.settings import read_settings
from service.translation import Alignment, TranslationOptions
from service.translator import Translator
from tests.service.edge import served
from tests.tiny_bundle import SENTENCES, TinyBundle

TEXT = "The garden is small; I don't know."


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyBundle(with_posterior=True).write(tmp_path_factory.mktemp("bundles") / "forward")


@pytest.fixture(scope="module")
def reverse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, for the languages the other way round."""
    folder = TinyBundle(hidden=16, with_tables=False, with_posterior=True).write(
        tmp_path_factory.mktemp("bundles") / "reverse"
    )
    return _renamed(folder, bundle_id="tiny-back", source_language="fr", target_language="en")


def _renamed(folder: Path, **changes: str) -> Path:
    manifests.write(folder, replace(manifests.read(folder), **changes))  # type: ignore[arg-type]
    return folder


@pytest_asyncio.fixture
async def translator(bundle: Path, reverse: Path, metrics: Metrics) -> AsyncIterator[Translator]:
    async with loaded(read_settings(bundle=bundle, reverse_bundle=reverse, threads=1), metrics) as model:
        yield model.translator


async def aligned(translator: Translator, target: str | None = None, **options: object) -> Alignment:
    wanted = TranslationOptions(alignment=True, **options)  # type: ignore[arg-type]
    traced = await translator.trace(TEXT, target, wanted)
    alignment = traced.translation.hypotheses[0].alignment
    assert alignment is not None
    return alignment


async def test_links_come_from_the_posterior_unless_attention_is_asked_for(translator: Translator) -> None:
    plain, attention = await aligned(translator), await aligned(translator, alignment_evidence="attention")
    assert (plain.evidence, attention.evidence) == ("posterior", "attention")
    assert plain.posterior_word_matrix is not None and plain.posterior_piece_weights is not None
    words = len(plain.unaligned_target) + len({target for target, _, _ in plain.links})
    assert (plain.method, attention.method) == ("threshold", "argmax")
    ways = ((plain, plain.posterior_word_matrix, CONFIDENT), (attention, attention.word_matrix, None))
    for alignment, matrix, threshold in ways:
        expected = np.reshape(links(matrix, words, threshold), (-1, 3))
        np.testing.assert_allclose(np.reshape(alignment.links, (-1, 3)), expected, atol=1e-6)
    np.testing.assert_array_equal(plain.word_matrix, attention.word_matrix)
    np.testing.assert_allclose(plain.posterior_piece_weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(plain.posterior_piece_weights[-1], plain.piece_weights[-1])
    assert not np.allclose(plain.posterior_piece_weights, plain.piece_weights, atol=0.01)


async def test_the_posterior_is_what_one_position_at_a_time_would_have_said(translator: Translator) -> None:
    """The tiny read-out is linear, so its emission scores can be had from the graph: they are what attention given
    to one position alone makes of the logits, and the posterior follows from Bayes' rule."""
    traced = await translator.trace(SENTENCES[0], SENTENCES[7], TranslationOptions())
    [trace] = traced.traces
    alignment = traced.translation.hypotheses[0].alignment
    assert trace.emission_scores is not None and trace.attention_weights is not None and alignment is not None
    joint = trace.attention_weights[:-1].astype(float) * np.exp(trace.emission_scores[1:].astype(float))
    found = alignment.posterior_piece_weights
    assert found is not None
    np.testing.assert_allclose(found[:-1], joint / joint.sum(axis=1, keepdims=True), atol=1e-5)


async def test_words_without_a_link_are_named(translator: Translator) -> None:
    alignment = await aligned(translator, alignment_method="threshold", alignment_threshold=0.6)
    targets, sources = alignment.word_matrix.shape
    finished = 1 if alignment.word_matrix.shape[0] > len(alignment.unaligned_target) else 0
    assert alignment.unaligned_target and alignment.unaligned_source
    linked = {target for target, _, _ in alignment.links}, {source for _, source, _ in alignment.links}
    assert linked[0].isdisjoint(alignment.unaligned_target) and linked[1].isdisjoint(alignment.unaligned_source)
    assert len(linked[0]) + len(alignment.unaligned_target) in (targets, targets - finished)
    assert len(linked[1]) + len(alignment.unaligned_source) == sources - 1
    assert all(weight >= 0.6 for _, _, weight in alignment.links)


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("evidence", ["attention", "posterior"])
async def test_both_directions_are_read_between_the_same_words(
    translator: Translator, method: str, evidence: str
) -> None:
    alignment = await aligned(translator, SENTENCES[8], alignment_method=method, alignment_evidence=evidence)
    back = alignment.reverse_word_matrix
    matrix = alignment.word_matrix if evidence == "attention" else alignment.posterior_word_matrix
    assert back is not None and matrix is not None
    assert back.shape == matrix.T.shape and alignment.method == method
    np.testing.assert_allclose(back.sum(axis=1), 1, atol=1e-6)
    forward = [(row, int(best)) for row, best in enumerate(matrix[:-1].argmax(1)) if best < matrix.shape[1] - 1]
    backward = [(int(best), row) for row, best in enumerate(back[:-1].argmax(1)) if best < back.shape[1] - 1]
    assert [(target, source) for target, source, _ in alignment.links] == symmetrized(forward, backward, method)
    assert all(weight == pytest.approx(float(matrix[target, source])) for target, source, weight in alignment.links)


async def test_every_hypothesis_gets_its_own_links_of_both_directions(translator: Translator) -> None:
    options = TranslationOptions(n_best=3, alignment=True, alignment_method="union")
    translation = await translator.translate(TEXT, options)
    for hypothesis in translation.hypotheses:
        assert hypothesis.alignment is not None and hypothesis.alignment.reverse_word_matrix is not None
        words = len(translation.source.words) + 1, len(hypothesis.target.words) + 1
        assert hypothesis.alignment.reverse_word_matrix.shape == words


async def test_an_empty_translation_has_no_links_in_either_direction(translator: Translator) -> None:
    prepared = await translator.prepare(TEXT, None, TranslationOptions(alignment_method="union"))
    job = replace(prepared.job, target_ids=(translator.manifest.special_ids.eos,))
    traced = await translator.trace_prepared(replace(prepared, job=job))
    empty = traced.translation.hypotheses[0]
    assert empty.text == "" and empty.alignment is not None
    assert empty.alignment.links == () and empty.alignment.unaligned_target == ()
    assert len(empty.alignment.unaligned_source) == len(traced.translation.source.words)


async def test_the_reverse_model_does_nothing_for_those_who_do_not_ask(bundle: Path, reverse: Path) -> None:
    registry = CollectorRegistry()
    settings = read_settings(bundle=bundle, reverse_bundle=reverse, threads=1)

    def calls(model: str) -> float:
        labels = {"model": model, "graph": "decoder_step"}
        return registry.get_sample_value("interlinear_batch_executions_total", labels) or 0.0

    async with loaded(settings, Metrics.on(registry)) as model:
        await aligned(model.translator)
        assert calls("tiny-back@1") == 0 < calls("tiny@1")
        await aligned(model.translator, alignment_method="union")
        assert calls("tiny-back@1") > 0


async def test_a_way_that_cannot_be_gone_is_refused_by_its_name(
    translator: Translator, tiny_bundle: Path, metrics: Metrics
) -> None:
    for options in (TranslationOptions(alignment_threshold=0.5), TranslationOptions(alignment_method="threshold")):
        for threshold in (0.0, -1.0, 1.5, float("nan")):
            with pytest.raises(OptionOutOfRange) as refused:
                await translator.translate(TEXT, replace(options, alignment_threshold=threshold))
            assert refused.value.field == "alignment_options.threshold"
    async with loaded(read_settings(bundle=tiny_bundle, threads=1), metrics) as model:
        with pytest.raises(ReverseModelMissing, match="'grow_diag' reads both .* INTERLINEAR_REVERSE_BUNDLE"):
            await model.translator.translate(TEXT, TranslationOptions(alignment_method="grow_diag"))
        with pytest.raises(PosteriorMissing, match="exported without emission scores"):
            await model.translator.translate(TEXT, TranslationOptions(alignment_evidence="posterior"))
        assert (await aligned(model.translator)).evidence == "attention"


async def test_what_the_reverse_model_cannot_read_is_refused_as_the_method(
    bundle: Path, reverse: Path, tmp_path: Path, metrics: Metrics
) -> None:
    short = TinyBundle(hidden=16, with_tables=False, with_posterior=True).write(tmp_path / "short")
    manifest = manifests.read(short)
    limits = replace(manifest.limits, max_source_tokens=5)
    manifests.write(
        short, replace(manifest, bundle_id="short", source_language="fr", target_language="en", limits=limits)
    )
    settings = read_settings(bundle=bundle, reverse_bundle=short, threads=1)
    async with loaded(settings, metrics) as model:
        with pytest.raises(OptionOutOfRange, match="choose argmax or threshold.* this bundle allows 5") as refused:
            await aligned(model.translator, SENTENCES[8], alignment_method="union")
        assert refused.value.field == "alignment_options.method"
        with pytest.raises(TargetEmpty):
            await aligned(model.translator, " ", alignment_method="union")


async def test_a_text_that_the_reverse_model_cannot_take_fails_alone(bundle: Path, tmp_path: Path) -> None:
    short = TinyBundle(hidden=16, with_tables=False, with_posterior=True).write(tmp_path / "short")
    manifest = manifests.read(short)
    limits = replace(manifest.limits, max_target_tokens=6)
    manifests.write(
        short, replace(manifest, bundle_id="short", source_language="fr", target_language="en", limits=limits)
    )
    request = pb.TranslateRequest(
        texts=["house", TEXT],
        alignment=pb.ALIGNMENT_DETAIL_WORDS,
        alignment_options=pb.AlignmentOptions(method=pb.ALIGNMENT_METHOD_UNION),
        options=pb.DecodingOptions(max_target_tokens=4, num_hypotheses=2),
    )
    async with (
        served(bundle, reverse_bundle=short, queue_capacity=2) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        reply = await pb_grpc.TranslationServiceStub(channel).Translate(request)
    taken, refused = reply.results
    assert taken.translation.hypotheses[0].alignment.HasField("reverse_word_weights")
    assert "the reverse model cannot align this pair" in refused.error.message


async def test_a_bundle_that_is_no_reverse_is_refused_with_every_reason(bundle: Path, tmp_path: Path) -> None:
    same = TinyBundle(with_tables=False).write(tmp_path / "same")
    manifest = manifests.read(same)
    manifests.write(same, replace(manifest, score_kind="none"))
    with pytest.raises(BundleRefused) as refused:
        async with loaded(read_settings(bundle=bundle, reverse_bundle=same), Metrics.on(CollectorRegistry())):
            pass
    for reason in (
        "INTERLINEAR_REVERSE_BUNDLE is no reverse direction of 'tiny'",
        "translates en to fr; the reverse translates fr to en",
        "its architecture, aed, has no attention",
        "both bundles are called 'tiny'",
    ):
        assert reason in str(refused.value)


async def test_a_reply_tells_how_links_were_drawn_and_from_what(bundle: Path, reverse: Path) -> None:
    async with (
        served(bundle, reverse_bundle=reverse) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        options = pb.AlignmentOptions(method=pb.ALIGNMENT_METHOD_UNION, evidence=pb.ALIGNMENT_EVIDENCE_ATTENTION)
        request = pb.ExplainRequest(text=TEXT, target=SENTENCES[8], alignment_options=options)
        reply = await pb_grpc.ExplanationServiceStub(channel).Explain(request)
    told = reply.hypothesis.alignment
    assert (told.method, told.evidence) == (pb.ALIGNMENT_METHOD_UNION, pb.ALIGNMENT_EVIDENCE_ATTENTION)
    words = len(reply.hypothesis.target.words) + 1, len(reply.source.words) + 1
    assert array(told.reverse_word_weights).shape == words[::-1]
    assert array(told.posterior_word_weights).shape == array(told.word_weights).shape == words
    assert array(told.posterior_piece_weights).shape == array(told.piece_weights).shape
    linked = {link.target_index for link in told.links}
    assert linked | set(told.unaligned_target_words) == set(range(words[0] - 1))
