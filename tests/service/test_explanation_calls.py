"""The explaining calls over gRPC; tests/service/test_json_api.py holds HTTP against them."""

import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from bundle.components import NEIGHBORS
from bundle.decomposition import COMPONENTS
from bundle.tokenizer import Tokenizer
from service.client import CallFailed, Client, array
from service.explanation_replies import write_explanation
from service.pb import interlinear_pb2 as pb
from service.settings import Settings
from tests.service.edge import SENTENCE, served

EVERY_VIEW = pb.ExplanationView.values()[1:]
EMBEDDED_BUNDLE = Settings().bundle


async def test_an_explanation_adds_up(client: Client) -> None:
    reply = await client.explain(pb.ExplainRequest(text=SENTENCE))
    scores, weights = array(reply.attention_scores), array(reply.attention_weights)
    terms = [array(term.contribution) for term in reply.decomposition.terms]
    assert np.abs(sum(terms) - scores).max() <= 1e-4 * np.abs(scores).max()
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    assert weights == pytest.approx(exponentials / exponentials.sum(axis=1, keepdims=True), abs=1e-5)
    assert weights.shape == (len(reply.hypothesis.token_log_probabilities), len(reply.source.pieces) + 1)
    assert sum(term.share for term in reply.decomposition.terms) == pytest.approx(1.0)
    assert np.sum([term.row_shares for term in reply.decomposition.terms], axis=0) == pytest.approx(1.0)
    assert 0 <= reply.decomposition.reconstruction_error < 1e-4
    assert len(reply.decomposition.subset_distances) == 1 + len(COMPONENTS) + len(COMPONENTS) ** 2
    assert reply.decomposition.tables.digest and reply.decomposition.tables.sentences > 0
    assert not reply.forced and reply.HasField("effective_options")


async def test_the_explained_hypothesis_is_the_translation(client: Client) -> None:
    explained = await client.explain(pb.ExplainRequest(text=SENTENCE))
    request = pb.TranslateRequest(texts=[SENTENCE], alignment=pb.ALIGNMENT_DETAIL_PIECES)
    translated = (await client.translate(request)).results[0].translation
    assert explained.hypothesis == translated.hypotheses[0]
    assert explained.source == translated.source


async def test_a_given_target_is_explained_as_given(client: Client) -> None:
    target = "La maison est petite, mais le jardin est grand."
    reply = await client.explain(pb.ExplainRequest(text=SENTENCE, target=target))
    assert reply.forced and not reply.HasField("effective_options")
    assert "".join(piece.text for piece in reply.hypothesis.target.pieces) == target.replace(" ", "")
    assert reply.hypothesis.finish_reason == pb.FINISH_REASON_END_OF_SENTENCE


def parts(reply: pb.ExplainResponse) -> set[str]:
    """Return which parts of an explanation a reply has."""
    term, encoder = reply.decomposition.terms[0], reply.decomposition.encoder_components
    present = {
        "alignment": reply.hypothesis.HasField("alignment"),
        "scores": reply.HasField("attention_scores") or reply.HasField("attention_weights"),
        "terms": term.HasField("contribution"),
        "shares": term.HasField("share") or bool(term.row_shares) or bool(reply.decomposition.subset_distances),
        "components": encoder.HasField("temporal_curve") or bool(encoder.temporal_norms or encoder.nearest_tokens),
        "states": encoder.HasField("states") or encoder.HasField("temporal") or encoder.HasField("input_driven"),
    }
    return {name for name, is_there in present.items() if is_there}


@pytest.mark.parametrize(
    ("view", "filled"),
    [
        (pb.EXPLANATION_VIEW_ALIGNMENT, "alignment"),
        (pb.EXPLANATION_VIEW_SCORES, "scores"),
        (pb.EXPLANATION_VIEW_TERMS, "terms"),
        (pb.EXPLANATION_VIEW_SHARES, "shares"),
        (pb.EXPLANATION_VIEW_COMPONENTS, "components"),
        (pb.EXPLANATION_VIEW_STATES, "states"),
    ],
)
async def test_a_view_brings_its_part_and_no_other(client: Client, view: pb.ExplanationView, filled: str) -> None:
    reply = await client.explain(pb.ExplainRequest(text=SENTENCE, views=[view]))
    assert parts(reply) == {filled}
    assert reply.source.pieces and reply.hypothesis.target.pieces


async def test_every_view_but_the_states_comes_when_none_is_named(client: Client) -> None:
    reply = await client.explain(pb.ExplainRequest(text=SENTENCE))
    assert parts(reply) == {"alignment", "scores", "terms", "shares", "components"}
    narrow = await client.explain(pb.ExplainRequest(text=SENTENCE, views=[pb.EXPLANATION_VIEW_SHARES]))
    assert not narrow.decomposition.HasField("encoder_components")


async def test_components_are_told_for_every_state_of_either_side(client: Client, tiny_bundle: Path) -> None:
    reply = await client.explain(pb.ExplainRequest(text=SENTENCE, views=EVERY_VIEW))
    pieces = [piece.piece for piece in reply.source.pieces]
    assert [near.piece for near in reply.decomposition.encoder_components.nearest_tokens] == [*pieces, "</s>"]
    read = [piece.piece for piece in reply.hypothesis.target.pieces]
    rows = len(reply.hypothesis.token_log_probabilities)
    decoder = reply.decomposition.decoder_components
    assert [near.piece for near in decoder.nearest_tokens] == ["<s>", *read][:rows], (
        "what was read, not what was emitted"
    )
    for side in (reply.decomposition.encoder_components, decoder):
        temporal, input_driven = array(side.temporal), array(side.input_driven)
        delta = array(side.states) - temporal - input_driven
        for component, norms in (
            (temporal, side.temporal_norms),
            (input_driven, side.input_driven_norms),
            (delta, side.delta_norms),
        ):
            assert list(norms) == pytest.approx(np.sqrt((component**2).sum(axis=1)), abs=1e-5)
        assert array(side.temporal_curve).shape == (len(side.nearest_tokens), 3)
        assert all(len(near.neighbors) in (0, NEIGHBORS) for near in side.nearest_tokens)
    assert any(near.neighbors for near in decoder.nearest_tokens)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def split(side: pb.SideComponents) -> dict[int, np.ndarray]:
    states, temporal, input_driven = (
        array(matrix).astype(np.float64) for matrix in (side.states, side.temporal, side.input_driven)
    )
    return {
        pb.COMPONENT_TEMPORAL: temporal,
        pb.COMPONENT_INPUT_DRIVEN: input_driven,
        pb.COMPONENT_DELTA: states - temporal - input_driven,
    }


@pytest.mark.parametrize("folder", ["tiny", "embedded"])
async def test_everything_can_be_computed_again_from_the_states(tiny_bundle: Path, folder: str) -> None:
    """The independent twin: docs/decomposition.md read once more, on what travelled."""
    bundle = {"tiny": tiny_bundle, "embedded": EMBEDDED_BUNDLE}[folder]
    async with served(bundle) as running, Client(running.address) as client:
        reply = await client.explain(pb.ExplainRequest(text=SENTENCE, views=EVERY_VIEW))
    decomposition = reply.decomposition
    keys, queries = split(decomposition.encoder_components), split(decomposition.decoder_components)
    terms = {(encoder, decoder): queries[decoder] @ keys[encoder].T for encoder in keys for decoder in queries}
    scores = array(reply.attention_scores).astype(np.float64)
    size = np.abs(scores).max()
    assert sum(terms.values()) == pytest.approx(scores, abs=1e-5 * size)
    centred = {key: term - term.mean(axis=1, keepdims=True) for key, term in terms.items()}
    total = sum(centred.values())
    for term in decomposition.terms:
        key = term.encoder, term.decoder
        assert array(term.contribution) == pytest.approx(terms[key], abs=1e-5 * size)
        covariance = (centred[key] * total).sum(axis=1)
        assert list(term.row_shares) == pytest.approx(covariance / (total**2).sum(axis=1), abs=1e-5)
        assert term.share == pytest.approx(covariance.sum() / (total**2).sum(), abs=1e-5)
    numbers = {name: pb.Component.Value(f"COMPONENT_{name.upper()}") for name in COMPONENTS}
    kept: dict[str, list[Any]] = {"temporal_temporal": [(pb.COMPONENT_TEMPORAL, pb.COMPONENT_TEMPORAL)]}
    for name, number in numbers.items():
        kept[f"without_{name}"] = [key for key in terms if number not in key]
        for other, other_number in numbers.items():
            kept[f"without_{name}_{other}"] = [key for key in terms if key != (number, other_number)]
    weights = softmax(sum(terms.values()))
    expected = {
        name: np.abs(weights - softmax(sum(terms[key] for key in keys_))).sum(axis=1).mean() / 2
        for name, keys_ in kept.items()
    }
    distances = {distance.subset: distance.total_variation for distance in decomposition.subset_distances}
    assert distances == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("longest", [False, True])
async def test_sixty_tokens_by_sixty_stay_under_a_quarter_of_a_megabyte(longest: bool) -> None:
    tokenizer = Tokenizer(EMBEDDED_BUNDLE / "tokenizer.model")
    spelled = (tokenizer.piece(token_id) for token_id in range(tokenizer.vocabulary_size))
    words = [piece[1:] for piece in spelled if piece.startswith("\u2581") and piece[1:].isalpha() and len(piece) > 6]
    words = [word for word in words if len(tokenizer.encode_ids(word)) == 1]
    if longest:
        words = [max(words, key=len)] * 118
    text, target = " ".join(words[:59]), " ".join(words[59:118])
    async with served(EMBEDDED_BUNDLE) as running, Client(running.address) as client:
        reply = await client.explain(pb.ExplainRequest(text=text, target=target))
    assert (reply.attention_scores.rows, reply.attention_scores.columns) == (60, 60)
    assert parts(reply) == {"alignment", "scores", "terms", "shares", "components"}
    assert reply.ByteSize() < 250_000


async def test_only_what_is_short_and_known_is_written_in_the_loop(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_loop: list[bool] = []

    def write(*asked: Any) -> pb.ExplainResponse:
        in_the_loop.append(threading.current_thread() is threading.main_thread())
        return write_explanation(*asked)

    monkeypatch.setattr("service.calls.write_explanation", write)
    whole, shares = (pb.ExplainRequest(text=SENTENCE, views=views) for views in ([], [pb.EXPLANATION_VIEW_SHARES]))
    async with served(tiny_bundle) as service, Client(service.address) as client:
        for request in (shares, whole, whole):
            await client.explain(request)
        monkeypatch.setattr("service.explainer._SMALL", 1)
        await client.explain(whole)
    assert in_the_loop == [True, False, True, False]


async def test_any_hypothesis_of_the_n_best_can_be_explained(client: Client) -> None:
    options = pb.DecodingOptions(num_hypotheses=3)
    request = pb.TranslateRequest(texts=[SENTENCE], options=options, alignment=pb.ALIGNMENT_DETAIL_PIECES)
    translated = (await client.translate(request)).results[0].translation.hypotheses
    for index, hypothesis in enumerate(translated):
        explained = await client.explain(pb.ExplainRequest(text=SENTENCE, options=options, hypothesis_index=index))
        assert explained.hypothesis == hypothesis
        assert not explained.forced


async def test_lists_hold_the_same_numbers_as_packed_bytes(client: Client) -> None:
    packed = await client.explain(pb.ExplainRequest(text=SENTENCE))
    listed = await client.explain(pb.ExplainRequest(text=SENTENCE, matrix_encoding=pb.MATRIX_ENCODING_FLOAT_LIST))
    assert not listed.attention_scores.packed_float32
    assert np.array_equal(array(packed.attention_scores), array(listed.attention_scores))


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(CallFailed) as caught:
        await call
    assert len(str(caught.value).split()) > 3
    return caught.value.code, caught.value.reason, caught.value.field


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (pb.ExplainRequest(text=""), "SOURCE_EMPTY", "text"),
        (pb.ExplainRequest(text=SENTENCE, target=""), "TARGET_EMPTY", "target"),
        (pb.ExplainRequest(text=SENTENCE, target="mot " * 500), "TARGET_TOO_LONG", "target"),
        (pb.ExplainRequest(text=SENTENCE, views=["EXPLANATION_VIEW_UNSPECIFIED"]), "UNKNOWN_ENUM_VALUE", "views"),
        (pb.ExplainRequest(text=SENTENCE, hypothesis_index=1), "OPTION_OUT_OF_RANGE", "hypothesis_index"),
        (pb.ExplainRequest(text=SENTENCE, hypothesis_index=-1), "OPTION_OUT_OF_RANGE", "hypothesis_index"),
        (
            pb.ExplainRequest(text=SENTENCE, target="Oui.", hypothesis_index=1),
            "OPTION_OUT_OF_RANGE",
            "hypothesis_index",
        ),
        (
            pb.ExplainRequest(text=SENTENCE, target="Oui.", options=pb.DecodingOptions(beam_size=2)),
            "OPTION_OUT_OF_RANGE",
            "options.beam_size",
        ),
        (
            pb.ExplainRequest(text=SENTENCE, alignment_options=pb.AlignmentOptions(threshold=0.1)),
            "OPTION_OUT_OF_RANGE",
            "alignment_options.threshold",
        ),
        (
            pb.ExplainRequest(text=SENTENCE, hypothesis_index=0, options=pb.DecodingOptions(num_hypotheses=0)),
            "OPTION_OUT_OF_RANGE",
            "options.num_hypotheses",
        ),
    ],
)
async def test_what_cannot_be_explained_is_refused(client: Client, request_: Any, reason: str, field: str) -> None:
    assert await refusal(client.explain(request_)) == (grpc.StatusCode.INVALID_ARGUMENT, reason, field)


@pytest.mark.parametrize("kind", [pb.ContrastRequest, pb.ListAlternativesRequest, pb.WhatIfRequest])
async def test_every_explaining_call_is_for_a_loaded_model_and_one_translation(client: Client, kind: Any) -> None:
    call = {
        pb.ContrastRequest: client.contrast,
        pb.ListAlternativesRequest: client.list_alternatives,
        pb.WhatIfRequest: client.what_if,
    }[kind]
    assert (await refusal(call(kind(text=SENTENCE, model="none"))))[1] == "MODEL_NOT_FOUND"
    assert (await refusal(call(kind(text=SENTENCE, source_language_code="fr"))))[1] == "LANGUAGE_PAIR_NOT_FOUND"
    two = kind(text=SENTENCE, options=pb.DecodingOptions(num_hypotheses=2))
    assert (await refusal(call(two)))[1:] == ("OPTION_OUT_OF_RANGE", "options.num_hypotheses")


@pytest.mark.parametrize("kind", [pb.ContrastRequest, pb.ListAlternativesRequest])
async def test_a_given_target_is_begun_by_no_prefix(client: Client, kind: Any) -> None:
    calls: dict[Any, Any] = {pb.ContrastRequest: client.contrast, pb.ListAlternativesRequest: client.list_alternatives}
    call = calls[kind]
    request = kind(text=SENTENCE, target="La maison.", options=pb.DecodingOptions(forced_prefix="Le"))
    assert (await refusal(call(request)))[1:] == ("OPTION_OUT_OF_RANGE", "options.forced_prefix")


async def test_alignments_can_be_drawn_by_threshold_and_not_in_both_directions_without_a_reverse_model(
    client: Client,
) -> None:
    threshold = pb.AlignmentOptions(method=pb.ALIGNMENT_METHOD_THRESHOLD, threshold=1e-6)
    reply = await client.explain(pb.ExplainRequest(text=SENTENCE, alignment_options=threshold))
    alignment = reply.hypothesis.alignment
    words = len(reply.hypothesis.target.words), len(reply.source.words)
    assert alignment.method == pb.ALIGNMENT_METHOD_THRESHOLD
    assert len(alignment.links) == words[0] * words[1]
    assert not alignment.unaligned_source_words and not alignment.unaligned_target_words
    both = pb.AlignmentOptions(method=pb.ALIGNMENT_METHOD_UNION)
    code, reason, _ = await refusal(client.explain(pb.ExplainRequest(text=SENTENCE, alignment_options=both)))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REVERSE_MODEL_MISSING")


async def test_words_without_a_link_are_told(client: Client) -> None:
    alignment = (await client.explain(pb.ExplainRequest(text=SENTENCE))).hypothesis.alignment
    linked = {link.source_index for link in alignment.links}
    assert alignment.method == pb.ALIGNMENT_METHOD_ARGMAX
    assert set(alignment.unaligned_source_words) == set(range(alignment.word_weights.columns - 1)) - linked


async def test_log_probabilities_of_words_are_those_of_their_pieces(client: Client) -> None:
    hypothesis = (await client.explain(pb.ExplainRequest(text=SENTENCE))).hypothesis
    by_piece = hypothesis.token_log_probabilities
    assert list(hypothesis.word_log_probabilities) == pytest.approx(
        [sum(by_piece[index] for index in word.piece_indices) for word in hypothesis.target.words], abs=1e-5
    )


async def test_a_what_if_that_changes_nothing_changes_nothing(client: Client) -> None:
    every_term = [
        pb.TermKey(encoder=encoder, decoder=decoder)
        for encoder in pb.Component.values()[1:]
        for decoder in pb.Component.values()[1:]
    ]
    request = pb.TranslateRequest(texts=[SENTENCE], alignment=pb.ALIGNMENT_DETAIL_PIECES)
    translated = (await client.translate(request)).results[0].translation.hypotheses[0]
    for intervention in (pb.Intervention(), pb.Intervention(kept_terms=every_term)):
        reply = await client.what_if(pb.WhatIfRequest(text=SENTENCE, intervention=intervention))
        assert reply.baseline == reply.changed == translated
        assert not reply.HasField("changed_source")
        assert not reply.baseline_words_changed and not reply.changed_words
        assert reply.log_probability_change == reply.attention_distance == 0
        assert reply.metadata.total_seconds > 0 and reply.effective_options.beam_size == 4


async def test_a_masked_word_gets_no_attention(client: Client) -> None:
    masked = pb.Intervention(masked_source_words=[1])
    reply = await client.what_if(pb.WhatIfRequest(text=SENTENCE, intervention=masked))
    assert not array(reply.changed.alignment.word_weights)[:, 1].any()
    assert array(reply.baseline.alignment.word_weights)[:, 1].any()
    assert len(reply.row_attention_distances) == len(reply.baseline.token_log_probabilities)
    assert 0 < reply.attention_distance <= 1


async def test_a_replaced_word_stands_in_the_changed_source(client: Client) -> None:
    replaced = pb.Intervention(replaced_source_words=[pb.WordReplacement(source_word=1, text="garden")])
    reply = await client.what_if(pb.WhatIfRequest(text=SENTENCE, intervention=replaced))
    assert reply.source.text == SENTENCE
    assert reply.changed_source.text == SENTENCE.replace("house", "garden")


@pytest.mark.parametrize(
    ("intervention", "reason", "field"),
    [
        (pb.Intervention(masked_source_words=[99]), "OPTION_OUT_OF_RANGE", "intervention.masked_source_words[0]"),
        (pb.Intervention(kept_terms=[pb.TermKey()]), "UNKNOWN_ENUM_VALUE", "intervention.kept_terms[0].encoder"),
    ],
)
async def test_what_cannot_be_changed_is_refused_by_name(
    client: Client, intervention: Any, reason: str, field: str
) -> None:
    call = client.what_if(pb.WhatIfRequest(text=SENTENCE, intervention=intervention))
    assert await refusal(call) == (grpc.StatusCode.INVALID_ARGUMENT, reason, field)


async def test_a_contrast_is_between_a_word_and_another(client: Client) -> None:
    explained = await client.explain(pb.ExplainRequest(text=SENTENCE))
    request = pb.ContrastRequest(text=SENTENCE, target_word=1, alternative="jardin")
    reply = await client.contrast(request)
    assert reply.chosen.hypothesis.text == explained.hypothesis.text
    assert list(reply.chosen.target_words) == [1]
    assert reply.log_probability_difference == pytest.approx(
        reply.chosen.log_probability - reply.alternative.log_probability
    )
    for side in (reply.chosen, reply.alternative):
        assert sum(side.shares) == pytest.approx(1.0)
        assert sum(side.source_weights) == pytest.approx(1.0, abs=1e-5)
        assert side.hypothesis.HasField("alignment")
    assert sum(reply.share_differences) == pytest.approx(0.0, abs=1e-9)
    assert len(reply.source_weight_differences) == len(reply.source.words) + 1
    word = explained.hypothesis.target.words[1].text
    same = client.contrast(pb.ContrastRequest(text=SENTENCE, target_word=1, alternative=word))
    assert await refusal(same) == (grpc.StatusCode.INVALID_ARGUMENT, "ALTERNATIVE_INVALID", "alternative")


async def test_alternatives_are_sorted_and_each_leads_on(client: Client) -> None:
    target = "La maison est petite, mais le jardin est grand."
    reply = await client.list_alternatives(
        pb.ListAlternativesRequest(text=SENTENCE, target=target, target_word=1, limit=3)
    )
    assert reply.target.text == target
    probabilities = [alternative.log_probability for alternative in reply.alternatives]
    assert 0 < len(probabilities) <= 3 and probabilities == sorted(probabilities, reverse=True)
    for alternative in reply.alternatives:
        assert alternative.hypothesis.target.words[0].text.startswith("La")
    over = client.list_alternatives(pb.ListAlternativesRequest(text=SENTENCE, limit=17))
    assert await refusal(over) == (grpc.StatusCode.INVALID_ARGUMENT, "OPTION_OUT_OF_RANGE", "limit")
