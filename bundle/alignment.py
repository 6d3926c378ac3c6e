"""What a person sees of attention: words instead of pieces, links instead of weights, and how right the links are.

Axes: rows are target, columns are source. A pair is ``(target_index, source_index)`` everywhere but in Pharaoh text,
which by convention is ``source-target``.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from bundle.symmetrization import Pair as Pair
from bundle.symmetrization import symmetrized
from bundle.tokenizer import TokenizedText

_PHARAOH = re.compile(r"(\d+)([-?p])(\d+)(-[SP])?")


CONFIDENT = 0.5  # least weight of a link drawn by threshold, unless another is asked for: more likely than not


class Link(NamedTuple):
    """One target word aligned with one source word."""

    target_index: int
    source_index: int
    weight: float

    @property
    def pair(self) -> Pair:
        """The link without its weight."""
        return self.target_index, self.source_index


@dataclass(frozen=True)
class AlignmentQuality:
    """Alignment error rate of a corpus and what it is made of.

    Attributes:
        alignment_error_rate: ``1 - (|A & S| + |A & P|) / (|A| + |S|)``, 0 is perfect; 0 when there is nothing to align.
        precision: ``|A & P| / |A|``; 1 without links.
        recall: ``|A & S| / |S|``; 1 without sure pairs.
        links: ``|A|``.
    """

    alignment_error_rate: float
    precision: float
    recall: float
    links: int

    @classmethod
    def counted(cls, links: int, sure: int, in_sure: float, in_possible: float) -> "AlignmentQuality":
        """Return the quality of ``links`` links of which so many are in the ``sure`` pairs and in the possible ones."""
        return cls(
            alignment_error_rate=1 - (in_sure + in_possible) / (links + sure) if links + sure else 0.0,
            precision=in_possible / links if links else 1.0,
            recall=in_sure / sure if sure else 1.0,
            links=links,
        )


def shifted(weights: Float[np.ndarray, "target source"], shift: int) -> Float[np.ndarray, "target source"]:
    """Return the matrix whose row s is row ``s + shift``; the last row stands in for those past the end.

    A token is aligned by the row at which it is emitted (shift 0) or by one after the decoder has read it: which of the
    two aligns better depends on the architecture, so the manifest says it.
    """
    rows = np.minimum(np.maximum(np.arange(len(weights)) + shift, 0), max(len(weights) - 1, 0))
    return weights[rows]


def posterior(
    weights: Float[np.ndarray, "target source"], emission_scores: Float[np.ndarray, "target source"]
) -> Float[np.ndarray, "target source"]:
    """Return attention weights as they would be, had the emitted token been known: each row sums to 1.

    ``p(source | token) ~ weight(source) p(token | source)``, where the last is the probability of the token had the
    step attended to that position alone; it is taken to be in proportion to the exponential of its logit.

    Args:
        weights: Row s is the attention behind token s.
        emission_scores: Row s holds the logits of token s - 1, one a source position. So the last token has none, and
            its row is that of ``weights``.

    Source: Shankar and Sarawagi 2019, "Posterior Attention Models for Sequence to Sequence Learning".
    """
    found = weights.copy()
    with np.errstate(divide="ignore"):  # a weight of 0 stays 0
        joint = np.log(weights[:-1]) + emission_scores[1:]
    odds = np.exp(joint - joint.max(axis=1, keepdims=True))
    found[:-1] = odds / odds.sum(axis=1, keepdims=True)
    return found


def word_matrix(
    weights: Float[np.ndarray, "target_piece source_piece"], target: TokenizedText, source: TokenizedText
) -> Float64[np.ndarray, "target_word source_word"]:
    """Return word-level weights: summed over a word's source pieces, averaged over its target pieces.

    The last column is end of sentence and whatever belongs to no word, so rows sum to what they did. The last row is
    end of sentence when ``weights`` has a row for it, as it has unless the target was cut. A target word without a
    piece (``bundle.tokenizer.with_words``) has all its weight in the last column.

    Raises:
        ValueError: ``weights`` fits the texts neither with nor without a row for end of sentence.
    """
    return word_matrices([weights], target, source)[0]


def word_matrices(
    several: Sequence[Float[np.ndarray, "target_piece source_piece"]], target: TokenizedText, source: TokenizedText
) -> list[Float64[np.ndarray, "target_word source_word"]]:
    """Return ``word_matrix`` of several weights of one shape, between the same two texts.

    Raises:
        ValueError: As ``word_matrix``.
    """
    rows, columns = several[0].shape
    if rows - len(target.pieces) not in (0, 1) or columns != len(source.pieces) + 1:
        raise ValueError(
            f"weights are {rows} x {columns}; the texts have {len(target.pieces)} and {len(source.pieces)} pieces, "
            "and end of sentence takes a last column and may take a last row"
        )
    end_row = rows - len(target.pieces)
    by_source = np.zeros((columns, len(source.words) + 1))
    by_source[:, -1] = 1.0
    pieces, words = _members(source)
    by_source[pieces, words] = 1.0
    by_source[pieces, -1] = 0.0
    by_target = np.zeros((len(target.words) + end_row, rows))
    pieces, words = _members(target)
    by_target[words, pieces] = [1.0 / len(target.words[word].piece_indices) for word in words]
    if end_row:
        by_target[-1, -1] = 1.0
    matrices = [by_target @ weights.astype(np.float64) @ by_source for weights in several]
    without_piece = [index for index, word in enumerate(target.words) if not word.piece_indices]
    for matrix in matrices:
        matrix[without_piece, -1] = 1.0
    return matrices


def links(
    matrix: Float[np.ndarray, "target_word source_word"], target_words: int, threshold: float | None = None
) -> tuple[Link, ...]:
    """Return the links of the first ``target_words`` rows of a word matrix, whose last column is end of sentence.

    Without a threshold each row links to its largest weight (the first of equals), or to nothing if that is end of
    sentence. With one, each row links to every word of at least that weight.
    """
    words = matrix[:target_words]
    if threshold is None:
        best = words.argmax(axis=1) if words.size else np.zeros(0, dtype=np.int64)
        chosen = [(row, int(column)) for row, column in enumerate(best) if column < matrix.shape[1] - 1]
    else:
        rows, columns = np.nonzero(words[:, :-1] >= threshold)
        chosen = list(zip(rows.tolist(), columns.tolist(), strict=True))
    return tuple(Link(row, column, float(words[row, column])) for row, column in chosen)


def links_both_ways(
    matrix: Float[np.ndarray, "target_word source_word"],
    reverse: Float[np.ndarray, "source_word target_word"],
    method: str,
) -> tuple[Link, ...]:
    """Return the links that ``method`` makes of the largest weights in both directions.

    Args:
        matrix: Word weights of the model, its last column end of sentence.
        reverse: Those of a model of the reverse direction between the same words.
        method: A key of ``bundle.symmetrization.RULES``.

    Returns:
        Links in order, with their weight in ``matrix``.
    """
    targets, sources = reverse.shape[1] - 1, matrix.shape[1] - 1
    forward = [link.pair for link in links(matrix, targets)]
    backward = [(link.source_index, link.target_index) for link in links(reverse, sources)]
    return tuple(Link(*pair, float(matrix[pair])) for pair in symmetrized(forward, backward, method))


def unaligned(links: Collection[Link | Pair], target_words: int, source_words: int) -> tuple[list[int], list[int]]:
    """Return the target and the source words without a link, by index.

    Example:
        >>> unaligned([(0, 2)], 2, 3)
        ([1], [0, 1])
    """
    targets, sources = ({link[side] for link in links} for side in (0, 1))
    return sorted(set(range(target_words)) - targets), sorted(set(range(source_words)) - sources)


def write_pharaoh(links: Iterable[Link | Pair]) -> str:
    """Return links or pairs as ``source-target`` in the order of the source.

    Example:
        >>> write_pharaoh([(0, 1), (1, 0)])
        '0-1 1-0'
    """
    ordered = sorted((link[1], link[0]) for link in links)
    return " ".join(f"{source}-{target}" for source, target in ordered)


def read_pharaoh(line: str, first_index: int = 0) -> tuple[frozenset[Pair], frozenset[Pair]]:
    """Return the sure and the possible pairs of one line; every sure pair is possible too.

    Args:
        line: ``i-j`` or ``i-j-S`` for sure pairs, ``i?j``, ``ipj`` or ``i-j-P`` for possible ones; i the source and j
            the target.
        first_index: 1 for gold files that count words from 1.

    Raises:
        ValueError: A part of the line is no pair, or an index is below ``first_index``.
    """
    sure, possible = set(), set()
    for part in line.split():
        match = _PHARAOH.fullmatch(part)
        if not match:
            raise ValueError(f"{part!r} is no alignment link; write i-j for a sure one, i?j or ipj for a possible one")
        pair = (int(match[3]) - first_index, int(match[1]) - first_index)
        if min(pair) < 0:
            raise ValueError(f"{part!r} holds an index below {first_index}, where counting starts")
        possible.add(pair)
        if match[2] == "-" and match[4] != "-P":
            sure.add(pair)
    return frozenset(sure), frozenset(possible)


def alignment_quality(
    hypotheses: Sequence[Iterable[Pair]], sure: Sequence[Iterable[Pair]], possible: Sequence[Iterable[Pair]]
) -> AlignmentQuality:
    """Return the error rate of ``hypotheses`` counted over a whole corpus, one set of pairs a sentence.

    Sure pairs count as possible whether or not ``possible`` repeats them.

    Raises:
        ValueError: The three have different numbers of sentences.

    Source: Och and Ney 2003, "A Systematic Comparison of Various Statistical Alignment Models", section 5.1.
    """
    found = in_possible = in_sure = gold = 0
    for links_here, sure_here, possible_here in zip(hypotheses, sure, possible, strict=True):
        answer, certain = set(links_here), set(sure_here)
        found += len(answer)
        gold += len(certain)
        in_sure += len(answer & certain)
        in_possible += len(answer & (certain | set(possible_here)))
    return AlignmentQuality.counted(found, gold, in_sure, in_possible)


def _members(text: TokenizedText) -> tuple[list[int], list[int]]:
    """Return the pieces that belong to words, and the word of each."""
    pairs = [(piece, index) for index, word in enumerate(text.words) for piece in word.piece_indices]
    return [piece for piece, _ in pairs], [word for _, word in pairs]
