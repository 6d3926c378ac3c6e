"""Gold alignments as they come in files, and what is measured against them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.alignment import Pair
from bundle.errors import InvalidGold
from bundle.gold import GoldPair, diagonal_quality, gold_matrix, quality, read_gold, uniform_quality
from bundle.tokenizer import Piece, Span, TokenizedText

Write = Callable[..., Path]

HOUSE = GoldPair(
    ("the", "small", "house"),
    ("la", "petite", "maison", "!"),
    sure=frozenset({(0, 0), (2, 2)}),
    possible=frozenset({(0, 0), (2, 2), (1, 1), (1, 2)}),
)
OH = GoldPair(("oh", "!"), ("oh",), sure=frozenset({(0, 0)}), possible=frozenset({(0, 0), (0, 1)}))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, *lines: str) -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
        return path

    return write


def test_a_table_holds_texts_and_links(write: Write) -> None:
    file = write(
        "gold.tsv", "the small house\tla petite maison !\t0-0 2-2\t1-1 2-1", "oh  ! \toh\t0-0\t1-0\r", "a\tb c\t0-1"
    )
    assert read_gold([file]) == (HOUSE, OH, GoldPair(("a",), ("b", "c"), *2 * [frozenset({(1, 0)})]))


def test_joined_texts_and_links_from_one(write: Write) -> None:
    files = [
        write("texts", "the small house   ||| la petite maison !  ", "oh !||| oh"),
        write("links", "3-3 1-1 2p2 3p2", "1-1 2?1"),
    ]
    assert read_gold(files, first_index=1) == (HOUSE, OH)


def test_three_files_with_links_marked_at_their_ends(write: Write) -> None:
    files = [write("s", "the small house", "oh !"), write("t", "la petite maison !", "oh")]
    assert read_gold([*files, write("links", "0-0 2-2 1-1-P 2-1-P", "0-0-S 1-0-P")]) == (HOUSE, OH)


def test_the_naacl_format_numbers_sentences_and_drops_links_with_the_empty_word(write: Write) -> None:
    files = [
        write("s", "<s snum=1001> the small house </s>", "<s snum=1002> oh !  </s> "),
        write("t", "<s snum=1001> la petite maison ! </s>", "<s snum=1002> oh </s>"),
        write("wa", "1001 1 1 S", "1002 2 1 P 0.5", "1001 0 4 P", "1001 3 3", "1001 2 2 P", "1001 3 2 P", "1002 1 1 S"),
    ]
    assert read_gold(files, first_index=1) == (HOUSE, OH)


def test_a_sentence_may_have_no_link_and_be_left_out_of_the_naacl_format(write: Write) -> None:
    texts = write("texts", "a ||| b", "c ||| d")
    none: frozenset[Pair] = frozenset()
    for links in (write("links", "", "0-0"), write("wa", "2 0 0 S")):
        first, second = read_gold([texts, links])
        assert first == GoldPair(("a",), ("b",), none, none) and second.sure == {(0, 0)}


def test_only_spaces_separate_words_and_only_line_feeds_end_lines(write: Write) -> None:
    [pair] = read_gold([write("gold.tsv", "\ufeffa\u00a0b\u2028c d\u3000\tx\u0085\t1-0")])
    assert pair.source == ("a\u00a0b\u2028c", "d\u3000") and pair.target == ("x\u0085",)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (["a\tb\t0-0\nc\td\n"], r"0, line 2: it has 2 columns, not 3 or 4"),
        (["a\tb\t0-0\nc\td\t0:0\n"], r"0, line 2: '0:0' is no alignment link"),
        (["a\t \t0-0\n"], r"0, line 1: a text is empty"),
        (["a ||| b\nc || d\n", "0-0\n0-0\n"], r"0, line 2: it is not a source and a target with \|\|\| between"),
        (["a ||| b\nc ||| d\n", "0-0\n"], r"1 has 1 lines for 2 sentence pairs"),
        (["a\nb\n", "c\n", "0-0\n"], r"0 has 2 sentences and .*1 has 1"),
        (["a\n", "c\n", "1 0 0 X\n"], r"2, line 1: '1 0 0 X' is no link; write sentence, source index"),
        (["a\n", "c\n", "1 0 0 S\n7 0 0 S\n"], r"2, line 2: there is no sentence 7"),
        (["a\tb\t0-0\n"] * 4, r"4 files of gold alignments are given; a set is one, two or three"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path: Path, contents: list[str], message: str) -> None:
    files = [tmp_path / str(number) for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidGold, match=message):
        read_gold(files)


def test_a_file_that_is_missing_or_not_utf_8_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidGold, match="nowhere.tsv: No such file"):
        read_gold([tmp_path / "nowhere.tsv"])
    (tmp_path / "gold.tsv").write_bytes(b"a\tb\t0-0\n\xff\tb\t0-0\n")
    with pytest.raises(InvalidGold, match="line 2: it is not UTF-8"):
        read_gold([tmp_path / "gold.tsv"])


def test_counting_from_the_wrong_index_is_noticed_either_way(write: Write) -> None:
    texts = [write("s", "a b c", "d e"), write("t", "u v w", "x y")]
    from_one, from_zero = write("one", "1-1 3-3", "1-1 2-2"), write("zero", "0-0 2-2", "0-0 1-1")
    assert read_gold([*texts, from_one], 1) == read_gold([*texts, from_zero])
    with pytest.raises(InvalidGold, match="in 2 of 2 .* seems to count words from 1, not from 0"):
        read_gold([*texts, from_one])
    with pytest.raises(InvalidGold, match="zero, line 1: '0-0' holds an index below 1"):
        read_gold([*texts, from_zero], 1)
    with pytest.raises(InvalidGold, match="wa, line 2: both indices are 0, so words do not count from 1"):
        read_gold([*texts, write("wa", "1 1 1 S", "1 0 0 S")], 1)


def test_a_stray_link_is_kept_and_can_never_be_found(write: Write) -> None:
    pairs = read_gold([write("gold.tsv", *["a\tb\t0-0"] * 19, "a\tb\t0-0 5-0")])
    assert [pair.misplaced for pair in pairs] == [0] * 19 + [1]
    assert quality([pair.sure for pair in pairs], pairs).recall == 1
    assert quality([{(0, 0)}] * 20, pairs).recall == pytest.approx(20 / 21)
    assert uniform_quality(pairs).recall == pytest.approx(20 / 21)


def text_in_pieces(words: list[list[str]]) -> TokenizedText:
    """The words with a space between them; each piece but the first of a word follows the one before."""
    pieces, place = [], 0
    for word in words:
        for piece in word:
            span = Span(0, 0, place, place + len(piece), 0, 0)
            pieces.append(Piece(5, piece, piece, span, None, not piece))
            place += len(piece)
        place += 1
    return TokenizedText.of(" ".join("".join(word) for word in words), tuple(pieces), ())


words = st.lists(st.lists(st.sampled_from(["a", "bc", "é😀"]), min_size=1, max_size=3), min_size=1, max_size=5)


@given(words, words, st.integers(0, 999))
@settings(deadline=None)
def test_weights_of_gold_words_sum_over_source_pieces_and_average_over_target_pieces(
    source: list[list[str]], target: list[list[str]], seed: int
) -> None:
    texts = text_in_pieces(target), text_in_pieces(source)
    weights = np.random.default_rng(seed).random([len(text.pieces) + 1 for text in texts])
    gold_source, gold_target = (tuple("".join(word) for word in side) for side in (source, target))
    pair = GoldPair(gold_source, gold_target, frozenset(), frozenset())
    matrix = gold_matrix(weights, *texts, pair)
    row = 0
    for t, target_word in enumerate(target):
        column = 0
        for s, source_word in enumerate(source):
            block = weights[row : row + len(target_word), column : column + len(source_word)]
            assert matrix[t, s] == pytest.approx(block.sum(axis=1).mean())
            column += len(source_word)
        row += len(target_word)


def test_a_gold_word_in_which_no_piece_ends_is_linked_to_nothing() -> None:
    text = text_in_pieces([["a"], ["b"]])
    joined = TokenizedText.of("a b", (Piece(1, "a b", "a b", Span(0, 3, 0, 3, 0, 3), None, False),), ())
    pair = GoldPair(("a", "b"), ("a", "b"), frozenset(), frozenset())
    np.testing.assert_array_equal(
        gold_matrix(np.array([[0.75, 0.25, 0.0]]), joined, text, pair), [[0.0, 0.0, 1.0], [0.75, 0.25, 0.0]]
    )
    np.testing.assert_array_equal(gold_matrix(np.array([[1.0, 0.0]] * 2), text, joined, pair), [[0, 1, 0]] * 2)


def test_the_diagonal_goes_from_corner_to_corner() -> None:
    none: frozenset[Pair] = frozenset()
    for sources, targets, expected in (
        (3, 3, {(0, 0), (1, 1), (2, 2)}),
        (4, 2, {(0, 0), (1, 2)}),
        (1, 3, {(0, 0), (1, 0), (2, 0)}),
    ):
        pair = GoldPair(("s",) * sources, ("t",) * targets, frozenset(expected), none)
        assert diagonal_quality([pair]).alignment_error_rate == 0


def test_the_uniform_baseline_is_the_mean_over_all_ways_to_link() -> None:
    pair = GoldPair(("a", "b", "c"), ("x", "y"), frozenset({(0, 0)}), frozenset({(0, 0), (1, 1), (1, 2)}))
    everything = [quality([{(0, first), (1, second)}], [pair]) for first in range(3) for second in range(3)]
    expected = uniform_quality([pair])
    for name in ("alignment_error_rate", "precision", "recall", "links"):
        assert getattr(expected, name) == pytest.approx(np.mean([getattr(one, name) for one in everything]))


def twin_error_rate(file: Path, answers: list[set[Pair]]) -> float:
    """1 - (|A & S| + |A & P|) / (|A| + |S|) of a table, knowing nothing of our reader."""
    hits = size = 0
    for line, answer in zip(file.read_text(encoding="utf-8").split("\n"), answers, strict=False):
        links = [{tuple(map(int, link.split("-"))) for link in column.split()} for column in line.split("\t")[2:]]
        turned = {(source, target) for target, source in answer}
        hits += sum(link in links[0] for link in turned) + sum(link in links[0] | links[1] for link in turned)
        size += len(turned) + len(links[0])
    return 1 - hits / size


@given(st.integers(0, 999))
@settings(deadline=None)
def test_the_error_rate_is_that_of_an_independent_count(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    random = np.random.default_rng(seed)

    def some(count: int) -> set[tuple[int, int]]:
        return {(int(a), int(b)) for a, b in random.integers(0, 6, (count, 2))}

    file = tmp_path_factory.getbasetemp() / "random.tsv"
    lines = []
    for _ in range(5):
        columns = [" ".join(f"{a}-{b}" for a, b in some(size)) for size in (4, 6)]
        lines.append("\t".join(["a b c d e f", "u v w x y z", *columns]))
    file.write_text("\n".join(lines), encoding="utf-8")
    answers = [some(6) for _ in lines]
    assert quality(answers, read_gold([file])).alignment_error_rate == pytest.approx(twin_error_rate(file, answers))
