"""Random sentences as ids."""

import numpy as np

from training.corpus import Batch, TokenizedCorpus, assemble
from training.evaluation import SPECIAL_IDS


def random_sources(vocabulary: int, lengths: list[int], seed: int) -> list[list[int]]:
    """Return sentences of these lengths, end of sentence included."""
    generator = np.random.default_rng(seed)
    return [[*generator.integers(4, vocabulary, length - 1).tolist(), SPECIAL_IDS.eos] for length in lengths]


def random_corpus(vocabulary: int, pairs: int, seed: int, longest: int = 30) -> TokenizedCorpus:
    """Return pairs of 1 to ``longest`` tokens a side, marks left out."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, (2, pairs))
    source_ids, target_ids = (generator.integers(4, vocabulary, side.sum()) for side in lengths)
    offsets = [np.cumsum([0, *side]) for side in lengths]
    return TokenizedCorpus(source_ids, offsets[0], target_ids, offsets[1], 1.0)


def random_batch(vocabulary: int, seed: int) -> Batch:
    """Return a batch of eight pairs."""
    return assemble([random_corpus(vocabulary, 8, seed)], [(0, pair) for pair in range(8)])
