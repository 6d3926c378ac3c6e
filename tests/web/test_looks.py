"""Languages, themes, widths and scripts."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.web.browser import SENTENCE, Explorer, opened

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


def test_the_interface_speaks_chinese_and_remembers_it(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    explorer.word("target", 0).focus()
    explorer.page.click("#language")
    assert explorer.page.get_attribute("html", "lang") == "zh-Hans"
    assert explorer.text("#matrix-title") == "矩阵"
    assert "词义" in explorer.text("#shares")
    assert "chosen" in explorer.classes("target", 0)
    explorer.page.reload()
    explorer.page.wait_for_selector("#edition .word")
    assert explorer.text("#submit") == "翻译"
    assert explorer.text("#pair") == "英语 → 法语"


def test_every_text_exists_in_both_languages_with_the_same_places(explorer: Explorer) -> None:
    texts = explorer.page.evaluate("import('/text.js').then(module => module.TEXT)")
    places = {
        language: {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in said.items()}
        for language, said in texts.items()
    }
    assert places["zh"] == places["en"]
    used = set(re.findall(r'data-say(?:-label)?="(\w+)"', (ROOT / "service/web/index.html").read_text("utf-8")))
    assert used <= texts["en"].keys()


_CONTRASTS = """() => {
  const luminance = (color) => {
    const [red, green, blue] = color.match(/[\\d.]+/g).map(Number).map(each => each / 255)
      .map(each => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const { backgroundColor } = getComputedStyle(each);
      const seenThrough = /(, 0\\)|\\/ 0\\)|transparent)$/.test(backgroundColor) || backgroundColor.startsWith("color");
      if (!seenThrough) return backgroundColor;
    }
  };
  const blocks = "h1, h2, h3, p, li, label, legend, button, summary, th, td, figcaption, .word, .gloss, .above";
  const told = [...document.querySelectorAll(blocks)].filter(each => each.offsetParent && each.innerText?.trim());
  return told.map(each => {
    const [one, other] = [getComputedStyle(each).color, ground(each)].map(luminance);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    return [contrast, each.className || each.tagName, each.innerText.slice(0, 30)];
  });
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_have_enough_contrast(browser: Browser, tiny: str, theme: Any) -> None:
    with opened(browser, tiny, color_scheme=theme) as explorer:
        explorer.translate(SENTENCE)
        explorer.word("target", 0).click()
        explorer.page.wait_for_selector(".alternatives li")
        explorer.page.wait_for_timeout(200)  # colors fade in
        found = explorer.page.evaluate(_CONTRASTS)
        assert len(found) > 60
        assert not [each for each in found if each[0] < 4.5]


def test_dark_can_be_chosen_and_is_remembered(explorer: Explorer) -> None:
    light = explorer.page.evaluate("getComputedStyle(document.body).backgroundColor")
    explorer.page.select_option("#theme", "dark")
    assert explorer.page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    explorer.page.reload()
    explorer.page.wait_for_selector("#model option", state="attached")
    assert explorer.page.get_attribute("html", "data-theme") == "dark"


def test_a_reader_who_wants_no_motion_gets_none(browser: Browser, tiny: str) -> None:
    with opened(browser, tiny, reduced_motion="reduce") as explorer:
        explorer.translate(SENTENCE)
        assert explorer.page.evaluate("getComputedStyle(document.querySelector('.word')).transitionDuration") == "0s"


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_page(browser: Browser, tiny: str, width: int) -> None:
    with opened(browser, tiny) as explorer:
        explorer.page.set_viewport_size({"width": width, "height": 844})
        explorer.translate(SENTENCE)
        explorer.word("target", 0).click()
        explorer.page.wait_for_selector(".alternatives li")
        assert explorer.page.evaluate("document.documentElement.scrollWidth") <= width


def test_sixty_words_by_sixty_stay_legible(browser: Browser, embedded: str) -> None:
    source = " ".join(["the old man walks with his small dog"] * 8)[:-4].rsplit(" ", 3)[0]
    target = " ".join(["le vieil homme marche avec son petit chien"] * 8).rsplit(" ", 4)[0]
    with opened(browser, embedded) as explorer:
        explorer.translate(source, target)
        assert len(explorer.words("source")) == len(explorer.words("target")) == 60
        cell = explorer.page.locator("#sheet .body rect").first.bounding_box()
        assert cell and cell["width"] >= 14
        size = explorer.page.get_attribute("#sheet .side text", "font-size")
        assert size and 11 <= float(size) <= cell["height"]
        sheet = explorer.page.locator("#sheet")
        sheet.evaluate("sheet => sheet.scrollTo(400, 500)")
        frame, head, side = (
            explorer.page.locator(part).bounding_box() for part in ("#sheet", "#sheet .head", "#sheet .side")
        )
        assert frame and head and side
        assert head["y"] == pytest.approx(frame["y"], abs=1)
        assert side["x"] == pytest.approx(frame["x"], abs=1)
        explorer.page.select_option("#unit", "pieces")
        assert explorer.page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_right_to_left_lines_run_right_to_left(browser: Browser, embedded: str) -> None:
    with opened(browser, embedded) as explorer:
        explorer.translate("The house is old.", "البيت الأبيض قديم")
        places = [explorer.word("target", index).bounding_box() for index in range(3)]
        assert all(a and b and a["x"] > b["x"] for a, b in itertools.pairwise(places))
        explorer.word("target", 0).focus()
        explorer.page.keyboard.press("ArrowLeft")
        assert explorer.focused() == ("target", 1)
        source = [explorer.word("source", index).bounding_box() for index in range(3)]
        assert all(a and b and a["x"] < b["x"] for a, b in itertools.pairwise(source))


def test_wide_scripts_run_without_spaces(browser: Browser, embedded: str) -> None:
    with opened(browser, embedded) as explorer:
        explorer.translate("这座房子很旧，但是我喜欢。", "La maison est vieille.")
        assert "".join(explorer.words("source")) == "这座房子很旧，但是我喜欢。"
        units = explorer.page.locator("#edition .source .unit")
        assert not units.evaluate_all("units => units.filter(unit => unit.classList.contains('spaced')).length")
