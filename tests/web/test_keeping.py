"""What can be kept of an explanation: a link, files, the page itself as one file."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from playwright.sync_api import Browser

from bundle.alignment import write_pharaoh
from service import web
from tests.web.browser import HOSTILE, SENTENCE, Explorer, opened
from tests.web.replies import ask, links_of, matrix

pytestmark = pytest.mark.slow

_SVG = "{http://www.w3.org/2000/svg}"


def test_a_link_shows_the_same_again_and_the_service_never_sees_the_text_in_it(browser: Browser, tiny: str) -> None:
    with opened(browser, tiny) as first:
        first.translate(SENTENCE)
        first.word("target", 1).focus()
        first.page.select_option("#show", "term.temporal.temporal")
        first.page.select_option("#ramp", "color")
        first.page.click('[data-hide="2"]')
        with first.page.expect_response("**/v1/what-if"):
            first.page.click("#run-what-if")
        first.page.wait_for_selector("#what-if-result .line")
        colors, words = first.cell_colors(), first.words("target")
        address = first.page.url
    fragment = f"#{urlsplit(address).fragment}"
    assert parse_qs(fragment[1:])["text"] == [SENTENCE]
    with opened(browser, tiny, fragment) as second:
        second.page.wait_for_selector("#what-if-result .line")
        assert second.words("target") == words
        assert second.cell_colors() == colors
        assert "chosen" in second.classes("target", 1)
        assert second.page.get_attribute('[data-hide="2"]', "aria-pressed") == "true"
        assert not [request.url for request in second.asked if "house" in request.url.partition("#")[0]]


def test_the_way_back_leads_to_the_text_before(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    explorer.translate("I don't know where he lives.")
    with explorer.page.expect_response("**/v1/explain"):
        explorer.page.go_back()
    explorer.page.wait_for_selector("#edition .source .word >> text=small")
    assert explorer.page.input_value("#text") == SENTENCE


def _downloaded(explorer: Explorer, kind: str, folder: Path) -> bytes:
    with explorer.page.expect_download() as started:
        explorer.page.click(f'[data-download="{kind}"]')
    file = folder / started.value.suggested_filename
    started.value.save_as(file)
    return file.read_bytes()


def test_the_matrix_can_be_taken_home_as_svg_and_png(explorer: Explorer, tmp_path: Path) -> None:
    explorer.translate(SENTENCE)
    svg = ElementTree.fromstring(_downloaded(explorer, "svg", tmp_path))
    texts = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {*explorer.words("source"), *explorer.words("target")} <= set(texts)
    fills = [rect.get("fill") for rect in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert set(map(tuple, explorer.cell_colors())) <= {
        tuple(map(int, re.findall(r"\d+", fill))) for fill in fills if fill and fill.startswith("rgb")
    }
    png = _downloaded(explorer, "png", tmp_path)
    assert png.startswith(b"\x89PNG")
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    assert [width, height] == [3 * int(svg.get(name, "")) for name in ("width", "height")]


def test_reply_and_links_can_be_taken_home(explorer: Explorer, tiny: str, tmp_path: Path) -> None:
    explorer.translate(SENTENCE)
    reply = ask(tiny, "explain", text=SENTENCE)
    saved = json.loads(_downloaded(explorer, "json", tmp_path))
    assert "packedFloat32" not in json.dumps(saved)
    np.testing.assert_allclose(matrix(saved["attentionScores"]), matrix(reply["attentionScores"]), rtol=1e-6)
    assert saved["hypothesis"]["target"] == reply["hypothesis"]["target"]
    assert _downloaded(explorer, "pharaoh", tmp_path).decode() == f"{write_pharaoh(links_of(reply))}\n"


def test_one_file_shows_an_explanation_without_a_service(browser: Browser, embedded: str, tmp_path: Path) -> None:
    reply = ask(embedded, "explain", text=f"The house {HOSTILE} </script>\u2028 is small.")
    file = tmp_path / "explanation.html"
    title = 'A <b>"title"</b>'
    file.write_text(web.standalone(json.dumps(reply, ensure_ascii=False), title), "utf-8")
    tab = browser.new_context(locale="en-GB")
    explorer = Explorer(tab.new_page(), "file://")
    explorer.page.goto(file.as_uri())
    explorer.page.wait_for_selector("#edition .word")
    assert explorer.page.title() == title
    assert explorer.words("target") == [word["text"] for word in reply["hypothesis"]["target"]["words"]]
    assert explorer.page.locator("#ask, #what-if").filter(visible=True).count() == 0
    explorer.word("target", 0).click()
    assert explorer.page.locator("#word .verdict").count() == 1
    assert explorer.page.locator("[data-check], [data-act]").count() == 0
    explorer.page.select_option("#show", "kept:without_delta")
    assert "Total variation" in explorer.text("#caption")
    assert explorer.page.evaluate("window.hit") is None
    assert [request.url for request in explorer.asked] == [file.as_uri()]
    assert not explorer.complaints
    tab.close()
