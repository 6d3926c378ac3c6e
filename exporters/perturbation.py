"""Attention changed at one step of a translation, all before it as it was: what the model then says of the next token.

Axes: ``variant`` counts changed attentions of one sentence; ``target`` emitted tokens and ``source`` source tokens,
both with end of sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int

from bundle.decomposition import softmax
from bundle.sessions import padded
from bundle.step import GivenAttention
from exporters.forcing import Forced, target_inputs
from exporters.runtime import OnnxModel
from training.translation import Ids, by_length

DELETED_POSITIONS = (1, 2, 3)
_BATCH_SENTENCES = 16  # times 34 attentions times the vocabulary: the numbers a step holds

# What was changed, by path in the report: ("deletion", "any_position", "top", "1") or ("counterfactual", "uniform").
Variants = dict[tuple[str, ...], Float64[np.ndarray, "target source"]]


@dataclass(frozen=True)
class Translated:
    """A sentence with the model's own translation of it, and how the model attends when forced to that translation."""

    source_ids: Ids
    target_ids: Ids
    attention: Forced


@dataclass(frozen=True)
class Outcome:
    """What the model says of the next token at every step, row 0 with its own attention, the others with variants.

    Attributes:
        log_probabilities: Of the emitted tokens, in nats.
        best_token_ids: The most probable tokens.
        divergences: Kullback-Leibler divergence of the variant's distribution from the model's own, in nats.
    """

    log_probabilities: Float64[np.ndarray, "variant target"]
    best_token_ids: Int[np.ndarray, "variant target"]
    divergences: Float64[np.ndarray, "variant target"]


def random_rotation(size: int, seed: int) -> Float64[np.ndarray, "key key"]:
    """Return a rotation that stands for attention parameters of the same size that learned nothing."""
    rotation, signs = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    return np.asarray(rotation * np.sign(np.diag(signs)))


def rotated_attention(
    attention: Forced, rotation: Float64[np.ndarray, "key key"]
) -> Float64[np.ndarray, "target source"]:
    """Return attention as it would be with the key projection rotated: as sharp, and blind to what was learned."""
    return softmax(attention.queries.astype(np.float64) @ rotation @ attention.keys.astype(np.float64).T)


def variants(
    sentence: Translated, rotated: Float64[np.ndarray, "target source"], generator: np.random.Generator
) -> Variants:
    """Return every changed attention of ``sentence``; a row of zeros where the change leaves nothing to attend to.

    Deletions take 1 to 3 positions away and scale the rest up to sum to 1. Positions go by the model's own attention
    (``top`` first, ``least`` first), its posterior, at random, or by ``rotated`` attention; ``any_position`` may take
    the end of sentence, ``end_of_sentence_kept`` may not.
    """
    weights = sentence.attention.weights.astype(np.float64)
    orders = {"top": -weights, "random": generator.random(weights.shape), "least": weights}
    orders["randomized_parameters"] = -rotated
    if sentence.attention.posterior is not None:
        orders["top_by_posterior"] = -sentence.attention.posterior
    found: Variants = {}
    for place in ("any_position", "end_of_sentence_kept"):
        for name, order in orders.items():
            order = order.copy()
            if place == "end_of_sentence_kept":
                order[:, -1] = np.inf
            ranks = order.argsort(axis=1, kind="stable").argsort(axis=1)
            for count in DELETED_POSITIONS:
                found["deletion", place, name, str(count)] = _without(weights, ranks, count)
    found["counterfactual", "permuted"] = generator.permuted(weights, axis=1)
    found["counterfactual", "uniform"] = np.full_like(weights, 1 / weights.shape[1])
    found["counterfactual", "zero_max"] = found["deletion", "any_position", "top", "1"]
    return found


def replay(
    model: OnnxModel, sentences: Sequence[Translated], changed: Sequence[Mapping[tuple[str, ...], np.ndarray]]
) -> list[Outcome]:
    """Return what every variant does at every step of the translations; rows of zeros keep the model's own attention.

    The state of a step is that of the unchanged translation, so each figure is the effect of one step's attention.
    """

    def answer(rows: Sequence[int]) -> list[Outcome]:
        targets = target_inputs([sentences[row].target_ids for row in rows], model.special_ids)
        given = _stacked([list(changed[row].values()) for row in rows], targets.shape[1])
        encoded = model.encode([sentences[row].source_ids for row in rows])
        beam = given.shape[1]
        state = {name: np.repeat(array[:, None], beam, axis=1) for name, array in encoded.initial_state.items()}
        emitted = np.zeros(targets.shape, np.int64)
        for place, row in enumerate(rows):
            emitted[place, : len(sentences[row].target_ids)] = sentences[row].target_ids
        outcomes = []
        for step in range(targets.shape[1]):
            weights = given[:, :, step]
            attention = GivenAttention(np.asarray(weights.any(axis=2)), weights)
            previous = np.repeat(targets[:, step : step + 1], beam, axis=1)
            found = model.step(encoded, previous, state, ["log_probabilities", *model.next_state], attention)
            state = {name: np.repeat(found[f"next_{name}"][:, :1], beam, axis=1) for name in model.state_names}
            outcomes.append(_outcome(found["log_probabilities"], emitted[:, step]))
        parts = [np.stack(part, axis=2) for part in zip(*outcomes, strict=True)]
        lengths = [len(sentences[row].target_ids) for row in rows]
        return [Outcome(*(part[place, :, :length] for part in parts)) for place, length in enumerate(lengths)]

    return by_length([sentence.source_ids for sentence in sentences], answer, _BATCH_SENTENCES)


def _without(
    weights: Float64[np.ndarray, "target source"], ranks: Int[np.ndarray, "target source"], count: int
) -> Float64[np.ndarray, "target source"]:
    """Return the weights without the first ``count`` positions of a row, scaled to sum to 1; 0 where none is left."""
    left = np.where(ranks < count, 0.0, weights)
    total = left.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(left, total, out=np.zeros_like(left), where=total > 0))


def _stacked(
    changed: Sequence[Sequence[Float64[np.ndarray, "target source"]]], target: int
) -> Float[np.ndarray, "batch variant target source"]:
    """Return the variants of several sentences as one array, before them a row of zeros: the model's own attention."""
    source = padded(max(attentions[0].shape[1] for attentions in changed))
    given = np.zeros((len(changed), 1 + len(changed[0]), target, source), np.float32)
    for place, attentions in enumerate(changed):
        rows, columns = attentions[0].shape
        given[place, 1:, :rows, :columns] = np.stack(attentions)
    return given


def _outcome(
    log_probabilities: Float[np.ndarray, "batch variant vocabulary"], emitted: Int[np.ndarray, "batch"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log-probabilities of the emitted tokens, the best tokens, and divergences, each ``[batch variant]``."""
    of_emitted = np.take_along_axis(log_probabilities, emitted[:, None, None], axis=2)[:, :, 0].astype(np.float64)
    own = log_probabilities[:, :1].astype(np.float64)
    surprise = (own - log_probabilities) @ np.exp(own).swapaxes(1, 2)
    return of_emitted, log_probabilities.argmax(axis=2), surprise[:, :, 0]
