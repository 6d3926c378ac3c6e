"""Which installed fonts a figure needs, so that no word of it comes out as a row of boxes."""

import unicodedata
from collections.abc import Collection, Iterable

from matplotlib.font_manager import FontEntry, FontPath, fontManager, get_font
from matplotlib.ft2font import FT2Font

FIRST_FAMILY = "DejaVu Sans"  # comes with matplotlib: every machine has it, and it knows most alphabets

_REGULAR = {"style": "normal", "variant": "normal", "weight": 400, "stretch": "normal"}
_PREFERRED = ("Noto Sans", "Source Han Sans")
_UNLIKED = ("Mono", "Serif", "Display")
_LAST_RESORT = "Last Resort"  # a font of boxes
_NAMED_IN_ADVICE = 5


def font_families(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the families that draw ``texts`` together, first choice first, and the characters that none of them has.

    To ``FIRST_FAMILY`` come others only for the characters it lacks.
    """
    characters = {character for text in texts for character in text if _is_drawn(character)}
    missing = _lacking(get_font(fontManager.findfont(FIRST_FAMILY)), characters)
    families = [FIRST_FAMILY]
    faces = iter(_faces(characters) if missing else ())
    while missing and (face := next(faces, None)):
        lacking = _lacking_in_face(face, missing)
        if lacking < missing:
            families.append(face.name)
            missing = lacking
    return families, sorted(missing)


def font_advice(missing: Collection[str]) -> str:
    """Return which characters lack a font, and where to get one."""
    named = [f"{character} (U+{ord(character):04X})" for character in list(missing)[:_NAMED_IN_ADVICE]]
    more = len(missing) - len(named)
    shown = ", ".join(named) + (f" and {more} more" if more > 0 else "")
    east_asian = any(
        unicodedata.east_asian_width(each) in "WF" and unicodedata.category(each) != "So" for each in missing
    )
    packages = "fonts-noto-cjk" if east_asian else "fonts-noto-core (scripts) or fonts-symbola (signs)"
    return (
        f"no installed font has {shown}. Install one, on Debian and Ubuntu {packages}; or write an .svg or .html file"
    )


def _is_drawn(character: str) -> bool:
    """Return whether a font must have the character: spaces, joiners and variation selectors draw nothing."""
    selector = "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    return not selector and unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp", "Zs")


def _faces(characters: Iterable[str]) -> list[FontEntry]:
    """Return the regular face of every installed family, those we would rather see first."""
    han = _han_style(characters)

    def order(face: FontEntry) -> tuple[bool, bool, bool, str, str]:
        unliked = any(word in face.name for word in _UNLIKED)
        return not face.name.startswith(_PREFERRED), unliked, not face.name.endswith(han), face.name, face.fname

    faces: dict[str, FontEntry] = {}
    for face in sorted(fontManager.ttflist, key=order):
        regular = all(getattr(face, name) == value for name, value in _REGULAR.items())
        if regular and not face.name.startswith(_LAST_RESORT):
            faces.setdefault(face.name, face)
    return list(faces.values())


def _han_style(characters: Iterable[str]) -> str:
    """Return the ending of font names for the language at hand: Han characters look different in each."""
    scripts = {unicodedata.name(character, "").partition(" ")[0] for character in characters}
    if scripts & {"HIRAGANA", "KATAKANA"}:
        return "JP"
    return "KR" if "HANGUL" in scripts else "SC"


def _lacking_in_face(face: FontEntry, characters: set[str]) -> set[str]:
    try:
        return _lacking(get_font(FontPath(face.fname, face.index)), characters)
    except RuntimeError:  # a font of pictures, or a broken file: matplotlib cannot draw with it either
        return characters


def _lacking(font: FT2Font, characters: set[str]) -> set[str]:
    return {character for character in characters if not font.get_char_index(ord(character))}
