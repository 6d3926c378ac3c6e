"""Fits the component tables on the graphs that are shipped, in one pass of exact sums over any sharding of the text.

Keys are summed by source position and source token, queries by step and by the token that indexes the decoder's
components there, targets forced (docs/decomposition.md eq. 2 to 7).
"""

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int

from bundle.decomposition import conditioning_tokens
from bundle.manifest import SpecialIds
from bundle.tables import ComponentTables, Sums
from exporters.runtime import OnnxModel
from exporters.sampling import TrainingSample, batches, subset
from training.corpus import Batch, TokenizedCorpus

MINIMUM_COUNT = 10
_BATCH_TOKENS = 8192
_SHARD_SENTENCES = 5_000


@dataclass(frozen=True)
class TableSizes:
    """How large the tables are, and which emitted token indexes the decoder's components."""

    source_positions: int
    target_positions: int
    vocabulary: int
    key: int
    decoder_token_offset: int


@dataclass(frozen=True)
class ComponentSums:
    """Sums of both sides over some sentences; they merge in any order to the same bytes."""

    encoder: Sums
    decoder: Sums
    sentences: int

    @classmethod
    def empty(cls, sizes: TableSizes) -> "ComponentSums":
        """Return the sums over no sentence."""
        return cls(
            Sums(sizes.source_positions, sizes.vocabulary, sizes.key),
            Sums(sizes.target_positions, sizes.vocabulary, sizes.key),
            0,
        )

    def merged(self, other: "ComponentSums") -> "ComponentSums":
        """Return the sums over both, adding to this one's arrays."""
        self.encoder.merge(other.encoder)
        self.decoder.merge(other.decoder)
        return ComponentSums(self.encoder, self.decoder, self.sentences + other.sentences)

    def tables(self, name: str, corpus: str, minimum_count: int = MINIMUM_COUNT) -> ComponentTables:
        """Return the tables named ``name``, fitted on the text that ``corpus`` describes.

        Raises:
            TableMismatch: There is too little text.
        """
        encoder, decoder = self.encoder.finish(minimum_count), self.decoder.finish(minimum_count)
        return ComponentTables(encoder, decoder, name, corpus, self.sentences)


def fit(
    model: OnnxModel, sample: TrainingSample, sizes: TableSizes, processes: int, tell: Callable[[str], None]
) -> ComponentSums:
    """Return the sums over ``sample``, shard by shard, in this process or spread over several."""
    shards = [
        subset(sample.corpus, np.arange(start, min(start + _SHARD_SENTENCES, len(sample.corpus))))
        for start in range(0, len(sample.corpus), _SHARD_SENTENCES)
    ]
    sums = ComponentSums.empty(sizes)
    if processes == 1:
        found: Iterable[ComponentSums] = (collect(model, shard, sizes) for shard in shards)
        return _merged(sums, found, len(sample.corpus), tell)
    context = multiprocessing.get_context("spawn")  # a forked child would share the runtime's locks
    with ProcessPoolExecutor(processes, context, _load, (model.graphs, model.special_ids)) as pool:
        return _merged(sums, pool.map(partial(_collect_loaded, sizes), shards), len(sample.corpus), tell)


def collect(model: OnnxModel, corpus: TokenizedCorpus, sizes: TableSizes) -> ComponentSums:
    """Return the sums over one shard."""
    sums = ComponentSums.empty(sizes)
    for batch in batches(corpus, _BATCH_TOKENS):
        _add(sums, model, batch, sizes.decoder_token_offset)
    return ComponentSums(sums.encoder, sums.decoder, len(corpus))


def _add(sums: ComponentSums, model: OnnxModel, batch: Batch, offset: int) -> None:
    special_ids = model.special_ids
    encoded = model.encode([row[:length] for row, length in zip(batch.source_ids, batch.source_lengths, strict=True)])
    source = batch.source_ids.shape[1]
    inside = np.arange(source) < batch.source_lengths[:, None]
    _add_states(sums.encoder, encoded.encoder_side["attention_keys"][:, :source], batch.source_ids, inside)
    steps = model.forced(encoded, batch.target_input_ids, ["attention_query"])
    queries = np.concatenate([step["attention_query"] for step in steps], axis=1)
    tokens = np.stack([conditioning_tokens(row.tolist(), offset, special_ids.bos) for row in batch.target_ids])
    _add_states(sums.decoder, queries, tokens, batch.target_ids != special_ids.pad)


def _add_states(
    sums: Sums,
    states: Float[np.ndarray, "batch time key"],
    token_ids: Int[np.ndarray, "batch time"],
    inside: Bool[np.ndarray, "batch time"],
) -> None:
    sums.add(states[inside], np.nonzero(inside)[1], token_ids[inside])


def _merged(
    sums: ComponentSums, shards: Iterable[ComponentSums], sentences: int, tell: Callable[[str], None]
) -> ComponentSums:
    for shard in shards:
        sums = sums.merged(shard)
        tell(f"component tables: {sums.sentences:,} of {sentences:,} sentences")
    return sums


_loaded: list[OnnxModel] = []  # the model of a worker process, loaded once


def _load(graphs: dict[str, bytes], special_ids: SpecialIds) -> None:
    _loaded.append(OnnxModel(graphs, special_ids, threads=1))


def _collect_loaded(sizes: TableSizes, shard: TokenizedCorpus) -> ComponentSums:
    return collect(_loaded[0], shard, sizes)
