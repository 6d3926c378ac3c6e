"""What a translation shows of having gone wrong: loops, parts left out, words that the source does not call for.

Pure functions: numbers that every translation has, and its attention where that was traced, in; suspicions out. What is
normal is read from the bundle's own reference histograms, so that no bundle is judged by the figures of another; a
bundle that brings none is not suspected of what they tell. The margins below were chosen on the embedded bundle, for at
most one false alarm of each reason in a hundred held-out sentences of its domain; docs/guard.md has the figures, and

    .venv/dev/bin/python -m tests.benchmarks.guard

measures them again. The two figures beside a margin are its false alarms in per cent, on Europarl's test set and on
Tatoeba's.

Axes: ``target`` emitted tokens, ``source`` source tokens, both with end of sentence.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from bundle.decoding import Json
from bundle.manifest import Manifest
from bundle.tokenizer import Word
from service.quality import mean_entropy

Reason = Literal["repetition", "uncovered_source", "diffuse_attention", "length", "low_probability", "unknown_source"]

RETRY_NGRAM_SIZE = 3  # tokens of a run that a second translation must not repeat

_LOOP = re.compile(r"(.)\1{3,}|(.{2,16}?)\2{2,}", re.DOTALL)  # a character is a token
_REPEATED = 0.1  # share of the translation's tokens; 0.8 and 0.0, all of them loops
_MORE_REPEATED = 1.5  # times as many tokens as the source itself repeats, if it does
_UNCOVERED = 0.1  # attention that a source word got from all target tokens together
_UNCOVERED_WORDS = 0.2  # share of the source's words; 0.7 and 0.7
_MORE_DIFFUSE = 2.2  # times as diffuse as in the reference; 0.4 and 0.7
_LONGER, _SHORTER = 1.4, 0.7  # times as long as the reference would have it,
_LENGTH_SLACK = 4  # and so many tokens more, or less: a short sentence may well double; 0.5 and 0.2
_LEAST_PROBABLE = 0.01  # share of the reference that is less probable than what counts as improbable; 0.7 and 0.6
_UNKNOWN = 0.05  # share of the source's tokens; 0.1 and 0.1


@dataclass(frozen=True)
class Suspicion:
    """A sign that a translation went wrong.

    Attributes:
        reason: Which.
        value: What was measured; ``SuspicionReason`` of the proto has the units.
        threshold: The value from which on, or below which, it counts.
        message: The same for people.
    """

    reason: Reason
    value: float
    threshold: float
    message: str


@dataclass(frozen=True)
class Evidence:
    """What a translation tells.

    Attributes:
        source_ids: With end of sentence.
        unknown_source_tokens: How many of them are outside the vocabulary.
        source_words: The source's words; their pieces are its tokens. Not asked for without attention.
        target_ids: Of the best hypothesis, with end of sentence where it was emitted.
        log_probability: Of all of them together, in nats.
        attention_weights: None where they were not traced; then nothing is said of them.
        cut_off: Whether it ends where it was as long as it may be, not where the model ended it.
    """

    source_ids: Sequence[int]
    unknown_source_tokens: int
    source_words: Sequence[Word]
    target_ids: Sequence[int]
    log_probability: float
    attention_weights: Float[np.ndarray, "target source"] | None
    cut_off: bool = False


@dataclass(frozen=True)
class Norms:
    """What is normal for a bundle, from its reference histograms; None where it brings none.

    Attributes:
        length_ratio: Target tokens over source tokens.
        least_log_probability: Mean log-probability of a token, in nats, that one reference sentence in a hundred is
            below.
        entropy_ratio: Mean entropy of a row of attention over that of a flat one.
    """

    length_ratio: float | None
    least_log_probability: float | None
    entropy_ratio: float | None

    @classmethod
    def of(cls, manifest: Manifest) -> "Norms":
        """Return what is normal for the bundle of ``manifest``."""
        all_histograms = manifest.reference.get("histograms", {})
        histograms = {
            name: each for name, each in all_histograms.items() if each["upper_bounds"] and any(each["counts"])
        }
        source, target, entropy = (
            _mean(histograms[name]) if name in histograms else 0.0
            for name in ("source_length_tokens", "target_length_tokens", "alignment_entropy_nats")
        )
        probability = histograms.get("token_log_probability_nats")
        long_enough = source > 1.0  # a source of one token has no entropy
        return cls(
            length_ratio=target / source if long_enough and target > 0.0 else None,
            least_log_probability=_quantile(probability, _LEAST_PROBABLE) if probability else None,
            entropy_ratio=entropy / math.log(source) if long_enough and entropy > 0.0 else None,
        )


def suspicions(evidence: Evidence, norms: Norms) -> tuple[Suspicion, ...]:
    """Return what speaks against a translation, in the order of the proto's reasons."""
    found = (
        _repetition(evidence),
        _uncovered_source(evidence),
        _diffuse_attention(evidence, norms),
        _length(evidence, norms),
        _low_probability(evidence, norms),
        _unknown_source(evidence),
    )
    return tuple(suspicion for suspicion in found if suspicion is not None)


def loops(found: Sequence[Suspicion]) -> bool:
    """Return whether repetition is among ``found``."""
    return any(suspicion.reason == "repetition" for suspicion in found)


def severity(found: Sequence[Suspicion]) -> tuple[float, int]:
    """Return how suspicious a translation is, to compare two of one source: how much of it loops, and how much else."""
    repeated = sum(suspicion.value for suspicion in found if suspicion.reason == "repetition")
    return repeated, len(found)


def repeated_tokens(token_ids: Sequence[int]) -> int:
    """Return how many tokens are in loops: a run of up to 16 tokens three times in a row, or one token four times.

    >>> repeated_tokens([9, 5, 6, 5, 6, 5, 6]), repeated_tokens([5, 5, 5, 6, 5, 6])
    (6, 0)
    """
    if len(set(zip(token_ids, token_ids[1:], token_ids[2:], strict=False))) >= len(token_ids) - 2:
        return (
            0  # every loop has some three tokens twice, which few sentences do, and the search takes ten times as long
        )
    return sum(loop.end() - loop.start() for loop in _LOOP.finditer("".join(map(chr, token_ids))))


def _repetition(evidence: Evidence) -> Suspicion | None:
    length = len(evidence.target_ids)
    value = repeated_tokens(evidence.target_ids) / length
    if value < _REPEATED:
        return None
    in_source = repeated_tokens(evidence.source_ids) / length
    threshold = max(_REPEATED, _MORE_REPEATED * in_source)  # what the source repeats may be repeated
    if value < threshold:
        return None
    message = f"{value:.0%} of the translation is one run of words again and again"
    return Suspicion("repetition", value, threshold, message)


def _uncovered_source(evidence: Evidence) -> Suspicion | None:
    if evidence.attention_weights is None or not evidence.source_words:
        return None
    received = evidence.attention_weights.sum(axis=0).tolist()
    uncovered = [sum(received[piece] for piece in word.piece_indices) < _UNCOVERED for word in evidence.source_words]
    value = sum(uncovered) / len(uncovered)
    if value < _UNCOVERED_WORDS:
        return None
    message = f"{sum(uncovered)} of the source's {len(uncovered)} words were not looked at; parts may be missing"
    return Suspicion("uncovered_source", value, _UNCOVERED_WORDS, message)


def _diffuse_attention(evidence: Evidence, norms: Norms) -> Suspicion | None:
    if evidence.attention_weights is None or norms.entropy_ratio is None:
        return None
    value = mean_entropy(evidence.attention_weights) / math.log(len(evidence.source_ids))
    threshold = _MORE_DIFFUSE * norms.entropy_ratio
    if value < threshold:
        return None
    message = "attention looked nowhere in particular; the translation may have little to do with the source"
    return Suspicion("diffuse_attention", value, threshold, message)


def _length(evidence: Evidence, norms: Norms) -> Suspicion | None:
    source, target = len(evidence.source_ids), len(evidence.target_ids)
    if evidence.cut_off:
        message = f"the translation was cut off at {target} tokens, the most it may have; its end is missing"
        return Suspicion("length", target / source, target / source, message)
    if norms.length_ratio is None:
        return None
    expected = norms.length_ratio * source
    longest, shortest = _LONGER * expected + _LENGTH_SLACK, _SHORTER * expected - _LENGTH_SLACK
    if shortest <= target <= longest:
        return None
    bound, kind = (longest, "long") if target > longest else (shortest, "short")
    message = f"{target} tokens from {source} are very {kind}; of so many, about {expected:.0f} are usual"
    return Suspicion("length", target / source, bound / source, message)


def _low_probability(evidence: Evidence, norms: Norms) -> Suspicion | None:
    value, threshold = evidence.log_probability / len(evidence.target_ids), norms.least_log_probability
    if threshold is None or value >= threshold:
        return None
    message = f"even to the model it is improbable: {value:.2f} nats a token"
    return Suspicion("low_probability", value, threshold, message)


def _unknown_source(evidence: Evidence) -> Suspicion | None:
    tokens = len(evidence.source_ids) - 1
    value = evidence.unknown_source_tokens / tokens if tokens else 0.0
    if value < _UNKNOWN:
        return None
    message = f"{evidence.unknown_source_tokens} of the source's {tokens} tokens are outside the model's vocabulary"
    return Suspicion("unknown_source", value, _UNKNOWN, message)


def _mean(histogram: Json) -> float:
    """Return the mean of what a reference histogram counts, as if each value stood in the middle of its bin."""
    bounds, counts = histogram["upper_bounds"], np.asarray(histogram["counts"])
    edges = np.array([bounds[0], *bounds, bounds[-1]])
    return float((counts / counts.sum() * (edges[:-1] + edges[1:]) / 2).sum())


def _quantile(histogram: Json, share: float) -> float:
    """Return the value that ``share`` of what a reference histogram counts is below, values spread over their bins."""
    bounds, counts = histogram["upper_bounds"], histogram["counts"]
    below = np.concatenate([[0], np.cumsum(counts)]) / sum(counts)
    return float(np.interp(share, below, [bounds[0], *bounds, bounds[-1]]))
