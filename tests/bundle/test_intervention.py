"""What is made of attention when it is interfered with, against the terms and the softmax it is defined by."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool

from bundle.decomposition import conditioning_tokens, nine_terms, softmax, split
from bundle.intervention import AttentionChange, ChangedAttention
from bundle.tables import ComponentTables, SideTables

VOCABULARY, KEY, BOS = 11, 8, 2

seeds = st.integers(0, 10_000)
sizes = st.integers(1, 9)


def tables(seed: int = 0) -> ComponentTables:
    random = np.random.default_rng(seed)

    def side() -> SideTables:
        return SideTables(
            temporal=random.normal(size=(7, KEY)).astype(np.float16),
            temporal_counts=np.full(7, 50, np.uint32),
            input_driven=random.normal(size=(VOCABULARY, KEY)).astype(np.float16),
            input_counts=np.full(VOCABULARY, 50, np.uint32),
            minimum_count=5,
        )

    return ComponentTables(side(), side(), "fit-1", "toy corpus", 50)


class Sentence:
    """Keys, queries and scores of one sentence pair, as a float32 runtime would report them."""

    def __init__(self, seed: int, target: int, source: int) -> None:
        self.random = np.random.default_rng(seed)
        self.queries = self.random.normal(size=(target, KEY)).astype(np.float32)
        self.keys = self.random.normal(size=(source, KEY)).astype(np.float32)
        self.scores = self.queries @ self.keys.T
        self.source_ids = self.random.integers(0, VOCABULARY, source).tolist()
        self.read = conditioning_tokens(self.random.integers(0, VOCABULARY, target).tolist(), 1, BOS)

    def some(self, *shape: int) -> Bool[np.ndarray, "..."]:
        return self.random.random(shape) < 0.5

    def some_columns(self) -> Bool[np.ndarray, "source"]:
        """Any but the last."""
        return self.some(len(self.keys)) & (np.arange(len(self.keys)) < len(self.keys) - 1)

    def weights(self, change: AttentionChange) -> list[np.ndarray | None]:
        """What becomes of each row, for a beam of one."""
        changed = ChangedAttention(change, self.keys, self.source_ids)
        rows = [slice(step, step + 1) for step in range(len(self.queries))]
        return [
            changed.weights(self.scores[row], self.queries[row], row.start, self.read[row].astype(np.int64))
            for row in rows
        ]


def nothing(*shape: int) -> Bool[np.ndarray, "..."]:
    return np.zeros(shape, bool)


@given(seeds, sizes, sizes)
@settings(max_examples=100, deadline=None)
def test_scores_without_some_terms_are_the_scores_minus_these_terms(seed: int, target: int, source: int) -> None:
    sentence = Sentence(seed, target, source)
    left_out, masked = sentence.some(3, 3), sentence.some_columns()
    left_out[0, 1] = True
    decoder = split(sentence.queries, sentence.read, tables().decoder)
    encoder = split(sentence.keys, np.array(sentence.source_ids), tables().encoder)
    scores = sentence.scores - nine_terms(decoder, encoder)[left_out].sum(axis=0)
    scores[:, masked] = -np.inf
    for row, weights in enumerate(sentence.weights(AttentionChange(left_out, masked, tables=tables()))):
        assert weights is not None
        np.testing.assert_allclose(weights[0], softmax(scores[row]), atol=1e-6)


@given(seeds, sizes, sizes)
@settings(max_examples=100, deadline=None)
def test_rows_sum_to_one_and_masked_tokens_get_nothing(seed: int, target: int, source: int) -> None:
    sentence = Sentence(seed, target, source)
    masked = sentence.some_columns()
    masked[0] = source > 1
    change = AttentionChange(sentence.some(3, 3), masked, tables=tables())
    for weights in sentence.weights(change):
        if weights is None:
            assert not change.left_out.any() and not masked.any()
            continue
        assert weights.dtype == np.float32
        assert weights.sum() == pytest.approx(1, abs=1e-6)
        assert (weights[:, masked] == 0).all() and (weights[:, ~masked] > 0).all()


@given(seeds, sizes, sizes)
@settings(max_examples=50, deadline=None)
def test_with_every_term_kept_scores_are_those_of_the_model_to_the_bit(seed: int, target: int, source: int) -> None:
    sentence = Sentence(seed, target, source + 1)
    assert sentence.weights(AttentionChange(nothing(3, 3), nothing(source + 1), tables=tables())) == [None] * target
    masked = nothing(source + 1)
    masked[0] = True
    for row, weights in enumerate(sentence.weights(AttentionChange(nothing(3, 3), masked, tables=tables()))):
        assert weights is not None
        expected = softmax(sentence.scores[row, 1:].astype(np.float64)).astype(np.float32)
        np.testing.assert_array_equal(weights[0, 1:], expected)


def test_a_row_that_is_given_stands_whatever_else_is_changed() -> None:
    sentence = Sentence(5, 3, 4)
    masked = np.array([True, True, False, False])
    own, every = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 0.25, 0.75, 0.0])
    change = AttentionChange(~nothing(3, 3), masked, {1: own}, every, tables())
    for weights, expected in zip(sentence.weights(change), (every, own, every), strict=True):
        assert weights is not None
        np.testing.assert_array_equal(weights[0], expected.astype(np.float32))
    first, second, third = sentence.weights(AttentionChange(nothing(3, 3), nothing(4), {1: own}))
    assert first is None and second is not None and third is None


def test_each_hypothesis_of_a_beam_is_changed_by_what_it_has_read() -> None:
    sentence = Sentence(8, 4, 6)
    change = AttentionChange(np.eye(3, dtype=bool), nothing(6), tables=tables())
    changed = ChangedAttention(change, sentence.keys, sentence.source_ids)
    token_ids = np.array([4, 9, 4, 0])
    together = changed.weights(sentence.scores, sentence.queries, 2, token_ids)
    assert together is not None
    for row in range(4):
        here = slice(row, row + 1)
        alone = changed.weights(sentence.scores[here], sentence.queries[here], 2, token_ids[here])
        assert alone is not None
        np.testing.assert_allclose(together[row], alone[0], atol=1e-7)
    assert len({row.tobytes() for row in together}) == 4


def test_a_change_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="leave at least the end of sentence"):
        AttentionChange(nothing(3, 3), ~nothing(4))
    with pytest.raises(ValueError, match="no component tables"):
        AttentionChange(np.eye(3, dtype=bool), nothing(4))
