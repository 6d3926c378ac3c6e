"""The contract between a decoder and whoever searches with it: what goes into one step, and what comes out.

Axes: ``batch`` sentences, ``beam`` hypotheses of a sentence, ``k`` candidate tokens of a hypothesis, ``source`` and
``target`` tokens with end of sentence.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from bundle.errors import InvalidSearchOptions

MAX_BEAM_SIZE = 16
MAX_LENGTH_PENALTY = 5.0
MAX_NO_REPEAT_NGRAM_SIZE = 16
ALL_CANDIDATES = int(np.iinfo(np.int32).max)  # asks a step for every token

FinishReason = Literal["eos", "max_length"]
State = dict[str, Float[np.ndarray, "batch beam size"]]


def max_target_tokens(source_tokens: int, absolute: int, ratio: float = 2.0, constant: int = 10) -> int:
    """Return ``min(absolute, ceil(ratio * source_tokens) + constant)``, the longest target worth waiting for.

    Example:
        >>> max_target_tokens(7, absolute=256)
        24
    """
    return min(absolute, math.ceil(ratio * source_tokens) + constant)


@dataclass(frozen=True)
class SearchOptions:
    """What is asked of one sentence's search.

    Attributes:
        max_target_tokens: Most tokens emitted, end of sentence included.
        beam_size: Hypotheses kept at a step, 1 to 16.
        n_best: Hypotheses returned at most, 1 to ``beam_size``.
        length_penalty: The exponent in ``normalized_score = log_probability / length ** length_penalty``, 0 to 5.
        forced_prefix: Tokens that every hypothesis starts with.
        banned_token_ids: Tokens never emitted after the forced prefix.
        no_repeat_ngram_size: No run of so many tokens comes twice, but for what the forced prefix repeats; 0 to 16, 0
            allows all.
    """

    max_target_tokens: int
    beam_size: int = 4
    n_best: int = 1
    length_penalty: float = 1.0
    forced_prefix: tuple[int, ...] = ()
    banned_token_ids: tuple[int, ...] = ()
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            InvalidSearchOptions: Naming every value out of range.
        """
        faults = []
        if not 1 <= self.beam_size <= MAX_BEAM_SIZE:
            faults.append(f"beam_size is {self.beam_size}; it must lie in [1, {MAX_BEAM_SIZE}]")
        if not 1 <= self.n_best <= self.beam_size:
            faults.append(f"n_best is {self.n_best}; it must lie in [1, beam_size = {self.beam_size}]")
        if not 0.0 <= self.length_penalty <= MAX_LENGTH_PENALTY:
            faults.append(f"length_penalty is {self.length_penalty}; it must lie in [0, {MAX_LENGTH_PENALTY}]")
        if not 0 <= self.no_repeat_ngram_size <= MAX_NO_REPEAT_NGRAM_SIZE:
            faults.append(
                f"no_repeat_ngram_size is {self.no_repeat_ngram_size}; it must lie in [0, {MAX_NO_REPEAT_NGRAM_SIZE}]"
            )
        if self.max_target_tokens < 1:
            faults.append(f"max_target_tokens is {self.max_target_tokens}; it must be at least 1")
        elif len(self.forced_prefix) >= self.max_target_tokens:
            faults.append(
                f"forced_prefix has {len(self.forced_prefix)} tokens; it must be shorter than "
                f"max_target_tokens = {self.max_target_tokens}"
            )
        if negative := [i for i in (*self.forced_prefix, *self.banned_token_ids) if i < 0]:
            faults.append(f"token ids {negative} are negative")
        if faults:
            raise InvalidSearchOptions("; ".join(faults))


@dataclass(frozen=True)
class EncodedBatch:
    """What a decoder step needs of the encoder, shared by the beam of a sentence.

    Attributes:
        source_lengths: Tokens of each source, end of sentence included.
        encoder_side: Named arrays, first axis batch (``encoder_states``, ``attention_keys``).
        initial_state: Named state tensors before the first step.
    """

    source_lengths: Int[np.ndarray, "batch"]
    encoder_side: dict[str, np.ndarray]
    initial_state: dict[str, Float[np.ndarray, "batch size"]]

    def keep(self, rows: Int[np.ndarray, "kept"]) -> "EncodedBatch":
        """Return the batch of the sentences ``rows``."""
        return EncodedBatch(
            self.source_lengths[rows],
            {name: array[rows] for name, array in self.encoder_side.items()},
            {name: array[rows] for name, array in self.initial_state.items()},
        )


# What a step is fed to work out emission scores: a choice, or in a graph without choices, how many; one of the two.
WITH_EMISSION = {"emission_wanted": np.array([True]), "emission_limit": np.array([np.iinfo(np.int64).max])}


@dataclass(frozen=True)
class GivenAttention:
    """Attention weights that a step uses instead of its own.

    Attributes:
        replaced: The hypotheses they are for; the others attend as ever.
        weights: Rows sum to 1 where they are used, and are 0 past a source's length.
    """

    replaced: Bool[np.ndarray, "batch beam"]
    weights: Float[np.ndarray, "batch beam source"]

    @property
    def graph_inputs(self) -> dict[str, np.ndarray]:
        """The tensors by the names of the step graph's inputs; without them the graph is the plain step."""
        return {"attention_replaced": self.replaced[:, :, None], "given_attention_weights": self.weights}


@dataclass(frozen=True)
class StepOutput:
    """What one decoder step answers.

    Attributes:
        candidate_token_ids: The best tokens of each hypothesis, best first, ties to the lower id.
        candidate_log_probabilities: Their log-probabilities in nats.
        state: The next state by name, rows as in the input.
        attention_scores: Before softmax; columns past a source's length hold anything.
        attention_weights: After softmax.
        attention_query: The vector whose dot product with ``attention_keys`` is the score.
        log_probabilities: Of every token; answers ``ALL_CANDIDATES`` without sorting the vocabulary.
        emission_scores: Of the token that was read: the logit it would have been emitted with, one step ago, had that
            step attended to one source position alone.
    """

    candidate_token_ids: Int[np.ndarray, "batch beam k"]
    candidate_log_probabilities: Float[np.ndarray, "batch beam k"]
    state: State
    attention_scores: Float[np.ndarray, "batch beam source"] | None = None
    attention_weights: Float[np.ndarray, "batch beam source"] | None = None
    attention_query: Float[np.ndarray, "batch beam key"] | None = None
    log_probabilities: Float[np.ndarray, "batch beam vocabulary"] | None = None
    emission_scores: Float[np.ndarray, "batch beam source"] | None = None


@runtime_checkable
class StepFunction(Protocol):
    """One step of a decoder: pure, and independent from row to row."""

    def __call__(
        self, encoded: EncodedBatch, previous_token_ids: Int[np.ndarray, "batch beam"], state: State, candidates: int, /
    ) -> StepOutput:
        """Return the best ``min(candidates, vocabulary)`` tokens that may follow, and the next state.

        Asked for ``ALL_CANDIDATES``, it lists every token, or ``Beams.width`` of them and fills ``log_probabilities``.
        """
        ...


@dataclass(frozen=True)
class Hypothesis:
    """One finished translation in token ids.

    Attributes:
        token_ids: The emitted tokens, end of sentence last when ``finish_reason`` is ``eos``.
        log_probability: Sum over the tokens, in nats.
        normalized_score: ``log_probability / len(token_ids) ** length_penalty``.
        token_log_probabilities: Of each token, in nats.
        finish_reason: ``eos``, or ``max_length`` when cut.
        beam_path: The row of the beam whose step emitted each token: where its attention is found.
    """

    token_ids: tuple[int, ...]
    log_probability: float
    normalized_score: float
    token_log_probabilities: tuple[float, ...]
    finish_reason: FinishReason
    beam_path: tuple[int, ...]


def token_log_probabilities(
    output: StepOutput, token_ids: Int[np.ndarray, "batch beam"]
) -> Float[np.ndarray, "batch beam"]:
    """Return the log-probability of one given token a row, from an answer to ``ALL_CANDIDATES``; -inf for no token."""
    if output.log_probabilities is not None:
        known = (token_ids >= 0) & (token_ids < output.log_probabilities.shape[2])
        place = np.where(known, token_ids, 0)[:, :, None]
        found = np.take_along_axis(output.log_probabilities, place, axis=2)[:, :, 0]
    else:
        match = output.candidate_token_ids == token_ids[:, :, None]
        known = match.any(axis=2)
        place = match.argmax(axis=2)[:, :, None]
        found = np.take_along_axis(output.candidate_log_probabilities, place, axis=2)[:, :, 0]
    return np.where(known, found.astype(np.float64), -np.inf)
