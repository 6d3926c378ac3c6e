"""Cheap signs that a translation went wrong, metered for every sentence; none of them changes an answer.

Axes: ``target`` emitted tokens, ``source`` source tokens, both with end of sentence.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float

from bundle.decomposition import COMPONENTS, Decomposition
from bundle.search import Hypothesis
from service.errors import ServiceError
from service.metrics import QualityMetrics

_UNCOVERED = 0.1  # attention that a source token got from all target tokens together
_LONGEST_LOOP = 8  # tokens


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
    model: str,
    source_tokens: int,
    hypothesis: Hypothesis,
    attention_weights: Float[np.ndarray, "target source"] | None,
) -> None:
    """Meter the best hypothesis of a sentence of ``source_tokens``; ``attention_weights`` where they were asked for."""
    length = len(hypothesis.token_ids)
    metrics.token_log_probability.labels(model).observe(hypothesis.log_probability / length)
    metrics.confidence.labels(model).observe(math.exp(hypothesis.log_probability / length))
    metrics.length_ratio.labels(model).observe(length / source_tokens)
    if is_repetitive(hypothesis.token_ids):
        metrics.repetition_suspected.labels(model).inc()
    if attention_weights is not None:
        metrics.alignment_entropy.labels(model).observe(mean_entropy(attention_weights))
        metrics.uncovered_source.labels(model).observe(uncovered_ratio(attention_weights))


def meter_decomposition(metrics: QualityMetrics, model: str, decomposition: Decomposition) -> None:
    """Meter the shares, the reconstruction error and the unseen tokens of an explained sentence."""
    for encoder, encoder_name in enumerate(COMPONENTS):
        for decoder, decoder_name in enumerate(COMPONENTS):
            share = float(decomposition.shares[encoder, decoder])
            metrics.share.labels(model, f"{encoder_name}_{decoder_name}").observe(share)
    without_delta = decomposition.shares[:2, :2].sum()
    metrics.delta_share.labels(model).observe(1.0 - float(without_delta))
    metrics.reconstruction_error.labels(model).observe(decomposition.reconstruction_error)
    metrics.unseen_tokens.labels(model, "source").inc(int(decomposition.encoder.unseen.sum()))
    metrics.unseen_tokens.labels(model, "target").inc(int(decomposition.decoder.unseen.sum()))


def is_repetitive(token_ids: Sequence[int]) -> bool:
    """Return whether a run of up to eight tokens stands three times in a row, or one token four times.

    >>> is_repetitive([5, 6, 5, 6, 5, 6]), is_repetitive([5, 5, 5, 6, 5, 6])
    (True, False)
    """
    for period in range(1, _LONGEST_LOOP + 1):
        needed, run = max(3, 2 * period), 0
        for earlier, later in zip(token_ids, token_ids[period:], strict=False):
            run = run + 1 if earlier == later else 0
            if run >= needed:
                return True
    return False


def mean_entropy(weights: Float[np.ndarray, "target source"]) -> float:
    """Return the mean entropy of the rows in nats: 0 when each looks at one token, log(source) when at all alike."""
    return float(-(weights * np.log(np.maximum(weights, np.finfo(np.float32).tiny))).sum(axis=1).mean())


def uncovered_ratio(weights: Float[np.ndarray, "target source"]) -> float:
    """Return the share of source tokens, without end of sentence, that got next to no attention."""
    words = weights[:, :-1].sum(axis=0)
    return float((words < _UNCOVERED).mean()) if words.size else 0.0
