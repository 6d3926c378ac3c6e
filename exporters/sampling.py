"""The text an export reads: a sample of training text for scales and tables, and development pairs for the ledger.

Samples are drawn with a fixed seed and in equal parts from each corpus, so the same files give the same bundle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sentencepiece
from jaxtyping import Int

from training.config import CorpusConfig, DataConfig
from training.corpus import Batch, TokenizedCorpus, assemble, epoch_batches, read_pairs, tokenize

_SEED = 20
_SPARE = 1.1  # read this many times more pairs than needed, for those that length limits leave out

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class TrainingSample:
    """Tokenized training pairs and, for the manifest, where they come from."""

    corpus: TokenizedCorpus
    description: str


def development_pairs(corpora: Sequence[CorpusConfig], sentences: int) -> Pairs:
    """Return ``sentences`` pairs in all, or what there is.

    Raises:
        InvalidCorpus: A corpus cannot be read.
    """
    shares = _shares(sentences, len(corpora))
    return [pair for corpus, share in zip(corpora, shares, strict=True) for pair in _chosen(corpus, share)]


def training_sample(
    corpora: Sequence[CorpusConfig], sentences: int, vocabulary: bytes, data: DataConfig
) -> TrainingSample:
    """Return ``sentences`` pairs in all, or what there is, within the length limits of training.

    Raises:
        InvalidCorpus: A corpus cannot be read, or nothing is left of it.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    parts, names = [], []
    for corpus, share in zip(corpora, _shares(sentences, len(corpora)), strict=True):
        whole, _ = tokenize(_chosen(corpus, round(_SPARE * share)), 1.0, processor, data)
        part = subset(whole, np.arange(min(share, len(whole))))
        parts.append(part)
        names.append(f"{corpus.source.parent.name}/{corpus.source.name}: {len(part):,} sentences")
    return TrainingSample(_joined(parts), "; ".join(names))


def halves(sample: TrainingSample) -> tuple[TrainingSample, TrainingSample]:
    """Return every other pair, and the others: as much of each corpus in both."""
    rows = np.arange(len(sample.corpus))
    first, second = (
        TrainingSample(subset(sample.corpus, rows[start::2]), f"half {start + 1} of {sample.description}")
        for start in (0, 1)
    )
    return first, second


def subset(corpus: TokenizedCorpus, rows: Int[np.ndarray, "kept"]) -> TokenizedCorpus:
    """Return the pairs ``rows`` of a corpus."""

    def kept(ids: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sentences = [ids[offsets[row] : offsets[row + 1]] for row in rows]
        return np.concatenate([ids[:0], *sentences]), np.cumsum([0, *map(len, sentences)])

    source_ids, source_offsets = kept(corpus.source_ids, corpus.source_offsets)
    target_ids, target_offsets = kept(corpus.target_ids, corpus.target_offsets)
    return TokenizedCorpus(source_ids, source_offsets, target_ids, target_offsets, corpus.weight)


def batches(corpus: TokenizedCorpus, batch_tokens: int) -> Iterator[Batch]:
    """Yield every pair once, similar lengths together."""
    if len(corpus):
        for pairs in epoch_batches([corpus], batch_tokens, seed=_SEED, epoch=0):
            yield assemble([corpus], pairs)


def _chosen(corpus: CorpusConfig, sentences: int) -> Pairs:
    pairs, _ = read_pairs(corpus)
    order = np.random.default_rng(_SEED).permutation(len(pairs))[:sentences]
    return [pairs[index] for index in order]


def _shares(sentences: int, parts: int) -> list[int]:
    return [sentences * (part + 1) // parts - sentences * part // parts for part in range(parts)]


def _joined(parts: Sequence[TokenizedCorpus]) -> TokenizedCorpus:
    def offsets(name: str) -> Int[np.ndarray, "pairs_plus_one"]:
        return np.cumsum([0, *np.concatenate([np.diff(getattr(part, name)) for part in parts])])

    return TokenizedCorpus(
        np.concatenate([part.source_ids for part in parts]),
        offsets("source_offsets"),
        np.concatenate([part.target_ids for part in parts]),
        offsets("target_offsets"),
        1.0,
    )
