"""Explanations made by hand: real messages with chosen words and numbers, for what draws and reports them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from service.pb import interlinear_pb2 as pb

COMPONENTS = (pb.COMPONENT_TEMPORAL, pb.COMPONENT_INPUT_DRIVEN, pb.COMPONENT_DELTA)


def explanation(
    source: Sequence[str], target: Sequence[str], weights: Float[np.ndarray, "target source"] | None = None
) -> pb.ExplainResponse:
    """Return an explanation in which every word is one piece.

    Args:
        source: Its words; between two stands a space.
        target: Its words, likewise.
        weights: Attention, end of sentence included; drawn at random when left out. One row less: a cut translation.
    """
    random = np.random.default_rng(len(source) * 100 + len(target))
    if weights is None:
        weights = random.dirichlet(np.full(len(source) + 1, 0.3), len(target) + 1)
    contributions = random.normal(size=(9, *weights.shape))
    shares = random.dirichlet(np.ones(9), len(weights))
    response = pb.ExplainResponse(source=_tokenized(source))
    response.hypothesis.text = " ".join(target)
    response.hypothesis.target.CopyFrom(_tokenized(target))
    response.hypothesis.token_log_probabilities.extend([-0.5] * len(weights))
    response.hypothesis.word_log_probabilities.extend([-0.5] * len(target))
    response.hypothesis.log_probability = -0.5 * len(weights)
    alignment = response.hypothesis.alignment
    for matrix in (alignment.word_weights, alignment.posterior_word_weights, response.attention_weights):
        matrix.CopyFrom(_matrix(weights))
    response.attention_scores.CopyFrom(_matrix(contributions.sum(axis=0)))
    for index in range(9):
        encoder, decoder = COMPONENTS[index // 3], COMPONENTS[index % 3]
        term = response.decomposition.terms.add(encoder=encoder, decoder=decoder, row_shares=shares[:, index])
        term.share = float(shares[:, index].mean())
        term.contribution.CopyFrom(_matrix(contributions[index]))
    for row, column in enumerate(weights[: len(target)].argmax(axis=1)):
        if column < len(source):
            alignment.links.add(target_index=row, source_index=column, weight=weights[row, column])
    response.metadata.model, response.metadata.model_version = "made-by-hand", "1"
    return response


def _tokenized(words: Sequence[str]) -> pb.TokenizedText:
    tokenized = pb.TokenizedText(text=" ".join(words))
    start = pb.Span()
    for index, word in enumerate(words):
        end = pb.Span(
            end_byte=start.start_byte + len(word.encode()),
            end_code_point=start.start_code_point + len(word),
            end_utf16=start.start_utf16 + len(word.encode("utf-16-le")) // 2,
        )
        span = pb.Span()
        span.CopyFrom(start)
        span.MergeFrom(end)
        tokenized.words.add(text=word, span=span, piece_indices=[index])
        tokenized.pieces.add(piece=word, text=word, span=span, word_index=index)
        start = pb.Span(
            start_byte=end.end_byte + 1, start_code_point=end.end_code_point + 1, start_utf16=end.end_utf16 + 1
        )
    return tokenized


def _matrix(values: Float[np.ndarray, "target source"]) -> pb.Matrix:
    rows, columns = values.shape
    return pb.Matrix(rows=rows, columns=columns, packed_float32=values.astype("<f4").tobytes())
