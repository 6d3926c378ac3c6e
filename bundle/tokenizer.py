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
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece

from bundle.errors import InvalidBundle, InvalidText
from bundle.words import is_space, word_stretches


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open stretch of a text in three units: UTF-8 bytes, code points and UTF-16 code units."""

    start_byte: int
    end_byte: int
    start_code_point: int
    end_code_point: int
    start_utf16: int
    end_utf16: int


@dataclass(frozen=True, slots=True)
class Piece:
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


@dataclass(frozen=True, slots=True)
class Word:
    """What a reader sees as one word: letters and digits, or punctuation; ``l'`` and ``homme`` are two."""

    text: str
    span: Span
    piece_indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text with its pieces and words, both in order; no end-of-sentence token among them."""

    text: str
    pieces: tuple[Piece, ...]
    words: tuple[Word, ...]

    @property
    def token_ids(self) -> list[int]:
        """The ids of the pieces."""
        return [piece.token_id for piece in self.pieces]


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

    def encode(self, text: str) -> TokenizedText:
        """Return the pieces and words of ``text``, without end of sentence.

        Raises:
            InvalidText: ``text`` holds a lone surrogate or U+0000.
        """
        return _tokenized(text, self._model.encode(_valid(text), return_type="proto").pieces)

    def encode_ids(self, text: str) -> list[int]:
        """Return the token ids of ``text`` alone, ten times faster than ``encode``.

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
        heard = [int(token_id) for token_id in token_ids if not self._model.is_control(int(token_id))]
        return _tokenized_stripped(self._model.decode(heard, return_type="proto"))

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
    return _grouped(text.text, found, stretches)


class _Ruler:
    """The three units of one text, side by side at every code point."""

    def __init__(self, text: str) -> None:
        widths = [1 if c < "\x80" else 2 if c < "\u0800" else 3 if c < "\U00010000" else 4 for c in text]  # UTF-8
        self._bytes = [0, *accumulate(widths)]
        self._utf16 = [0, *accumulate(2 if width == 4 else 1 for width in widths)]

    def code_point(self, byte: int) -> int:
        """Return the index of the code point that starts at or holds ``byte``."""
        return bisect_right(self._bytes, byte) - 1

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


def _tokenized_stripped(decoded: Any) -> TokenizedText:
    """Return decoded pieces in the text without the spaces that a leading or trailing unknown leaves."""
    text = decoded.text.strip()
    lead = len(decoded.text) - len(decoded.text.lstrip())  # white space here is U+0020: one byte each
    size = len(text.encode())
    pieces = [
        _Found(piece.id, piece.piece, *(min(max(byte - lead, 0), size) for byte in (piece.begin, piece.end)))
        for piece in decoded.pieces
    ]
    return _tokenized(text, pieces)


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


def _tokenized(text: str, found: Iterable[Any]) -> TokenizedText:
    ruler = _Ruler(text)
    placed = []
    for piece in found:
        start, end = ruler.code_point(piece.begin), ruler.code_point(piece.end)
        placed.append(_Placed(piece.id, piece.piece, *_trimmed(text, start, end, piece.piece)))
    places = [(start, end) for _, _, start, end in placed]
    return _grouped(text, placed, _seen(_joined(word_stretches(text), places), places), ruler)


def _grouped(
    text: str, found: Sequence[_Placed], stretches: Sequence[tuple[int, int]], ruler: _Ruler | None = None
) -> TokenizedText:
    """Return a text with its pieces under the words at ``stretches``; see ``with_words``."""
    ruler = ruler or _Ruler(text)
    ends = [end for _, end in stretches]
    members: list[list[int]] = [[] for _ in stretches]
    pieces = []
    for index, (token_id, name, start, end) in enumerate(found):
        home = bisect_right(ends, end - 1 if start < end else start)
        word_index = home if home < len(stretches) else None
        pieces.append(Piece(token_id, name, text[start:end], ruler.span(start, end), word_index, start == end))
        if word_index is not None:
            members[word_index].append(index)
    words = (
        Word(text[start:end], ruler.span(start, end), tuple(held))
        for (start, end), held in zip(stretches, members, strict=True)
    )
    return TokenizedText(text, tuple(pieces), tuple(words))


def _trimmed(text: str, start: int, end: int, piece: str) -> tuple[int, int]:
    """Return the stretch without white space or removed format characters at its ends; empty ones end up at ``end``."""

    def silent(character: str) -> bool:
        return is_space(character) or (unicodedata.category(character) == "Cf" and character not in piece)

    while start < end and silent(text[start]):
        start += 1
    while start < end and silent(text[end - 1]):
        end -= 1
    return start, end


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
