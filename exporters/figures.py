"""What a bundle says about itself: quality on test sets, and reference histograms that drift is measured against."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bundle.decomposition import AttentionRecord
from bundle.gold import GoldPair
from bundle.search import SearchResult
from bundle.tokenizer import Tokenizer
from exporters.alignments import measure
from exporters.forcing import Explained
from exporters.runtime import OnnxModel
from training.evaluation import Scores
from training.translation import Ids

BEAM_SIZE = 4
_UNCOVERED = 0.1

# Upper bounds of the bins; one more bin holds what lies above. The service's metrics have the same.
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_NATS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
_RATIO = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_SHARE = (-0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)
_LOG_PROBABILITY = (-10.0, -7.0, -5.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.7, -0.5, -0.3, -0.2, -0.1, -0.05, -0.01)
REFERENCE_BINS: dict[str, tuple[float, ...]] = {
    "source_length_tokens": _TOKENS,
    "target_length_tokens": _TOKENS,
    "alignment_entropy_nats": _NATS,
    "alignment_uncovered_source_ratio": _RATIO,
    "decomposition_delta_ratio": _SHARE,
    "decomposition_unseen_ratio": _RATIO,
    "repeated_pairs_ratio": _RATIO,
    "token_log_probability_nats": _LOG_PROBABILITY,
}


def quality(scores: Scores) -> dict[str, dict[str, Any]]:
    """Return the figures of one test set as the manifest keeps them."""
    return {
        "BLEU": {"value": round(scores.bleu, 2), "signature": scores.bleu_signature},
        "chrF": {"value": round(scores.chrf, 2), "signature": scores.chrf_signature},
    }


def alignment_figures(
    model: OnnxModel, tokenizer: Tokenizer, gold: Mapping[str, Sequence[GoldPair]], shift: int
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the decoder step to read attention at, and the error rate of the alignment shown on each set of ``gold``.

    The first set chooses the step, so that others can judge the choice; without any set ``shift`` stays.
    """
    measured = {name: measure(model, tokenizer, pairs) for name, pairs in gold.items()}
    shift = next((answer["shift"] for answer in measured.values()), shift)
    figures = {}
    for name, answer in measured.items():
        attention = next(row for row in answer["table"] if row["shift"] == shift)
        shown = answer["posterior"] or attention  # what a reader sees unless asked for otherwise
        evidence = "posterior" if answer["posterior"] else "attention"
        figure = {**answer, **shown, "shift": shift, "evidence": evidence, "value": shown["alignment_error_rate"]}
        figures[name] = {"AER": figure}
    return shift, figures


def reference_histograms(
    model: OnnxModel, sources: Sequence[Ids], results: Sequence[SearchResult], explained: Explained | None
) -> dict[str, Any]:
    """Return counts a sentence, by the name of the service's metric (without ``interlinear_``).

    Each is ``{"upper_bounds": [...], "counts": [...]}`` with one count more than bounds, of the values above them all.
    """
    values: dict[str, list[float]] = {name: [] for name in REFERENCE_BINS}
    for source, result in zip(sources, results, strict=True):
        best, trace = result.hypotheses[0], result.traces[0]
        values["source_length_tokens"].append(len(source))
        values["target_length_tokens"].append(len(best.token_ids))
        values["token_log_probability_nats"].append(best.log_probability / len(best.token_ids))
        values["repeated_pairs_ratio"].append(_repeated(best.token_ids))
        if trace.attention_weights is not None:
            values["alignment_entropy_nats"].append(_entropy(trace.attention_weights))
            values["alignment_uncovered_source_ratio"].append(_uncovered(trace.attention_weights))
        if explained is not None and trace.attention_scores is not None and trace.attention_queries is not None:
            keys = model.encode([source]).encoder_side["attention_keys"][0, : len(source)]
            record = AttentionRecord(trace.attention_scores, trace.attention_queries, keys, source, best.token_ids)
            decomposition = explained.decompose(record)
            values["decomposition_delta_ratio"].append(1.0 - float(decomposition.shares[:2, :2].sum()))
            values["decomposition_unseen_ratio"].append(float(decomposition.encoder.unseen.mean()))
    return {name: _histogram(found, REFERENCE_BINS[name]) for name, found in values.items() if found}


def _entropy(weights: np.ndarray) -> float:
    """Return the mean entropy of the rows, in nats."""
    safe = np.where(weights > 0, weights, 1.0).astype(np.float64)
    return float(-(weights * np.log(safe)).sum(axis=1).mean())


def _uncovered(weights: np.ndarray) -> float:
    """Return the share of source tokens, without end of sentence, that got less than a tenth of a row in all."""
    words = weights[:, :-1].sum(axis=0)
    return float((words < _UNCOVERED).mean()) if words.size else 0.0


def _repeated(token_ids: Sequence[int]) -> float:
    """Return the share of the pairs of neighboring tokens that stood there before."""
    pairs = list(itertools.pairwise(token_ids))
    return 1.0 - len(set(pairs)) / len(pairs) if pairs else 0.0


def _histogram(values: Sequence[float], upper_bounds: Sequence[float]) -> dict[str, list[float]]:
    places = np.searchsorted(upper_bounds, values, side="left")
    return {
        "upper_bounds": list(upper_bounds),
        "counts": np.bincount(places, minlength=len(upper_bounds) + 1).tolist(),
    }
