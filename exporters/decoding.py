"""Translating and forcing whole texts with either framework, batches of similar length, answers in the order given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import Float, Int

from bundle.decomposition import AttentionRecord, Decomposition, decompose
from bundle.manifest import Limits, SpecialIds
from bundle.search import EncodedBatch, SearchOptions, SearchResult, StepFunction, max_target_tokens, search
from bundle.tables import ComponentTables
from exporters.runtime import OnnxModel

_BATCH_SENTENCES = 32

Ids = Sequence[int]
Answer = TypeVar("Answer")


class Searchable(StepFunction, Protocol):
    """A model that bundle.search can drive, in torch or in ONNX Runtime."""

    def encode(self, sources: Sequence[Ids]) -> EncodedBatch:
        """Return the encoder side of sentences given as ids, end of sentence included."""
        ...


@dataclass(frozen=True)
class Forced:
    """What a model says about a given target, end of sentence included.

    Attributes:
        best_token_ids: The most probable token at each step.
        scores: Attention before softmax.
        weights: Attention after softmax.
        queries: The decoder's side of each score.
        keys: The encoder's side of each score.
    """

    best_token_ids: Int[np.ndarray, "target"]
    scores: Float[np.ndarray, "target source"]
    weights: Float[np.ndarray, "target source"]
    queries: Float[np.ndarray, "target key"]
    keys: Float[np.ndarray, "source key"]


@dataclass(frozen=True)
class Explained:
    """What explaining an answer takes beside the answer.

    Attributes:
        tables: Component tables of the model.
        decoder_token_offset: Which emitted token indexes the decoder's components.
        bos_id: What stands before the first.
    """

    tables: ComponentTables
    decoder_token_offset: int
    bos_id: int

    def decompose(self, record: AttentionRecord) -> Decomposition:
        """Return the nine terms of one sentence pair."""
        return decompose(record, self.tables, self.decoder_token_offset, self.bos_id)


@dataclass(frozen=True)
class Translator:
    """Translates with the options the service has by default."""

    model: Searchable
    special_ids: SpecialIds
    limits: Limits

    def translate(
        self, sources: Sequence[Ids], beam_size: int, batch_sentences: int = _BATCH_SENTENCES
    ) -> list[SearchResult]:
        """Return the best translation of each source, end of sentence included."""

        def answer(rows: Sequence[int]) -> list[SearchResult]:
            options = [self._options(len(sources[row]), beam_size) for row in rows]
            return search(self.model, self.model.encode([sources[row] for row in rows]), options, self.special_ids)

        return by_length(sources, answer, batch_sentences)

    def _options(self, source_tokens: int, beam_size: int) -> SearchOptions:
        return SearchOptions(
            max_target_tokens=max_target_tokens(source_tokens, self.limits.max_target_tokens),
            beam_size=beam_size,
            banned_token_ids=(self.special_ids.unk,),
        )


def force(model: OnnxModel, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[Forced]:
    """Return what ``model`` says about each target."""
    names = ("candidate_token_ids", "attention_scores", "attention_weights", "attention_query")

    def answer(rows: Sequence[int]) -> list[Forced]:
        encoded = model.encode([sources[row] for row in rows])
        inputs = target_inputs([targets[row] for row in rows], model.special_ids)
        steps = list(model.forced(encoded, inputs, names))
        best, scores, weights, queries = (np.concatenate([step[name] for step in steps], axis=1) for name in names)
        found = []
        for place, row in enumerate(rows):
            target, source = slice(len(targets[row])), slice(len(sources[row]))
            found.append(
                Forced(
                    best[place, target, 0],
                    scores[place, target, source],
                    weights[place, target, source],
                    queries[place, target],
                    encoded.encoder_side["attention_keys"][place, source],
                )
            )
        return found

    return by_length(sources, answer)


def target_inputs(targets: Sequence[Ids], special_ids: SpecialIds) -> Int[np.ndarray, "batch target"]:
    """Return what the decoder reads to emit each target: beginning of sentence, then all but the last token."""
    inputs = np.full((len(targets), max(map(len, targets))), special_ids.pad, np.int64)
    for row, target in zip(inputs, targets, strict=True):
        row[: len(target)] = [special_ids.bos, *target[:-1]]
    return inputs


def by_length(
    sources: Sequence[Ids],
    answer: Callable[[Sequence[int]], Sequence[Answer]],
    batch_sentences: int = _BATCH_SENTENCES,
) -> list[Answer]:
    """Return the answers for all rows in order, asked for in batches of rows whose sources have similar lengths."""
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), batch_sentences):
        rows = order[start : start + batch_sentences]
        found |= zip(rows, answer(rows), strict=True)
    return [found[row] for row in range(len(sources))]
