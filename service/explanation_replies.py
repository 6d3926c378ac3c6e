"""Our types to protobuf: explanations, contrasts, alternatives and what-ifs; pure functions.

Rows of every matrix are target, columns are source, as in the proto.
"""

from collections.abc import Collection

import numpy as np
from jaxtyping import Float

from bundle.decomposition import COMPONENTS, Components, Decomposition
from service.component_reader import SideView
from service.contrast import Alternative, Alternatives, Contrast, ContrastSide
from service.explainer import Explanation, ExplanationWarning
from service.pb import interlinear_pb2 as pb
from service.replies import (
    write_aligned,
    write_matrix,
    write_suspicions,
    write_tables,
    write_timings,
    write_tokenized,
    write_worded,
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
    translation, decomposition = explanation.translation, explanation.decomposition
    hypothesis = translation.hypotheses[0]
    aligned = pb.EXPLANATION_VIEW_ALIGNMENT in views
    message = pb.ExplainResponse(
        source=write_tokenized(translation.source),
        hypothesis=write_aligned(hypothesis, True, encoding) if aligned else write_worded(hypothesis),
        forced=explanation.forced,
        decomposition=_decomposition(decomposition, views, encoding),
        warnings=[_warning(warning) for warning in explanation.warnings],
        timings=write_timings(translation.timings),
        batch_size=translation.batch_size,
        suspicions=write_suspicions(translation.suspicions),
    )
    message.decomposition.tables.CopyFrom(write_tables(explanation.tables))
    if pb.EXPLANATION_VIEW_SCORES in views:
        message.attention_scores.CopyFrom(write_matrix(explanation.attention_scores, encoding))
        message.attention_weights.CopyFrom(write_matrix(explanation.attention_weights, encoding))
    if sides is not None:
        _write_view(message.decomposition.encoder_components, sides[0], encoding)
        _write_view(message.decomposition.decoder_components, sides[1], encoding)
    if pb.EXPLANATION_VIEW_STATES in views:
        _write_states(message.decomposition.encoder_components, decomposition.encoder, encoding)
        _write_states(message.decomposition.decoder_components, decomposition.decoder, encoding)
    return message


def write_contrast(contrast: Contrast, encoding: int) -> pb.ContrastResponse:
    """Return a comparison of two words."""
    return pb.ContrastResponse(
        source=write_tokenized(contrast.source),
        chosen=_contrast_side(contrast.chosen, encoding),
        alternative=_contrast_side(contrast.alternative, encoding),
        log_probability_difference=contrast.log_probability_difference,
        source_weight_differences=contrast.source_weight_differences,
        share_differences=_in_order(contrast.share_differences),
        warnings=[_warning(warning) for warning in contrast.warnings],
    )


def write_alternatives(alternatives: Alternatives, encoding: int) -> pb.ListAlternativesResponse:
    """Return what else might stand at a place."""
    return pb.ListAlternativesResponse(
        source=write_tokenized(alternatives.source),
        target=write_tokenized(alternatives.target),
        alternatives=[_alternative(alternative, encoding) for alternative in alternatives.alternatives],
    )


def write_what_if(answer: WhatIfAnswer, encoding: int) -> pb.WhatIfResponse:
    """Return what became of a translation."""
    changed_source = answer.changed_source
    return pb.WhatIfResponse(
        source=write_tokenized(answer.source),
        changed_source=None if changed_source is None else write_tokenized(changed_source),
        baseline=write_aligned(answer.baseline, True, encoding),
        changed=write_aligned(answer.changed, True, encoding),
        baseline_words_changed=answer.baseline_words_changed,
        changed_words=answer.changed_words,
        log_probability_change=answer.log_probability_change,
        token_log_probability_changes=answer.token_log_probability_changes,
        attention_distance=answer.attention_distance,
        row_attention_distances=answer.row_attention_distances,
        warnings=[_warning(warning) for warning in answer.warnings],
    )


def _decomposition(decomposition: Decomposition, views: Collection[int], encoding: int) -> pb.Decomposition:
    terms = []
    for encoder, encoder_name in enumerate(COMPONENTS):
        for decoder, decoder_name in enumerate(COMPONENTS):
            term = pb.Term(encoder=f"COMPONENT_{encoder_name.upper()}", decoder=f"COMPONENT_{decoder_name.upper()}")
            if pb.EXPLANATION_VIEW_TERMS in views:
                term.contribution.CopyFrom(write_matrix(decomposition.terms[encoder, decoder], encoding))
            if pb.EXPLANATION_VIEW_SHARES in views:
                term.share = float(decomposition.shares[encoder, decoder])
                term.row_shares.extend(decomposition.row_shares[encoder, decoder].tolist())
            terms.append(term)
    distances = decomposition.subset_distances if pb.EXPLANATION_VIEW_SHARES in views else {}
    return pb.Decomposition(
        terms=terms,
        reconstruction_error=decomposition.reconstruction_error,
        subset_distances=[
            pb.SubsetDistance(subset=subset, total_variation=distance) for subset, distance in distances.items()
        ],
    )


def _write_view(message: pb.SideComponents, view: SideView, encoding: int) -> None:
    message.temporal_curve.CopyFrom(write_matrix(view.temporal_curve, encoding))
    for field, lengths in zip(
        (message.temporal_norms, message.input_driven_norms, message.delta_norms), view.norms, strict=True
    ):
        field.extend(lengths.tolist())
    for (token_id, piece), neighbors in zip(view.tokens, view.neighbors, strict=True):
        near = [
            pb.NearToken(token_id=neighbor.token_id, piece=neighbor.piece, cosine=neighbor.cosine)
            for neighbor in neighbors
        ]
        message.nearest_tokens.add(token_id=token_id, piece=piece, neighbors=near)


def _write_states(message: pb.SideComponents, components: Components, encoding: int) -> None:
    states = components.temporal + components.input_driven + components.delta
    message.states.CopyFrom(write_matrix(states, encoding))
    message.temporal.CopyFrom(write_matrix(components.temporal, encoding))
    message.input_driven.CopyFrom(write_matrix(components.input_driven, encoding))


def _contrast_side(side: ContrastSide, encoding: int) -> pb.ContrastSide:
    return pb.ContrastSide(
        hypothesis=write_aligned(side.hypothesis, False, encoding),
        target_words=side.target_words,
        log_probability=side.log_probability,
        source_weights=side.source_weights,
        shares=_in_order(side.shares),
    )


def _alternative(alternative: Alternative, encoding: int) -> pb.Alternative:
    return pb.Alternative(
        text=alternative.text,
        log_probability=alternative.log_probability,
        hypothesis=write_aligned(alternative.hypothesis, False, encoding),
    )


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
