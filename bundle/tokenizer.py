"""Text to pieces, ids and words and back, every one with its place in the text it came from.

Normalization is inside the SentencePiece model. SentencePiece reports offsets in UTF-8 bytes of the *original* text;
this module turns them into code points and UTF-16 units too, drops the white space SentencePiece counts to a piece, and
groups pieces into words. Documented cases: a character that normalizes to several pieces (the ligature U+FB01) gives
its whole span to the last of them and a zero-width span to the others; a removed character (soft hyphen) belongs to the
piece before it.
"""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import sentencepiece

from bundle.errors import InvalidBundle, InvalidText
from bundle.words import is_space, word_stretches


class Span(NamedTuple):
    """A half-open stretch of a text in three units: UTF-8 bytes, code points and UTF-16 code units."""

    start_byte: int
    end_byte: int
    start_code_point: int
    end_code_point: int
    start_utf16: int
    end_utf16: int


class Piece(NamedTuple):
    """One token of a text.

    Attributes:
        token_id: Its id in the vocabulary.
        piece: Its name in the vocabulary, with U+2581 for a space; for an unknown, the normalized characters.
        text: ``span`` of the text, without surrounding white space.
        span: Where it stands.
        word_index: The word it belongs to; None for white space alone.
        zero_width: It shares its characters with another piece, or is white space alone: ``text`` is empty.
    """

    token_id: int
    piece: str
    text: str
    span: Span
    word_index: int | None
    zero_width: bool


class Word(NamedTuple):
    """What a reader sees as one word: letters and digits, or punctuation; ``l'`` and ``homme`` are two."""

    text: str
    span: Span
    piece_indices: tuple[int, ...]


_Places: TypeAlias = tuple[tuple[Piece, ...], tuple[Word, ...]]


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """A text with its pieces and words, both in order; no end-of-sentence token among them.

    Where they stand is worked out when it is first asked for: it takes several times as long as the ids, and of a
    translation without alignment nobody asks.

    Attributes:
        text: The text.
        token_ids: The ids of the pieces.
    """

    text: str
    token_ids: list[int]
    _found: Sequence[Any] = field(repr=False)  # of ``_Found``, or what SentencePiece has of that form

    @classmethod
    def of(cls, text: str, pieces: tuple[Piece, ...], words: tuple[Word, ...]) -> "TokenizedText":
        """Return a text whose pieces and words are known."""
        found = [_Found(piece.token_id, piece.piece, piece.span.start_byte, piece.span.end_byte) for piece in pieces]
        tokenized = cls(text, [piece.token_id for piece in pieces], found)
        tokenized.__dict__["_places"] = pieces, words
        return tokenized

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces, with their places."""
        return self._places[0]

    @property
    def words(self) -> tuple[Word, ...]:
        """The words, with the pieces they are made of."""
        return self._places[1]

    @property
    def blank(self) -> bool:
        """Whether there are no words, told without looking for them."""
        utf8 = self.text.encode()
        return not any(_shows(utf8, piece) for piece in self._found)

    @cached_property
    def _places(self) -> _Places:
        return _placed(self.text, self._found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenizedText) and (self.text, self._places) == (other.text, other._places)


class Tokenizer:
    """A SentencePiece model: the one place where text and token ids meet.

    Attributes:
        vocabulary_size: Number of token ids.
        pad_id: Padding.
        unk_id: Unknown.
        bos_id: Beginning of sentence.
        eos_id: End of sentence.
    """

    def __init__(self, model_file: Path | bytes) -> None:
        """Load the model from a file, or from the content of one.

        Raises:
            InvalidBundle: It is no SentencePiece model.
        """
        content = model_file if isinstance(model_file, bytes) else model_file.read_bytes()
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            place = Path("tokenizer.model") if isinstance(model_file, bytes) else model_file
            raise InvalidBundle(place, ["it is not a SentencePiece model"]) from error
        self.vocabulary_size: int = self._model.vocab_size()
        self.pad_id: int = self._model.pad_id()
        self.unk_id: int = self._model.unk_id()
        self.bos_id: int = self._model.bos_id()
        self.eos_id: int = self._model.eos_id()
        self._is_control = cache(self._model.is_control)

    def encode(self, text: str) -> TokenizedText:
        """Return the pieces and words of ``text``, without end of sentence.

        Raises:
            InvalidText: ``text`` holds a lone surrogate or U+0000.
        """
        found = self._model.encode(_valid(text), return_type="proto").pieces
        return TokenizedText(text, [piece.id for piece in found], found)

    def encode_ids(self, text: str) -> list[int]:
        """Return the token ids of ``text`` alone.

        Raises:
            InvalidText: ``text`` holds a lone surrogate or U+0000.
        """
        return list(self._model.encode(_valid(text)))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of ``token_ids``; padding, beginning and end of sentence are silent, unknowns read U+2047."""
        return str(self._model.decode([int(token_id) for token_id in token_ids])).strip()

    def decode_with_spans(self, token_ids: Sequence[int]) -> TokenizedText:
        """Return the decoded text with one piece a token id, spans counted in that text.

        The silent ids (padding, beginning and end of sentence) are left out, so the pieces are those of the text only.
        """
        heard = [int(token_id) for token_id in token_ids if not self._is_control(int(token_id))]
        decoded = self._model.decode(heard, return_type="proto")
        return TokenizedText(decoded.text.strip(), heard, _stripped(decoded))

    def piece(self, token_id: int) -> str:
        """Return the vocabulary's own spelling of a token."""
        return str(self._model.id_to_piece(int(token_id)))

    def is_unknown(self, token_id: int) -> bool:
        """Return whether ``token_id`` stands for characters outside the vocabulary."""
        return bool(self._model.is_unknown(token_id))


def with_words(text: TokenizedText, stretches: Sequence[tuple[int, int]]) -> TokenizedText:
    """Return ``text`` with other words: those at ``stretches``, half-open, in code points and in order.

    A piece belongs to the word in which it ends, a piece of no width to the word it stands in or before. A word in
    which no piece ends has none.
    """
    found = [_Placed(p.token_id, p.piece, p.span.start_code_point, p.span.end_code_point) for p in text.pieces]
    return TokenizedText.of(text.text, *_grouped(text.text, found, stretches))


class _Ruler:
    """The three units of one text, side by side at every code point.

    Attributes:
        code_points: Index of the code point that starts at or holds each byte.
    """

    def __init__(self, text: str) -> None:
        same: Sequence[int] = range(len(text) + 1)
        self.code_points, self._bytes, self._utf16 = same, same, same
        if not text.isascii():
            widths = [1 if c < "\x80" else 2 if c < "\u0800" else 3 if c < "\U00010000" else 4 for c in text]  # UTF-8
            self._bytes = [0, *accumulate(widths)]
            self.code_points = [index for index, width in enumerate([*widths, 1]) for _ in range(width)]
            if 4 in widths:
                self._utf16 = [0, *accumulate(2 if width == 4 else 1 for width in widths)]

    def span(self, start: int, end: int) -> Span:
        """Return the span between two code point indices."""
        return Span(self._bytes[start], self._bytes[end], start, end, self._utf16[start], self._utf16[end])


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X} at code point {error.start}"
        raise InvalidText(f"the text holds a lone surrogate, {found}; send valid Unicode") from error
    if (place := text.find("\0")) >= 0:
        raise InvalidText(f"the text holds a NUL character, U+0000 at code point {place}; send it without")
    return text


class _Found(NamedTuple):
    """A piece as SentencePiece reports it; offsets in bytes of the text."""

    id: int
    piece: str
    begin: int
    end: int


class _Placed(NamedTuple):
    """A piece and where it stands, in code points."""

    token_id: int
    piece: str
    start: int
    end: int


def _stripped(decoded: Any) -> list[_Found]:
    """Return decoded pieces in the text without the spaces that a leading or trailing unknown leaves."""
    text = decoded.text
    size = len(text.strip().encode())
    if size == len(text.encode()):
        return decoded.pieces  # type: ignore[no-any-return]
    lead = len(text) - len(text.lstrip())  # white space here is U+0020: one byte each
    return [
        _Found(piece.id, piece.piece, *(min(max(byte - lead, 0), size) for byte in (piece.begin, piece.end)))
        for piece in decoded.pieces
    ]


def _shows(utf8: bytes, piece: Any) -> bool:
    """Return whether a piece as SentencePiece reports it stands for something that is seen."""
    before, upto = (utf8[:byte].decode(errors="ignore") for byte in (piece.begin, piece.end))
    return not all(_is_silent(character, piece.piece) for character in upto[len(before) :])


def _placed(text: str, found: Iterable[Any]) -> _Places:
    """Return the pieces of a text as SentencePiece reports them, and its words.

    White space and removed format characters at the ends of a piece are left out; one of nothing else ends up at its
    end, without width.
    """
    ruler = _Ruler(text)
    placed = []
    for piece in found:
        name, start, end = piece.piece, ruler.code_points[piece.begin], ruler.code_points[piece.end]
        # Letters and digits are never silent, and most characters are those: they are not asked about.
        while start < end and not text[start].isalnum() and _is_silent(text[start], name):
            start += 1
        while start < end and not text[end - 1].isalnum() and _is_silent(text[end - 1], name):
            end -= 1
        placed.append(_Placed(piece.id, name, start, end))
    places = [(start, end) for _, _, start, end in placed]
    return _grouped(text, placed, _seen(_joined(word_stretches(text), places), places), ruler)


def _grouped(
    text: str, found: Sequence[_Placed], stretches: Sequence[tuple[int, int]], ruler: _Ruler | None = None
) -> _Places:
    """Return the pieces of a text under the words at ``stretches``, and these; see ``with_words``."""
    span = (ruler or _Ruler(text)).span
    ends = [end for _, end in stretches]
    members: list[list[int]] = [[] for _ in stretches]
    pieces = []
    for index, (token_id, name, start, end) in enumerate(found):
        home = bisect_right(ends, end - 1 if start < end else start)
        word_index = home if home < len(stretches) else None
        pieces.append(Piece(token_id, name, text[start:end], span(start, end), word_index, start == end))
        if word_index is not None:
            members[word_index].append(index)
    words = [
        Word(text[start:end], span(start, end), tuple(held))
        for (start, end), held in zip(stretches, members, strict=True)
    ]
    return tuple(pieces), tuple(words)


def _is_silent(character: str, piece: str) -> bool:
    """Return whether a character of a piece is white space, or one that normalization removed."""
    return is_space(character) or (unicodedata.category(character) == "Cf" and character not in piece)


def _seen(stretches: list[tuple[int, int]], places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the words in which a piece of some width starts: the others are characters that normalization removed."""
    starts = [start for start, end in places if start < end]
    return [(start, end) for start, end in stretches if bisect_left(starts, start) < bisect_left(starts, end)]


def _joined(stretches: list[tuple[int, int]], places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the words with those made one that share a piece, so that every piece lies in one word."""
    wide = [(start, end) for start, end in places if start < end]
    starts = [start for start, _ in wide]
    joined: list[tuple[int, int]] = []
    for start, end in stretches:
        nearest = bisect_left(starts, joined[-1][1]) - 1 if joined else -1
        if nearest >= 0 and wide[nearest][1] > start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
