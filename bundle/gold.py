"""Gold alignments: reading the files they come in, and comparing links with them.

Gold words are the tokens of the files, which spaces separate; they need not be the words of ``bundle.tokenizer``. Pairs
are ``(target_index, source_index)``, from 0.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from bundle.alignment import AlignmentQuality, Pair, alignment_quality, read_pharaoh, word_matrix
from bundle.errors import InvalidGold
from bundle.tokenizer import TokenizedText, with_words

_NUMBERED = re.compile(r"<s snum=(\d+)>(.*)</s>\s*")
_ONE_LINK = re.compile(r"\s*(\d+)\s+(\d+)\s+(\d+)(?:\s+([SP])?(?:\s+[\d.]+)?)?\s*")  # the last: a confidence
_MOST_MISPLACED = 0.1  # of the pairs: gold files have stray links, but those that count from 1 have one in nearly all

_Pairs = frozenset[Pair]


@dataclass(frozen=True)
class GoldPair:
    """One sentence pair that a person has aligned.

    Attributes:
        source: Its words.
        target: Its words.
        sure: Pairs that a good alignment must have.
        possible: Pairs that it may have, the sure ones among them.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    sure: frozenset[Pair]
    possible: frozenset[Pair]

    @property
    def source_text(self) -> str:
        """The words of the source with a space between them."""
        return " ".join(self.source)

    @property
    def target_text(self) -> str:
        """The words of the target with a space between them."""
        return " ".join(self.target)

    @property
    def misplaced(self) -> int:
        """The number of pairs that name a word past the end of a sentence: nobody can find those."""
        return sum(target >= len(self.target) or source >= len(self.source) for target, source in self.possible)


def read_gold(files: Sequence[Path], first_index: int = 0) -> tuple[GoldPair, ...]:
    """Return the sentence pairs of one file, two or three, in UTF-8.

    * One: source, target, sure links and, if any, possible links, separated by tabs.
    * Two: ``source ||| target``, then the links.
    * Three: source, target, then the links.

    A file of links has a line a sentence pair, as ``bundle.alignment.read_pharaoh`` reads it. Or it is one of NAACL
    2003, with a line a link: sentence number, source index, target index, then S (sure; also when left out) or P
    (possible). Sentences are numbered from 1, or by ``<s snum=...>`` around each. Links with the empty word, which are
    those with index 0 where words count from 1, are left out.

    Args:
        files: In that order.
        first_index: Where the files start to count words, 0 or 1.

    Raises:
        InvalidGold: A file cannot be read, or words seem to be counted from elsewhere.
    """
    if not 1 <= len(files) <= 3:
        raise InvalidGold(f"{len(files)} files of gold alignments are given; a set is one, two or three")
    read = (_read_table, _read_joined, _read_apart)[len(files) - 1]
    pairs = tuple(read(files, first_index))
    misplaced = sum(pair.misplaced > 0 for pair in pairs)
    if misplaced > _MOST_MISPLACED * len(pairs):
        raise InvalidGold(
            f"{files[-1]}: in {misplaced} of {len(pairs)} sentence pairs a link names a word past the end; the file "
            f"seems to count words from {1 - first_index}, not from {first_index}"
        )
    return pairs


def gold_matrix(
    weights: Float[np.ndarray, "target_piece source_piece"],
    target: TokenizedText,
    source: TokenizedText,
    pair: GoldPair,
) -> Float64[np.ndarray, "target_word source_word"]:
    """Return ``word_matrix`` for the words of ``pair``, whose texts ``target`` and ``source`` are."""
    return word_matrix(
        weights, with_words(target, _stretches(pair.target)), with_words(source, _stretches(pair.source))
    )


def quality(answers: Sequence[Iterable[Pair]], gold: Sequence[GoldPair]) -> AlignmentQuality:
    """Return the error rate of ``answers``, one set of pairs for each of ``gold``."""
    return alignment_quality(answers, [pair.sure for pair in gold], [pair.possible for pair in gold])


def diagonal_quality(gold: Sequence[GoldPair]) -> AlignmentQuality:
    """Return the error rate of linking each target word to the source word at the same relative place."""
    return quality([_diagonal(len(pair.target), len(pair.source)) for pair in gold], gold)


def uniform_quality(gold: Sequence[GoldPair]) -> AlignmentQuality:
    """Return the expected error rate of linking each target word to one source word, all equally likely."""
    in_sure, in_possible = (
        sum(len(_placed(links, pair)) / len(pair.source) for pair, links in zip(gold, chosen, strict=True))
        for chosen in ([pair.sure for pair in gold], [pair.possible for pair in gold])
    )
    links, sure = sum(len(pair.target) for pair in gold), sum(len(pair.sure) for pair in gold)
    return AlignmentQuality.counted(links, sure, in_sure, in_possible)


def _placed(links: Iterable[Pair], pair: GoldPair) -> list[Pair]:
    """Return the links between words that are there."""
    return [link for link in links if link[0] < len(pair.target) and link[1] < len(pair.source)]


def _diagonal(targets: int, sources: int) -> set[Pair]:
    return {(target, min(sources - 1, round((target + 0.5) * sources / targets - 0.5))) for target in range(targets)}


def _stretches(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return where words stand, in code points, when there is a space between them."""
    ends = list(accumulate(len(word) + 1 for word in words))
    return [(end - 1 - len(word), end - 1) for end, word in zip(ends, words, strict=True)]


# ------------------------------------------------------------------------------------------------------- reading


def _read_table(files: Sequence[Path], first_index: int) -> Iterator[GoldPair]:
    for number, line in enumerate(_lines(files[0]), 1):
        columns = line.split("\t")
        if len(columns) not in (3, 4):
            raise _fault(files[0], number, f"it has {len(columns)} columns, not 3 or 4 separated by tabs")
        links = [_read_links(files[0], number, column, first_index) for column in columns[2:]]
        sure, possible = links[0][0], frozenset().union(*(found for _, found in links))
        source, target = (_words(files[0], number, text) for text in columns[:2])
        yield GoldPair(source, target, sure, possible)


def _read_joined(files: Sequence[Path], first_index: int) -> Iterator[GoldPair]:
    texts = _lines(files[0])
    linked = _links_of_lines(files[1], range(1, len(texts) + 1), first_index)
    for number, (line, (sure, possible)) in enumerate(zip(texts, linked, strict=True), 1):
        halves = line.split("|||")
        if len(halves) != 2:
            raise _fault(files[0], number, "it is not a source and a target with ||| between them")
        source, target = (_words(files[0], number, half) for half in halves)
        yield GoldPair(source, target, sure, possible)


def _read_apart(files: Sequence[Path], first_index: int) -> Iterator[GoldPair]:
    sources, targets = (_numbered(file) for file in files[:2])
    if sources.keys() != targets.keys():
        raise InvalidGold(f"{files[0]} has {len(sources)} sentences and {files[1]} has {len(targets)}, or others")
    linked = _links_of_lines(files[2], sources, first_index)
    for number, (sure, possible) in zip(sources, linked, strict=True):
        yield GoldPair(sources[number], targets[number], sure, possible)


def _numbered(file: Path) -> dict[int, tuple[str, ...]]:
    """Return the words of each sentence by its number."""
    found = {}
    for place, line in enumerate(_lines(file), 1):
        match = _NUMBERED.fullmatch(line)
        number, text = (int(match[1]), match[2]) if match else (place, line)
        found[number] = _words(file, place, text)
    return found


def _links_of_lines(file: Path, numbers: Collection[int], first_index: int) -> list[tuple[_Pairs, _Pairs]]:
    """Return the sure and the possible pairs of each of the sentences ``numbers``."""
    lines = _lines(file)
    first = next((line.split()[0] for line in lines if line.strip()), "")
    if first.isdecimal():
        return _links_one_a_line(file, lines, numbers, first_index)
    if len(lines) != len(numbers):
        raise InvalidGold(f"{file} has {len(lines)} lines for {len(numbers)} sentence pairs; it must have one for each")
    return [_read_links(file, number, line, first_index) for number, line in enumerate(lines, 1)]


def _links_one_a_line(
    file: Path, lines: Sequence[str], numbers: Collection[int], first_index: int
) -> list[tuple[_Pairs, _Pairs]]:
    """Return what ``_links_of_lines`` does, from lines of the format of NAACL 2003."""
    sure, possible = ({number: set[Pair]() for number in numbers} for _ in range(2))
    for place, line in enumerate(lines, 1):
        match = _ONE_LINK.fullmatch(line)
        if not match:
            raise _fault(file, place, f"{line!r} is no link; write sentence, source index, target index, and S or P")
        number, source, target = (int(field) for field in match.groups()[:3])
        if number not in possible:
            raise _fault(file, place, f"there is no sentence {number}")
        if source == target == 0 < first_index:
            raise _fault(file, place, "both indices are 0, so words do not count from 1")
        if min(source, target) >= first_index:
            pair = (target - first_index, source - first_index)
            possible[number].add(pair)
            if match[4] != "P":
                sure[number].add(pair)
    return [(frozenset(sure[number]), frozenset(possible[number])) for number in numbers]


def _read_links(file: Path, number: int, text: str, first_index: int) -> tuple[_Pairs, _Pairs]:
    try:
        return read_pharaoh(text, first_index)
    except ValueError as error:
        raise _fault(file, number, str(error)) from None


def _words(file: Path, number: int, text: str) -> tuple[str, ...]:
    words = tuple(word for word in text.split(" ") if word)
    if not words:
        raise _fault(file, number, "a text is empty")
    return words


def _lines(file: Path) -> list[str]:
    """Return the lines of a file without their ends: only a line feed ends one, a text may hold the others."""
    try:
        content = file.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise InvalidGold(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _fault(file, content[: error.start].count(b"\n") + 1, "it is not UTF-8") from None
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def _fault(file: Path, number: int, message: str) -> InvalidGold:
    return InvalidGold(f"{file}, line {number}: {message}")
