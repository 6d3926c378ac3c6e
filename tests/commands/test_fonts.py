import pytest

from service.commands.fonts import FIRST_FAMILY, font_advice, font_families

NOWHERE = "\U0010fffd"  # the last private character: no font is expected to have it


@pytest.mark.parametrize("text", ["plain", "Été, Ωμέγα, Привет", "שלום", "مرحبا", "", "  \u200d\ufe0f"])
def test_the_font_that_comes_with_matplotlib_is_enough_for_most_alphabets(text: str) -> None:
    assert font_families([text]) == ([FIRST_FAMILY], [])


def test_a_character_that_no_font_has_is_named() -> None:
    families, missing = font_families(["known", f"{NOWHERE}x"])
    assert (families, missing) == ([FIRST_FAMILY], [NOWHERE])
    assert "U+10FFFD" in font_advice(missing)


@pytest.mark.parametrize(
    ("characters", "words"),
    [
        (["城"], "fonts-noto-cjk"),
        (["字", "ह"], "fonts-noto-cjk"),
        (["ह"], "fonts-noto-core"),
        (["👍"], "fonts-symbola"),
    ],
)
def test_the_advice_names_a_package_that_has_the_characters(characters: list[str], words: str) -> None:
    assert words in font_advice(characters)


def test_the_advice_stays_short_however_many_characters_lack_a_font() -> None:
    advice = font_advice([chr(0x4E00 + index) for index in range(3000)])
    assert "2995 more" in advice and len(advice) < 300


@pytest.mark.parametrize(("text", "ending"), [("城市，很好。", "SC"), ("城のひと", "JP"), ("서울 城", "KR")])
def test_han_characters_get_the_look_of_their_language(text: str, ending: str) -> None:
    families, missing = font_families([text])
    if missing:
        pytest.skip("no font with these characters is installed (Debian: fonts-noto-cjk)")
    assert families[0] == FIRST_FAMILY and len(families) > 1
    if all("Noto Sans CJK" in family for family in families[1:]):
        assert families[1].endswith(ending)
