"""A document in sentences, while it arrives: in chunks cut anywhere, without holding more of it than a window.

The rules. A line break ends a sentence, so lists, verses and tables keep their lines; inside a line the rules of its
language do (sentencex). What no model should see stands *between* the sentences, character for character: white space,
marks of list items and quotations at the beginning of a line, and stretches without a letter or a digit, such as a line
of stars. Paragraphs are parted by blank lines. A sentence that does not fit the model is cut near its middle: after
punctuation, else at white space, else between characters as readers see them.

A line is looked at as a whole, or in windows of ``WINDOW_CHARACTERS`` where it is longer; a window begins where the one
before it has left an unfinished sentence. So the sentences depend on the document alone, not on how it was cut.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sentencex

from bundle.tokenizer import Span
from service.errors import StreamInvalid

WINDOW_CHARACTERS = 4096  # of a line, held before it is cut into sentences
GAP_CHARACTERS = 1 << 20  # between two sentences at most: they are sent in one message

_FEEDS = "\n\v\f\x85\u2028\u2029"
_BREAK = f"{_FEEDS}\r"
_SPACE = f"\t\x1c\x1d\x1e\x1f \xa0\u1680{''.join(map(chr, range(0x2000, 0x200B)))}\u202f\u205f\u3000"  # as str.isspace
_BLANK = f"{_BREAK}{_SPACE}\u2581\u200b\u2060\ufeff"  # and what tokenizers take for a space, or for nothing
# sentencex 1.0.32 panics at an initial before a space of several bytes, as in "J.\u00a0Smith".
_PLAIN_SPACES = dict.fromkeys(map(ord, _BREAK + _SPACE), " ")

_LINE_BREAK = re.compile(f"[{_BREAK}]")
_WORD = re.compile(r"[^\W_]")  # a character that str.isalnum says yes to
_WORDLESS = re.compile(rf"(?:[\W_]*[{_BREAK}])?[{_BLANK}]*")  # whole lines of it, then the blanks before the next word
_BLANK_LINE = re.compile(f"(?:\r\n?+|[{_FEEDS}])[{_SPACE}]*[{_BREAK}]|\u2029")
_LIST_MARK = r"[-*+\u2022\u25e6\u25aa\u2023\u00b7\u2013\u2014]|\#{1,6}|>+|\[[ xX]\]|\(?[0-9]{1,3}[.)]|\(?[a-z]\)"
_LIST_MARKS = re.compile(f"(?:(?:{_LIST_MARK})[{_BLANK}]+)*")
_AFTER_PUNCTUATION = re.compile(
    r"[.!?;:,\u2026\u2013\u2014\u060c\u061b\u061f\u06d4\u0964)\]}\u00bb\u201d](?=\s)"
    r"|[\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f]"
)
_AFTER_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Sentence:
    """A sentence of a document, or a part of one that is too long for the model.

    Attributes:
        sequence_id: 1 for the first of the document, then one more each.
        paragraph: 0 for the first paragraph, then one more each.
        span: Where it stands in the document.
        before: What stands between the sentence before it and this one.
        text: What to translate; no white space at its ends, and a letter or a digit in it.
    """

    sequence_id: int
    paragraph: int
    span: Span
    before: str
    text: str


class Segmenter:
    """Cuts one document into sentences as it arrives.

    All that was fed is ``before`` and ``text`` of every sentence, in order, and then ``after``.

    Attributes:
        sentences: How many there have been.
    """

    def __init__(self, language: str, fits: Callable[[str], bool]) -> None:
        """Prepare for a document.

        Args:
            language: BCP-47 tag; a language that sentencex does not know is cut as English.
            fits: Whether the model can take a text as one sentence.
        """
        self.sentences = 0
        self._language = language.split("-")[0].lower()
        self._fits = fits
        self._rest = ""  # what is not yet known to be in a sentence
        self._within_line = False  # whether that begins in the middle of a line
        self._gap: list[str] = []
        self._gap_length = 0
        self._paragraph = 0
        self._bytes = self._code_points = self._utf16 = 0  # before ``_rest``

    @property
    def after(self) -> str:
        """What stands after the last sentence, once ``finish`` has given all of them."""
        return "".join(self._gap)

    def feed(self, text: str) -> Iterator[Sentence]:
        """Yield the sentences that ``text`` completes; take all of them before you feed more.

        Raises:
            StreamInvalid: More than ``GAP_CHARACTERS`` stand between two sentences.
        """
        return self._cut(self._rest + text, last=False)

    def finish(self) -> Iterator[Sentence]:
        """Yield what is left: nothing follows.

        Raises:
            StreamInvalid: As for ``feed``.
        """
        return self._cut(self._rest, last=True)

    def _cut(self, text: str, last: bool) -> Iterator[Sentence]:
        at = 0
        while True:
            wordless = _WORDLESS.match(text, at)
            assert wordless is not None
            self._pass(wordless[0])
            at = wordless.end()
            self._within_line = self._within_line and not _LINE_BREAK.search(wordless[0])
            window = text[at : at + WINDOW_CHARACTERS]
            line_break = _LINE_BREAK.search(window)
            long = line_break is None and len(window) == WINDOW_CHARACTERS
            if not window or not (line_break or long or last):
                self._rest = window
                return
            line = window[: line_break.start()] if line_break else window
            has_words = _WORD.search(line) is not None
            parts = self._parts(line, long) if has_words else []
            done = 0
            for part in parts:
                for start, end in self._fitting(line, *part):
                    self._pass(line[done:start])
                    yield self._sentence(line[start:end])
                    done = end
            used = parts[-1][1] if parts else len(line) // 2 if long else len(line)  # the rest may open a quotation
            self._pass(line[done:used])
            at += used
            self._within_line = long

    def _parts(self, line: str, long: bool) -> list[tuple[int, int]]:
        """Return where the sentences of a line stand, side by side; of a long one, all but the unfinished."""
        marks = _LIST_MARKS.match(line)
        at = 0 if self._within_line or marks is None else marks.end()
        stretches: list[tuple[int, int]] = []
        for part in _segmented(self._language, line[at:].translate(_PLAIN_SPACES)):
            begin, at = at, at + len(part)
            if stretches and unicodedata.category(line[begin])[0] == "M" and line[begin - 1] not in _BLANK:
                begin, _ = stretches.pop()  # an accent stays with its letter, whatever that is
            stretches.append((begin, at))
        if not long:
            return stretches
        return stretches[:-1] or [(stretches[0][0], stretches[0][0] + _near_middle(line[stretches[0][0] :]))]

    def _fitting(self, line: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches between ``start`` and ``end`` that the model is to translate, cut until they fit."""
        part = line[start:end]
        start, end = start + len(part) - len(part.lstrip(_BLANK)), end - len(part) + len(part.rstrip(_BLANK))
        part = line[start:end]
        if not any(map(str.isalnum, part)):
            return
        if len(part) == 1 or self._fits(part):
            yield start, end
        else:
            place = start + _near_middle(part)
            yield from self._fitting(line, start, place)
            yield from self._fitting(line, place, end)

    def _sentence(self, text: str) -> Sentence:
        before, self._gap, self._gap_length = self.after, [], 0
        if self.sentences and _BLANK_LINE.search(before):
            self._paragraph += 1
        self.sentences += 1
        start = self._bytes, self._code_points, self._utf16
        self._move(text)
        end = self._bytes, self._code_points, self._utf16
        span = Span(*(edge for edges in zip(start, end, strict=True) for edge in edges))
        return Sentence(self.sentences, self._paragraph, span, before, text)

    def _pass(self, text: str) -> None:
        """Leave ``text`` between two sentences."""
        self._gap.append(text)
        self._gap_length += len(text)
        if self._gap_length > GAP_CHARACTERS:
            message = f"the document has more than {GAP_CHARACTERS} characters in a row with nothing to translate"
            raise StreamInvalid("text", f"{message}; shorten that stretch, or send what follows as another document")
        self._move(text)

    def _move(self, text: str) -> None:
        self._bytes += len(text.encode())
        self._code_points += len(text)
        self._utf16 += len(text.encode("utf-16-le")) // 2


def _segmented(language: str, line: str) -> list[str]:
    """Return ``line`` in sentences, white space and all."""
    try:
        return list(sentencex.segment(language, line))
    except BaseException as panic:  # what Rust raises is no Exception; one line of somebody's must not end the call
        if type(panic).__name__ != "PanicException":
            raise
        return [line]


def _near_middle(text: str) -> int:
    """Return where to cut a text of two characters or more: at the best kind of place that its middle half has."""
    for places in (_AFTER_PUNCTUATION, _AFTER_SPACE):
        found = [match.end() for match in places.finditer(text)]
        if near := [place for place in found if len(text) <= 4 * place <= 3 * len(text)]:
            return min(near, key=lambda place: abs(2 * place - len(text)))
    import regex  # 40 ms, for what hardly any document has: hundreds of characters without a space

    found = [match.start() for match in regex.finditer(r"\X", text)][1:]
    return min(found, key=lambda place: abs(2 * place - len(text)), default=len(text) // 2)
