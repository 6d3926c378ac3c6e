"""Cheap signs that a translation went wrong, metered for every sentence; none of them changes an answer.

Axes: ``target`` emitted tokens, ``source`` source tokens, both with end of sentence.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float

from bundle.decomposition import COMPONENTS, Decomposition
from bundle.search import Hypothesis
from service.errors import ServiceError
from service.metrics.quality import QualityMetrics
from service.metrics.registration import SeriesOf

_UNCOVERED = 0.1  # attention that a source token got from all target tokens together


@contextmanager
def counted(metrics: QualityMetrics, model: str, view: str) -> Iterator[None]:
    """Count what is done inside as an explanation of kind ``view``: ``ok``, or ``refused`` with a ``ServiceError``."""
    try:
        yield
    except ServiceError:
        metrics.explanations.labels(model, view, "refused").inc()
        raise
    metrics.explanations.labels(model, view, "ok").inc()


def meter_translation(
    metrics: QualityMetrics,
    series: SeriesOf,
    source_ids: Sequence[int],
    hypothesis: Hypothesis,
    attention_weights: Float[np.ndarray, "target source"] | None,
) -> None:
    """Meter the best hypothesis of ``source_ids`` (with end of sentence); ``attention_weights`` where there are any."""
    length = len(hypothesis.token_ids)
    series(metrics.token_log_probability).observe(hypothesis.log_probability / length)
    series(metrics.confidence).observe(math.exp(hypothesis.log_probability / length))
    series(metrics.length_ratio).observe(length / len(source_ids))
    series(metrics.copied_source).observe(copied_ratio(source_ids, hypothesis.token_ids))
    series(metrics.repeated_pairs).observe(repeated_ratio(hypothesis.token_ids))
    if attention_weights is not None:
        series(metrics.alignment_entropy).observe(mean_entropy(attention_weights))
        series(metrics.alignment_peak).observe(float(attention_weights.max(axis=1).mean()))
        series(metrics.monotonicity).observe(monotone_ratio(attention_weights))
        series(metrics.uncovered_source).observe(uncovered_ratio(attention_weights))


def meter_decomposition(metrics: QualityMetrics, series: SeriesOf, decomposition: Decomposition) -> None:
    """Meter the shares, the reconstruction error and the unseen tokens of an explained sentence."""
    for encoder, encoder_name in enumerate(COMPONENTS):
        for decoder, decoder_name in enumerate(COMPONENTS):
            share = float(decomposition.shares[encoder, decoder])
            series(metrics.share, f"{encoder_name}_{decoder_name}").observe(share)
    without_delta = decomposition.shares[:2, :2].sum()
    series(metrics.delta_share).observe(1.0 - float(without_delta))
    series(metrics.reconstruction_error).observe(decomposition.reconstruction_error)
    series(metrics.unseen_ratio).observe(float(decomposition.encoder.unseen.mean()))
    series(metrics.unseen_tokens, "source").inc(int(decomposition.encoder.unseen.sum()))
    series(metrics.unseen_tokens, "target").inc(int(decomposition.decoder.unseen.sum()))


def repeated_ratio(token_ids: Sequence[int]) -> float:
    """Return the share of the pairs of neighboring tokens that stood there before.

    >>> repeated_ratio([1, 2, 1, 2, 1]), repeated_ratio([1, 2, 3])
    (0.5, 0.0)
    """
    pairs = list(itertools.pairwise(token_ids))
    return 1.0 - len(set(pairs)) / len(pairs) if pairs else 0.0


def copied_ratio(source_ids: Sequence[int], target_ids: Sequence[int]) -> float:
    """Return the share of the target's tokens, without end of sentence, that stand in the source.

    Both sides have one vocabulary, so names, numbers and punctuation count too: some of it is as it should be.

    >>> copied_ratio([7, 8, 9, 3], [7, 5, 8, 6, 3])
    0.5
    """
    source, words = set(source_ids[:-1]), target_ids[:-1]
    return sum(token in source for token in words) / len(words) if words else 0.0


def mean_entropy(weights: Float[np.ndarray, "target source"]) -> float:
    """Return the mean entropy of the rows in nats: 0 when each looks at one token, log(source) when at all alike."""
    return float(-(weights * np.log(np.maximum(weights, np.finfo(np.float32).tiny))).sum(axis=1).mean())


def monotone_ratio(weights: Float[np.ndarray, "target source"]) -> float:
    """Return the share of steps whose most attended source token does not stand before that of the step before."""
    moves = np.diff(weights.argmax(axis=1))
    return float((moves >= 0).mean()) if moves.size else 1.0


def uncovered_ratio(weights: Float[np.ndarray, "target source"]) -> float:
    """Return the share of source tokens, without end of sentence, that got next to no attention."""
    words = weights[:, :-1].sum(axis=0)
    return float((words < _UNCOVERED).mean()) if words.size else 0.0
