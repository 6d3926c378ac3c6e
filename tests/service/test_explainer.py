import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle import manifest as manifests
from bundle.decomposition import softmax
from service.errors import (
    AttentionMissing,
    BundleRefused,
    InvalidRequest,
    OptionOutOfRange,
    StatisticsMissing,
    Unsupported,
)
from service.explainer import Explainer, Explanation, WarningKind, load_tables
from service.metrics import Metrics
from service.translation import TranslationOptions
from service.translator import Translator
from tests.service.samples import value
from tests.tiny_bundle import MAX_SOURCE_TOKENS, MAX_TARGET_TOKENS, SENTENCES

TEXT = "She wants to see the garden."


@pytest.fixture
def explainer(translator: Translator, tiny_bundle: Path, metrics: Metrics) -> Explainer:
    return Explainer(translator, load_tables(tiny_bundle, translator.manifest), metrics)


def assert_whole(explanation: Explanation) -> None:
    """Every promise that a reply of any explanation makes."""
    scores, decomposition = explanation.attention_scores, explanation.decomposition
    best = explanation.translation.hypotheses[0]
    assert scores.shape == (len(best.token_log_probabilities), len(explanation.translation.source.pieces) + 1)
    summed = decomposition.terms.sum(axis=(0, 1))
    np.testing.assert_allclose(summed, scores, atol=1e-4 * np.abs(scores).max())
    assert decomposition.reconstruction_error < 1e-4
    np.testing.assert_allclose(softmax(scores.astype(np.float64)), explanation.attention_weights, atol=1e-5)
    np.testing.assert_allclose(explanation.attention_weights.sum(axis=1), 1.0, atol=1e-5)
    assert decomposition.shares.sum() == pytest.approx(1.0)
    assert explanation.alignment is best.alignment
    assert explanation.translation.timings.explain > 0


@pytest.mark.parametrize("text", SENTENCES)
async def test_the_terms_of_our_own_translation_add_up(explainer: Explainer, text: str) -> None:
    explanation = await explainer.explain(text, None, TranslationOptions())
    assert_whole(explanation)
    assert not explanation.forced


async def test_the_explained_translation_is_the_one_translate_gives(
    explainer: Explainer, translator: Translator
) -> None:
    options = TranslationOptions(beam_size=4, alignment=True)
    explained = (await explainer.explain(TEXT, None, options)).translation.hypotheses[0]
    translated = (await translator.translate(TEXT, options)).hypotheses[0]
    assert explained.token_log_probabilities == translated.token_log_probabilities
    assert explained.alignment is not None and translated.alignment is not None
    np.testing.assert_array_equal(explained.alignment.word_matrix, translated.alignment.word_matrix)


async def test_a_given_target_is_explained_as_given(explainer: Explainer) -> None:
    explanation = await explainer.explain(TEXT, "Elle veut voir le jardin.", TranslationOptions())
    assert_whole(explanation)
    assert explanation.forced
    assert explanation.translation.hypotheses[0].text == "Elle veut voir le jardin."


async def test_tables_are_named_by_the_digest_of_what_was_read(explainer: Explainer, tiny_bundle: Path) -> None:
    explanation = await explainer.explain(TEXT, None, TranslationOptions())
    tables = load_tables(tiny_bundle, manifests.read(tiny_bundle))
    assert tables is not None
    assert explanation.tables.digest == tables.digest
    assert (explanation.tables.corpus, explanation.tables.sentences) == ("twelve sentences", 12)


async def test_a_token_the_tables_never_saw_is_flagged_where_it_stands(explainer: Explainer) -> None:
    explanation = await explainer.explain("The \u6f22 house", None, TranslationOptions())
    by_kind = {(warning.kind, warning.side): warning for warning in explanation.warnings}
    pieces = explanation.translation.source.pieces
    unknown = tuple(index for index, piece in enumerate(pieces) if "\u6f22" in piece.text)
    assert by_kind[WarningKind.UNKNOWN_TOKEN, "source"].positions == unknown
    assert set(unknown) <= set(by_kind[WarningKind.UNSEEN_TOKEN, "source"].positions)
    decomposition = explanation.decomposition
    assert not decomposition.encoder.input_driven[list(unknown)].any()


async def test_positions_beyond_the_tables_are_flagged(explainer: Explainer) -> None:
    text = " ".join("a" * (MAX_SOURCE_TOKENS - 1))
    fitted = max(len(explainer._translator.tokenizer.encode(text).pieces) for text in SENTENCES) + 1
    assert fitted < MAX_SOURCE_TOKENS
    explanation = await explainer.explain(text, None, TranslationOptions())
    assert_whole(explanation)
    beyond = [
        warning
        for warning in explanation.warnings
        if (warning.kind, warning.side) == (WarningKind.POSITION_BEYOND_TABLES, "source")
    ]
    assert beyond and beyond[0].positions[-1] == MAX_SOURCE_TOKENS - 1


async def test_a_translation_that_was_cut_is_flagged_and_a_given_one_never_is(explainer: Explainer) -> None:
    cut = await explainer.explain(TEXT, None, TranslationOptions(max_target_tokens=1, beam_size=1))
    assert cut.translation.hypotheses[0].finish_reason == "max_length"
    assert WarningKind.TARGET_CUT in {warning.kind for warning in cut.warnings}
    assert_whole(cut)
    given = await explainer.explain(TEXT, "Elle", TranslationOptions())
    assert WarningKind.TARGET_CUT not in {warning.kind for warning in given.warnings}


async def test_a_bundle_without_tables_is_refused_by_reason(
    translator: Translator, tiny_bundle_without_tables: Path, metrics: Metrics
) -> None:
    manifest = manifests.read(tiny_bundle_without_tables)
    assert load_tables(tiny_bundle_without_tables, manifest) is None
    with pytest.raises(StatisticsMissing, match="has no component tables") as caught:
        await Explainer(translator, None, metrics).explain(TEXT, None, TranslationOptions())
    assert caught.value.reason == "STATISTICS_MISSING"
    assert value(metrics, "explanations_total", view="own", result="refused") == 1


@pytest.mark.parametrize(
    ("score_kind", "error", "message"),
    [("none", AttentionMissing, "has no attention"), ("additive", Unsupported, "additive attention")],
)
async def test_a_model_whose_scores_have_no_nine_terms_is_refused_by_name(
    explainer: Explainer, score_kind: str, error: type[Unsupported], message: str
) -> None:
    explainer._manifest = replace(explainer._manifest, score_kind=score_kind, architecture="other")
    with pytest.raises(error, match=rf"'tiny' \(other\) has .*{message.removeprefix('has ')}"):
        await explainer.explain(TEXT, None, TranslationOptions())


async def test_what_a_translation_refuses_an_explanation_refuses_too(explainer: Explainer, metrics: Metrics) -> None:
    for text, target in (("", None), (TEXT, ""), (TEXT, "maison " * MAX_TARGET_TOKENS)):
        with pytest.raises(InvalidRequest):
            await explainer.explain(text, target, TranslationOptions())
    assert value(metrics, "explanations_total", view="own", result="refused") == 1
    assert value(metrics, "explanations_total", view="forced", result="refused") == 2


async def test_shares_and_errors_are_metered(explainer: Explainer, metrics: Metrics) -> None:
    explanation = await explainer.explain(TEXT, None, TranslationOptions())
    shares = explanation.decomposition.shares
    for low, high in ((-0.5, 0.0), (0.0, 1.5)):  # signed, so Prometheus keeps no sum of them
        wanted = int(low < shares[0, 1] <= high)
        counts = [
            value(metrics, "decomposition_share_ratio_bucket", term="temporal_input_driven", le=str(edge))
            for edge in (low, high)
        ]
        assert counts[1] - counts[0] == wanted
    assert value(metrics, "decomposition_delta_ratio_count") == 1
    assert value(metrics, "decomposition_reconstruction_error_ratio_count") == 1
    assert value(metrics, "explanations_total", view="own", result="ok") == 1
    assert value(metrics, "stage_duration_seconds_count", stage="explain") == 1


async def test_any_hypothesis_of_the_n_best_is_explained_as_itself(
    explainer: Explainer, translator: Translator
) -> None:
    options = TranslationOptions(beam_size=4, n_best=3)
    listed = (await translator.translate(TEXT, options)).hypotheses
    for index, hypothesis in enumerate(listed):
        explanation = await explainer.explain(TEXT, None, options, hypothesis_index=index)
        assert_whole(explanation)
        (explained,) = explanation.translation.hypotheses
        assert (explained.text, explained.token_log_probabilities) == (
            hypothesis.text,
            hypothesis.token_log_probabilities,
        )


@pytest.mark.parametrize(("index", "target"), [(2, None), (-1, None), (1, "Elle")])
async def test_a_hypothesis_that_is_not_asked_for_is_refused(
    explainer: Explainer, index: int, target: str | None
) -> None:
    options = TranslationOptions(n_best=1 if target else 2)
    with pytest.raises(OptionOutOfRange, match=f"hypothesis_index is {index}; allowed is 0 to") as caught:
        await explainer.explain(TEXT, target, options, hypothesis_index=index)
    assert caught.value.field == "hypothesis_index"


def nine_terms_again(states: dict[str, np.ndarray]) -> np.ndarray:
    """Written from docs/decomposition.md eq. 3 and 10 alone."""
    parts = {}
    for side in ("encoder", "decoder"):
        temporal, driven = states[f"{side}_temporal"], states[f"{side}_input_driven"]
        parts[side] = (temporal, driven, states[f"{side}_states"] - temporal - driven)
    return np.array([[decoder @ encoder.T for decoder in parts["decoder"]] for encoder in parts["encoder"]])


def shares_again(terms: np.ndarray) -> np.ndarray:
    """Equations 12 and 13, one row and one term at a time."""
    shared, whole = np.zeros((3, 3)), 0.0
    for row in range(terms.shape[2]):
        scores = terms[:, :, row].sum(axis=(0, 1))
        scores = scores - scores.mean()
        whole += float(scores @ scores)
        for e in range(3):
            for d in range(3):
                shared[e, d] += float((terms[e, d, row] - terms[e, d, row].mean()) @ scores)
    return shared / whole


def distance_again(scores: np.ndarray, kept: np.ndarray) -> float:
    """Equation 15."""
    total = 0.0
    for true, rebuilt in zip(scores, kept, strict=True):
        weights, others = np.exp(true - true.max()), np.exp(rebuilt - rebuilt.max())
        total += 0.5 * float(np.abs(weights / weights.sum() - others / others.sum()).sum())
    return total / len(scores)


@pytest.mark.parametrize("text", SENTENCES)
async def test_everything_can_be_computed_again_from_the_states_that_are_returned(
    explainer: Explainer, text: str
) -> None:
    """A twin that knows the states in float32, as they travel, and nothing else."""
    explanation = await explainer.explain(text, None, TranslationOptions())
    found = explanation.decomposition
    states: dict[str, np.ndarray] = {}
    for side, components in (("encoder", found.encoder), ("decoder", found.decoder)):
        whole = components.temporal + components.input_driven + components.delta
        parts = {"states": whole, "temporal": components.temporal, "input_driven": components.input_driven}
        states |= {f"{side}_{name}": array.astype(np.float32).astype(np.float64) for name, array in parts.items()}
    terms = nine_terms_again(states)
    np.testing.assert_allclose(found.terms, terms, atol=1e-5)
    scores = states["decoder_states"] @ states["encoder_states"].T
    np.testing.assert_allclose(explanation.attention_scores, scores, atol=1e-5)
    np.testing.assert_allclose(found.shares, shares_again(terms), atol=1e-5)
    for row in range(len(scores)):
        np.testing.assert_allclose(found.row_shares[:, :, row], shares_again(terms[:, :, [row]]), atol=1e-5)
    names = ("temporal", "input_driven", "delta")
    kept = {"temporal_temporal": terms[0, 0]}
    for e, encoder in enumerate(names):
        rest = [index for index in range(3) if index != e]
        kept[f"without_{encoder}"] = sum(terms[i, j] for i in rest for j in rest)
        for d, decoder in enumerate(names):
            kept[f"without_{encoder}_{decoder}"] = sum(
                terms[i, j] for i in range(3) for j in range(3) if (i, j) != (e, d)
            )
    assert kept.keys() == found.subset_distances.keys()
    for name, distance in found.subset_distances.items():
        assert distance == pytest.approx(distance_again(scores, kept[name]), abs=1e-5)


async def test_words_have_the_probability_of_their_pieces(explainer: Explainer) -> None:
    explanation = await explainer.explain(TEXT, "Elle veut voir le jardin.", TranslationOptions())
    (hypothesis,) = explanation.translation.hypotheses
    words, end = hypothesis.word_log_probabilities, hypothesis.token_log_probabilities[-1]
    assert len(words) == len(hypothesis.target.words)
    assert sum(words) + end == pytest.approx(hypothesis.log_probability)


def test_tables_that_are_not_those_of_the_manifest_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    manifest = manifests.read(folder)
    assert manifest.tables is not None
    other = replace(manifest, tables=replace(manifest.tables, digest="0" * 64))
    with pytest.raises(BundleRefused, match="the manifest says tiny-1"):
        load_tables(folder, other)
    (folder / manifests.TABLES_FILE).write_bytes(b"no tables")
    with pytest.raises(BundleRefused):
        load_tables(folder, manifest)
