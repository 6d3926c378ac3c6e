"""What a bundle's graphs say about given targets, and how that is taken apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from bundle.alignment import posterior
from bundle.decomposition import AttentionRecord, Decomposition, decompose
from bundle.manifest import SpecialIds
from bundle.tables import ComponentTables
from exporters.runtime import OnnxModel
from training.translation import Ids, by_length


@dataclass(frozen=True)
class Forced:
    """What a model says about a given target, end of sentence included.

    Attributes:
        best_token_ids: The most probable token at each step.
        scores: Attention before softmax.
        weights: Attention after softmax.
        queries: The decoder's side of each score.
        keys: The encoder's side of each score.
        posterior: Weights once each token is known (``bundle.alignment.posterior``), where the graphs tell.
    """

    best_token_ids: Int[np.ndarray, "target"]
    scores: Float[np.ndarray, "target source"]
    weights: Float[np.ndarray, "target source"]
    queries: Float[np.ndarray, "target key"]
    keys: Float[np.ndarray, "source key"]
    posterior: Float[np.ndarray, "target source"] | None = None


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


def force(model: OnnxModel, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[Forced]:
    """Return what ``model`` says about each target."""
    names = ["candidate_token_ids", "attention_scores", "attention_weights", "attention_query"]
    names += ["emission_scores"] if "emission_scores" in model.step_outputs else []

    def answer(rows: Sequence[int]) -> list[Forced]:
        encoded = model.encode([sources[row] for row in rows])
        inputs = target_inputs([targets[row] for row in rows], model.special_ids)
        steps = list(model.forced(encoded, inputs, names))
        best, scores, weights, queries, *emission = (
            np.concatenate([step[name] for step in steps], axis=1) for name in names
        )
        forced = []
        for place, row in enumerate(rows):
            target, source = slice(len(targets[row])), slice(len(sources[row]))
            forced.append(
                Forced(
                    best[place, target, 0],
                    scores[place, target, source],
                    weights[place, target, source],
                    queries[place, target],
                    encoded.encoder_side["attention_keys"][place, source],
                    *(posterior(weights[place, target, source], found[place, target, source]) for found in emission),
                )
            )
        return forced

    return by_length(sources, answer)


def target_inputs(targets: Sequence[Ids], special_ids: SpecialIds) -> Int[np.ndarray, "batch target"]:
    """Return what the decoder reads to emit each target: beginning of sentence, then all but the last token."""
    inputs = np.full((len(targets), max(map(len, targets))), special_ids.pad, np.int64)
    for row, target in zip(inputs, targets, strict=True):
        row[: len(target)] = [special_ids.bos, *target[:-1]]
    return inputs
