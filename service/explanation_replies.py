"""Our types to protobuf: explanations, contrasts, alternatives and what-ifs; written as in ``service.replies``.

Rows of every matrix are target, columns are source, as in the proto.
"""

from collections.abc import Collection

import numpy as np
from jaxtyping import Float

from bundle.decomposition import COMPONENTS, Components, Decomposition
from service.component_reader import SideView
from service.contrast import Alternatives, Contrast, ContrastSide
from service.explainer import Explanation, ExplanationWarning
from service.pb import interlinear_pb2 as pb
from service.replies import (
    fill_aligned,
    fill_matrix,
    fill_tokenized,
    fill_worded,
    write_suspicions,
    write_tables,
    write_timings,
)
from service.what_if import WhatIfAnswer

_SIDES = {"": pb.SIDE_UNSPECIFIED, "source": pb.SIDE_SOURCE, "target": pb.SIDE_TARGET}


def write_explanation(
    explanation: Explanation, views: Collection[int], encoding: int, sides: tuple[SideView, SideView] | None
) -> pb.ExplainResponse:
    """Return an explanation, cut down to ``views`` (numbers of ExplanationView).

    Args:
        explanation: What to write.
        views: What is asked for.
        encoding: How to write matrices (a MatrixEncoding).
        sides: What there is to see of the encoder's components and of the decoder's; None if that was not asked for.
    """
    translation, hypothesis = explanation.translation, explanation.translation.hypotheses[0]
    message = pb.ExplainResponse(
        forced=explanation.forced,
        warnings=[_warning(warning) for warning in explanation.warnings],
        timings=write_timings(translation.timings),
        batch_size=translation.batch_size,
        suspicions=write_suspicions(translation.suspicions),
    )
    fill_tokenized(message.source, translation.source)
    if pb.EXPLANATION_VIEW_ALIGNMENT in views:
        fill_aligned(message.hypothesis, hypothesis, True, encoding)
    else:
        fill_worded(message.hypothesis, hypothesis)
    decomposition = message.decomposition
    _fill_decomposition(decomposition, explanation.decomposition, views, encoding)
    decomposition.tables.CopyFrom(write_tables(explanation.tables))
    if pb.EXPLANATION_VIEW_SCORES in views:
        fill_matrix(message.attention_scores, explanation.attention_scores, encoding)
        fill_matrix(message.attention_weights, explanation.attention_weights, encoding)
    if sides is not None:
        _fill_view(decomposition.encoder_components, sides[0], encoding)
        _fill_view(decomposition.decoder_components, sides[1], encoding)
    if pb.EXPLANATION_VIEW_STATES in views:
        _fill_states(decomposition.encoder_components, explanation.decomposition.encoder, encoding)
        _fill_states(decomposition.decoder_components, explanation.decomposition.decoder, encoding)
    return message


def write_contrast(contrast: Contrast, encoding: int) -> pb.ContrastResponse:
    """Return a comparison of two words."""
    message = pb.ContrastResponse(
        log_probability_difference=contrast.log_probability_difference,
        source_weight_differences=contrast.source_weight_differences,
        share_differences=_in_order(contrast.share_differences),
        warnings=[_warning(warning) for warning in contrast.warnings],
    )
    fill_tokenized(message.source, contrast.source)
    _fill_contrast_side(message.chosen, contrast.chosen, encoding)
    _fill_contrast_side(message.alternative, contrast.alternative, encoding)
    return message


def write_alternatives(alternatives: Alternatives, encoding: int) -> pb.ListAlternativesResponse:
    """Return what else might stand at a place."""
    message = pb.ListAlternativesResponse()
    fill_tokenized(message.source, alternatives.source)
    fill_tokenized(message.target, alternatives.target)
    for alternative in alternatives.alternatives:
        added = message.alternatives.add(text=alternative.text, log_probability=alternative.log_probability)
        fill_aligned(added.hypothesis, alternative.hypothesis, False, encoding)
    return message


def write_what_if(answer: WhatIfAnswer, encoding: int) -> pb.WhatIfResponse:
    """Return what became of a translation."""
    message = pb.WhatIfResponse(
        baseline_words_changed=answer.baseline_words_changed,
        changed_words=answer.changed_words,
        log_probability_change=answer.log_probability_change,
        token_log_probability_changes=answer.token_log_probability_changes,
        attention_distance=answer.attention_distance,
        row_attention_distances=answer.row_attention_distances,
        warnings=[_warning(warning) for warning in answer.warnings],
    )
    fill_tokenized(message.source, answer.source)
    if answer.changed_source is not None:
        fill_tokenized(message.changed_source, answer.changed_source)
    fill_aligned(message.baseline, answer.baseline, True, encoding)
    fill_aligned(message.changed, answer.changed, True, encoding)
    return message


def _fill_decomposition(
    message: pb.Decomposition, decomposition: Decomposition, views: Collection[int], encoding: int
) -> None:
    message.reconstruction_error = decomposition.reconstruction_error
    shares, row_shares = decomposition.shares.tolist(), decomposition.row_shares.tolist()
    for encoder, encoder_name in enumerate(COMPONENTS):
        for decoder, decoder_name in enumerate(COMPONENTS):
            term = message.terms.add(
                encoder=f"COMPONENT_{encoder_name.upper()}", decoder=f"COMPONENT_{decoder_name.upper()}"
            )
            if pb.EXPLANATION_VIEW_TERMS in views:
                fill_matrix(term.contribution, decomposition.terms[encoder, decoder], encoding)
            if pb.EXPLANATION_VIEW_SHARES in views:
                term.share = shares[encoder][decoder]
                term.row_shares.extend(row_shares[encoder][decoder])
    distances = decomposition.subset_distances if pb.EXPLANATION_VIEW_SHARES in views else {}
    for subset, distance in distances.items():
        message.subset_distances.add(subset=subset, total_variation=distance)


def _fill_view(message: pb.SideComponents, view: SideView, encoding: int) -> None:
    fill_matrix(message.temporal_curve, view.temporal_curve, encoding)
    for field, lengths in zip(
        (message.temporal_norms, message.input_driven_norms, message.delta_norms), view.norms.tolist(), strict=True
    ):
        field.extend(lengths)
    for (token_id, piece), neighbors in zip(view.tokens, view.neighbors, strict=True):
        add_neighbor = message.nearest_tokens.add(token_id=token_id, piece=piece).neighbors.add
        for neighbor in neighbors:
            add_neighbor(token_id=neighbor.token_id, piece=neighbor.piece, cosine=neighbor.cosine)


def _fill_states(message: pb.SideComponents, components: Components, encoding: int) -> None:
    states = components.temporal + components.input_driven + components.delta
    fill_matrix(message.states, states, encoding)
    fill_matrix(message.temporal, components.temporal, encoding)
    fill_matrix(message.input_driven, components.input_driven, encoding)


def _fill_contrast_side(message: pb.ContrastSide, side: ContrastSide, encoding: int) -> None:
    fill_aligned(message.hypothesis, side.hypothesis, False, encoding)
    message.target_words.extend(side.target_words)
    message.log_probability = side.log_probability
    message.source_weights.extend(side.source_weights)
    message.shares.extend(_in_order(side.shares))


def _in_order(shares: Float[np.ndarray, "3 3"] | None) -> list[float]:
    """Return the values of the nine terms in the order of Decomposition.terms; none where there are no tables."""
    return [] if shares is None else [float(share) for share in shares.ravel()]


def _warning(warning: ExplanationWarning) -> pb.Warning:
    return pb.Warning(
        kind=f"WARNING_KIND_{warning.kind.name}",
        message=warning.message,
        side=_SIDES[warning.side],
        positions=warning.positions,
    )
