"""Beam search over a fixed batch, and scoring of a given target: two small drivers of ``bundle.beams``.

This module is the door to searching: it offers the step contract (``bundle.step``) and the running beams that
continuous batching drives itself (``bundle.beams``) under one name. Greedy search is beam size 1. A sentence's answer
does not depend on its batch, as long as the step's does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from bundle.advance import advance
from bundle.beams import Beams, certain_prefix, reorder
from bundle.errors import InvalidSearchOptions
from bundle.manifest import SpecialIds
from bundle.step import (
    ALL_CANDIDATES,
    EncodedBatch,
    FinishReason,
    Hypothesis,
    SearchOptions,
    State,
    StepFunction,
    StepOutput,
    max_target_tokens,
    token_log_probabilities,
)

__all__ = [
    "ALL_CANDIDATES",
    "Beams",
    "EncodedBatch",
    "FinishReason",
    "Hypothesis",
    "SearchOptions",
    "SearchResult",
    "State",
    "StepFunction",
    "StepOutput",
    "Trace",
    "advance",
    "certain_prefix",
    "force",
    "max_target_tokens",
    "reorder",
    "search",
]


@dataclass(frozen=True)
class Trace:
    """The attention behind each emitted token of one hypothesis; a part is None when the step does not give it.

    Attributes:
        attention_scores: Before softmax.
        attention_weights: After softmax.
        attention_queries: The query of each row.
        emission_scores: As of ``StepOutput``: a row is about the token before it, the first about what stands before
            the sentence.
    """

    attention_scores: Float[np.ndarray, "target source"] | None
    attention_weights: Float[np.ndarray, "target source"] | None
    attention_queries: Float[np.ndarray, "target key"] | None
    emission_scores: Float[np.ndarray, "target source"] | None = None


@dataclass(frozen=True)
class SearchResult:
    """The answer for one sentence.

    Attributes:
        hypotheses: Distinct, by descending ``normalized_score``.
        traces: The attention of each of them.
    """

    hypotheses: tuple[Hypothesis, ...]
    traces: tuple[Trace, ...]


@dataclass(frozen=True)
class _Moment:
    """What one step said about attention, by the names of ``Trace``, and which sentences it was run for."""

    sentences: Int[np.ndarray, "batch"]
    parts: dict[str, Float[np.ndarray, "batch beam columns"] | None]


def search(
    step: StepFunction, encoded: EncodedBatch, options: Sequence[SearchOptions], special_ids: SpecialIds
) -> list[SearchResult]:
    """Return the n-best hypotheses of each sentence of a batch, with their attention.

    Sentences leave the batch as they finish, so the tail of a long one costs only itself.

    Raises:
        InvalidSearchOptions: The options are not one a sentence, mix beam sizes or force a special token.
    """
    if len(options) != len(encoded.source_lengths):
        raise InvalidSearchOptions(f"{len(options)} options for {len(encoded.source_lengths)} sentences")
    if not options:
        return []
    beams = Beams.start(options, special_ids)
    state = _first_state(encoded, beams.beam_size)
    sentences = np.arange(len(options))
    source_lengths = encoded.source_lengths
    moments: list[_Moment] = []
    results: dict[int, SearchResult] = {}
    while sentences.size:
        output = step(encoded, beams.previous_token_ids, state, beams.candidates)
        moments.append(_moment(sentences, output))
        beams, parents, finished = advance(beams, output)
        state = reorder(output.state, parents)
        for row, hypotheses in finished.items():
            sentence = int(sentences[row])
            length = int(source_lengths[sentence])
            traces = [_trace(moments, sentence, length, hypothesis.beam_path) for hypothesis in hypotheses]
            results[sentence] = SearchResult(tuple(hypotheses), tuple(traces))
        if finished:
            going = np.setdiff1d(np.arange(sentences.size), list(finished))
            sentences, beams, encoded = sentences[going], beams.keep(going), encoded.keep(going)
            state = {name: array[going] for name, array in state.items()}
    return [results[sentence] for sentence in range(len(options))]


def force(
    step: StepFunction,
    encoded: EncodedBatch,
    targets: Sequence[Sequence[int]],
    special_ids: SpecialIds,
    length_penalty: float = 1.0,
) -> list[SearchResult]:
    """Return each given target as the one hypothesis of its sentence, with the attention it meets on the way.

    ``targets`` are scored as they stand: append end of sentence to score a whole sentence.

    Raises:
        InvalidSearchOptions: The targets are not one a sentence, or one is empty.
    """
    if len(targets) != len(encoded.source_lengths):
        raise InvalidSearchOptions(f"{len(targets)} targets for {len(encoded.source_lengths)} sentences")
    if not all(targets):
        raise InvalidSearchOptions("a target to score is empty; it holds at least end of sentence")
    sentences = np.arange(len(targets))
    lengths = np.array([len(target) for target in targets])
    ids = np.full((len(targets), int(lengths.max(initial=0))), special_ids.pad, dtype=np.int64)
    for row, target in enumerate(targets):
        ids[row, : len(target)] = target
    state = _first_state(encoded, beam_size=1)
    previous = np.full((len(targets), 1), special_ids.bos, dtype=np.int64)
    moments: list[_Moment] = []
    log_probabilities = np.zeros(ids.shape)
    for time in range(ids.shape[1]):
        output = step(encoded, previous, state, ALL_CANDIDATES)
        moments.append(_moment(sentences, output))
        previous, state = ids[:, time : time + 1], output.state
        log_probabilities[:, time] = token_log_probabilities(output, previous)[:, 0]
    results = []
    for sentence, target in enumerate(targets):
        scores = log_probabilities[sentence, : len(target)].tolist()
        hypothesis = Hypothesis(
            token_ids=tuple(int(token_id) for token_id in target),
            log_probability=sum(scores),
            normalized_score=sum(scores) / len(target) ** length_penalty,
            token_log_probabilities=tuple(scores),
            finish_reason="eos" if target[-1] == special_ids.eos else "max_length",
            beam_path=(0,) * len(target),
        )
        trace = _trace(moments, sentence, int(encoded.source_lengths[sentence]), hypothesis.beam_path)
        results.append(SearchResult((hypothesis,), (trace,)))
    return results


def _first_state(encoded: EncodedBatch, beam_size: int) -> State:
    return {name: array[:, None].repeat(beam_size, axis=1) for name, array in encoded.initial_state.items()}


def _moment(sentences: Int[np.ndarray, "batch"], output: StepOutput) -> _Moment:
    parts = {
        "attention_scores": output.attention_scores,
        "attention_weights": output.attention_weights,
        "attention_queries": output.attention_query,
        "emission_scores": output.emission_scores,
    }
    return _Moment(sentences, parts)


def _trace(moments: Sequence[_Moment], sentence: int, source_length: int, path: Sequence[int]) -> Trace:
    """Return the attention rows along ``path``, without padded columns."""
    rows = [int(np.searchsorted(moment.sentences, sentence)) for moment in moments[: len(path)]]

    def followed(name: str, columns: int | None) -> Float[np.ndarray, "target columns"] | None:
        arrays = [moment.parts[name] for moment in moments[: len(path)]]
        places = zip(arrays, rows, path, strict=True)
        found = [array[row, beam, :columns] for array, row, beam in places if array is not None]
        return np.stack(found) if found else None

    return Trace(
        attention_scores=followed("attention_scores", source_length),
        attention_weights=followed("attention_weights", source_length),
        attention_queries=followed("attention_queries", None),
        emission_scores=followed("emission_scores", source_length),
    )
