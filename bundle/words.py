"""What a reader sees as words: stretches of a text, found by its characters alone.

A word is a run of letters and digits, joined by hyphens and apostrophes, or by point and comma between digits. French
elisions and English clitics are words of their own, and so is anything else that is seen: a character at a time, unless
it is repeated. In scripts written without spaces each letter stands alone, and ``bundle.tokenizer`` makes one word of
those that share a piece. What Unicode takes for one character (a grapheme cluster, UAX 29) is never parted: letters and
their marks, the halves of a flag, symbols and what is joined to them.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator

_APOSTROPHES = "'\u2019\u02bc"
_HYPHENS = "-\u2010\u2011"
_JOINER = "\u200d"
_SPACE_MARK = "\u2581"  # SentencePiece takes it for a space, wherever it comes from
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_HALVES = range(0x1F1E6, 0x1F200)
# Thai and Lao, Myanmar, Khmer, Tai scripts, kana, Han: each letter is a word, but those that share a piece are one.
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x1950, 0x19DF),
    (0x1A20, 0x1AAF),
    (0x2E80, 0x312F),
    (0x31A0, 0x31FF),
    (0x3400, 0x9FFF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAADF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x16FE0, 0x18DFF),
    (0x1AFF0, 0x1B2FF),
    (0x20000, 0x3FFFF),
)
_ELISION_KEEPS = frozenset({"aujourd", "prud", "o"})  # aujourd'hui, prud'homme, O'Brien: one word
_CLITICS = frozenset({"s", "t", "re", "ve", "ll", "d", "m"})  # English: it | 's
_ELISIONS = frozenset({"l", "d", "j", "m", "t", "s", "n", "c", "qu"})  # French: s' | il, never s | 'il

# Over the classes of ``_class``: a run of letters and digits, or a flag, or one character with what combines with it.
_WORD_CLASSES = re.compile(
    r"[adm][admiz]*(?:(?:[-']|(?<=d),(?=d))[adm][admiz]*)*(?:'[miz]*)?|rr?[miz]*|[^ ][miz]*(?:(?<=z)p[miz]*)*"
)


def is_space(character: str) -> bool:
    """Return whether ``character`` only keeps words apart."""
    return character.isspace() or character == _SPACE_MARK


def word_stretches(text: str) -> list[tuple[int, int]]:
    """Return the code point stretches of words; together they hold every character but white space."""
    classes = "".join(map(_class, text))
    stretches: list[tuple[int, int]] = []
    for match in _WORD_CLASSES.finditer(classes):
        start, end = match.span()
        if classes[start] in "adm":
            if classes.find("'", start, end) < 0:
                stretches.append((start, end))
            else:
                stretches.extend(_split_elisions(text, classes, start, end))
            continue
        first, previous = stretches[-1] if stretches else (0, -1)
        if previous == start and text[first] == text[start] and classes[start] not in "cr":
            stretches[-1] = (first, end)  # "..." is one word
        else:
            stretches.append((start, end))
    return stretches


@functools.lru_cache(maxsize=4096)
def _class(character: str) -> str:
    """Return what ``character`` is to a word.

    a letter, c letter of a script without spaces, d digit, m mark, i invisible, z joiner, r half of a flag, one of
    ``'-, ``, or p, anything else that is seen.
    """
    if character in _APOSTROPHES:
        return "'"
    if character in _HYPHENS:
        return "-"
    if character in ".,":
        return ","
    if is_space(character):
        return " "
    if character == _JOINER:
        return "z"
    category, code = unicodedata.category(character), ord(character)
    if category[0] == "L":
        return "c" if any(first <= code <= last for first, last in _WITHOUT_SPACES) else "a"
    if category[0] == "M" or code in _SKIN_TONES:
        return "m"
    if code in _FLAG_HALVES:
        return "r"
    return {"N": "d"}.get(category[0], "i" if category == "Cf" else "p")


def _split_elisions(text: str, classes: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the words of a stretch: after an elision (``l'|homme``), before a clitic (``it|'s``)."""
    apostrophe = classes.find("'", start, end)
    while apostrophe >= 0:
        following = classes.find("'", apostrophe + 1, end)
        before = text[start:apostrophe].casefold()
        after = text[apostrophe + 1 : following if following >= 0 else end].casefold()
        elision = before in _ELISIONS or before.endswith("qu")
        cut = apostrophe if not elision and (after in _CLITICS or not after) else apostrophe + 1
        while apostrophe < cut < end and classes[cut] in "miz":  # they belong to the apostrophe
            cut += 1
        if before not in _ELISION_KEEPS and start < cut < end:
            yield start, cut
            start = cut
        apostrophe = following
    yield start, end
