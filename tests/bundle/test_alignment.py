"""From pieces to words, from weights to links, and the error rate against gold links."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.alignment import (
    Link,
    Pair,
    alignment_quality,
    links,
    links_both_ways,
    posterior,
    read_pharaoh,
    shifted,
    unaligned,
    word_matrix,
    write_pharaoh,
)
from bundle.tokenizer import Piece, Span, TokenizedText, Word

NOWHERE = Span(0, 0, 0, 0, 0, 0)


def text_of(groups: list[int], wordless: tuple[int, ...] = ()) -> TokenizedText:
    """A text whose words have the given numbers of pieces; ``wordless`` pieces come after them."""
    homes: list[int | None] = [word for word, size in enumerate(groups) for _ in range(size)]
    homes += [None for _ in wordless]
    pieces = tuple(Piece(5, "x", "", NOWHERE, home, home is None) for home in homes)
    held = [tuple(i for i, home in enumerate(homes) if home == word) for word in range(len(groups))]
    return TokenizedText.of("", pieces, tuple(Word("w", NOWHERE, indices) for indices in held))


def random_weights(seed: int, rows: int, columns: int) -> np.ndarray:
    weights = np.random.default_rng(seed).exponential(size=(rows, columns))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


sizes = st.lists(st.integers(1, 3), max_size=4)


@given(st.integers(0, 999), sizes, sizes, st.booleans(), st.integers(0, 2))
@settings(deadline=None)
def test_words_sum_source_pieces_and_average_target_pieces(
    seed: int, target_groups: list[int], source_groups: list[int], finished: bool, wordless: int
) -> None:
    target, source = text_of(target_groups), text_of(source_groups, tuple(range(wordless)))
    weights = random_weights(seed, sum(target_groups) + finished, len(source.pieces) + 1)
    matrix = word_matrix(weights, target, source)
    assert matrix.shape == (len(target_groups) + finished, len(source_groups) + 1)
    for t, target_word in enumerate(target.words):
        for s, source_word in enumerate(source.words):
            block = weights[np.ix_(target_word.piece_indices, source_word.piece_indices)]
            assert matrix[t, s] == pytest.approx(block.sum(axis=1).mean())
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    if finished:
        assert matrix[-1, -1] == pytest.approx(weights[-1, sum(source_groups) :].sum())


def test_weights_of_other_texts_are_refused() -> None:
    for shape in ((5, 3), (2, 3), (3, 2), (3, 4)):
        with pytest.raises(ValueError, match="may take a last row"):
            word_matrix(np.zeros(shape), text_of([3]), text_of([1, 1]))


def test_each_row_links_to_its_largest_weight_unless_that_is_end_of_sentence() -> None:
    matrix = np.array([[0.1, 0.7, 0.2], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2], [1.0, 0.0, 0.0]])
    assert links(matrix, target_words=3) == (Link(0, 1, 0.7), Link(2, 0, 0.4))


def test_a_threshold_links_every_word_above_it() -> None:
    matrix = np.array([[0.3, 0.7, 0.0], [0.2, 0.2, 0.6]])
    assert [link.pair for link in links(matrix, 2, threshold=0.3)] == [(0, 0), (0, 1)]


def test_a_text_without_words_has_no_links() -> None:
    assert links(np.ones((1, 1)), target_words=0) == ()
    assert links(np.ones((2, 1)), target_words=1) == ()


@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 5))
@settings(deadline=None)
def test_both_directions_link_words_by_the_largest_weights_of_either(seed: int, targets: int, sources: int) -> None:
    matrix, reverse = random_weights(seed, targets + 1, sources + 1), random_weights(seed + 1, sources + 1, targets + 1)
    found = {link.pair: link.weight for link in links_both_ways(matrix, reverse, "union")}
    forward = {(row, int(best)) for row, best in enumerate(matrix[:targets].argmax(axis=1)) if best < sources}
    backward = {(int(best), row) for row, best in enumerate(reverse[:sources].argmax(axis=1)) if best < targets}
    assert found == {pair: matrix[pair] for pair in forward | backward}
    both = [link.pair for link in links_both_ways(matrix, reverse, "intersection")]
    assert both == sorted(forward & backward)
    free = unaligned(both, targets, sources)
    assert all(target not in free[0] and source not in free[1] for target, source in both)
    assert len(free[0]) + len({target for target, _ in both}) == targets
    assert len(free[1]) + len({source for _, source in both}) == sources


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 6), st.sampled_from([1.0, 20.0, 300.0]))
@settings(deadline=None)
def test_the_posterior_is_bayes_rule_on_all_rows_but_the_last(
    seed: int, targets: int, sources: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    weights = random_weights(seed, targets, sources).astype(np.float32)
    if sources > 1:
        weights[:, 0] = 0  # masked: it must stay so, whatever would have followed from it
    emission = (random.standard_normal((targets, sources)) * scale).astype(np.float32)
    found = posterior(weights, emission)
    assert found.dtype == np.float32 and found.shape == weights.shape
    np.testing.assert_array_equal(found[-1], weights[-1])
    assert (found[weights == 0] == 0).all()
    for row in range(targets - 1):
        joint = [
            Decimal(float(w)) * Decimal(float(e)).exp() for w, e in zip(weights[row], emission[row + 1], strict=True)
        ]
        np.testing.assert_allclose(found[row], np.array([float(value / sum(joint)) for value in joint]), atol=1e-5)


def test_a_position_that_explains_every_token_alike_leaves_attention_alone() -> None:
    weights = random_weights(1, 4, 3)
    np.testing.assert_allclose(posterior(weights, np.full((4, 3), -7.0)), weights)


def test_a_shift_reads_later_rows_and_repeats_the_last() -> None:
    weights = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(shifted(weights, 0), weights)
    np.testing.assert_array_equal(shifted(weights, 1), weights[[1, 2, 2]])
    np.testing.assert_array_equal(shifted(weights, 5), weights[[2, 2, 2]])
    assert shifted(np.zeros((0, 4)), 1).shape == (0, 4)


@given(st.sets(st.tuples(st.integers(0, 30), st.integers(0, 30))))
@settings(deadline=None)
def test_pharaoh_text_comes_back(pairs: set[Pair]) -> None:
    sure, possible = read_pharaoh(write_pharaoh(pairs))
    assert sure == possible == pairs
    assert write_pharaoh(Link(t, s, 0.5) for t, s in pairs) == write_pharaoh(pairs)


def test_pharaoh_text_puts_the_source_first_and_marks_the_possible() -> None:
    assert write_pharaoh([(5, 2), (0, 1)]) == "1-0 2-5"
    assert read_pharaoh("0-1-P 2-3-S") == (frozenset({(3, 2)}), frozenset({(1, 0), (3, 2)}))
    assert read_pharaoh("1-2 3?4 5p6", first_index=1) == (frozenset({(1, 0)}), frozenset({(1, 0), (3, 2), (5, 4)}))
    with pytest.raises(ValueError, match="'1:2' is no alignment link"):
        read_pharaoh("0-0 1:2")
    with pytest.raises(ValueError, match="below 1, where counting starts"):
        read_pharaoh("0-1", first_index=1)


def test_the_error_rate_is_that_of_a_hand_computed_corpus() -> None:
    """A: 3 links, 2 sure hits, 3 possible hits, 3 sure: 1 - (2 + 3) / (3 + 3)."""
    found = alignment_quality([[(0, 0), (1, 1)], [(0, 1)]], sure=[[(0, 0)], [(0, 1), (1, 1)]], possible=[[(1, 1)], []])
    assert found.alignment_error_rate == pytest.approx(1 / 6)
    assert found.precision == 1 and found.recall == pytest.approx(2 / 3) and found.links == 3


def test_the_corpus_is_pooled_not_averaged_over_sentences() -> None:
    hypotheses: list[list[Pair]] = [[(0, 0)], [(i, 9) for i in range(9)]]
    sure: list[list[Pair]] = [[(0, 0)], [(i, i) for i in range(9)]]
    found = alignment_quality(hypotheses, sure, [[], []])
    assert found.alignment_error_rate == pytest.approx(1 - 2 / 20)


def test_a_target_word_without_a_piece_has_its_weight_on_nothing() -> None:
    nobody = Word("w", NOWHERE, ())
    target = text_of([1])
    target = TokenizedText.of("", target.pieces, (nobody, *target.words))
    source = text_of([1])
    source = TokenizedText.of("", source.pieces, (*source.words, nobody))
    matrix = word_matrix(np.array([[0.9, 0.1], [0.3, 0.7]]), target, source)
    np.testing.assert_allclose(matrix, np.array([[0, 0, 1], [0.9, 0, 0.1], [0.3, 0, 0.7]]))
    assert [link.pair for link in links(matrix, 2)] == [(1, 0)]


def test_perfect_and_empty_alignments_have_no_error() -> None:
    pairs = [[(0, 0), (1, 2)]]
    assert alignment_quality(pairs, pairs, pairs).alignment_error_rate == 0
    empty = alignment_quality([[]], [[]], [[]])
    assert (empty.alignment_error_rate, empty.precision, empty.recall, empty.links) == (0, 1, 1, 0)
    with pytest.raises(ValueError, match="zip"):
        alignment_quality(pairs, [], pairs)
