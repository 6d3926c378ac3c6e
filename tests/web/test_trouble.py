"""Hostile texts, refusals, services that are gone: the page stays whole and says what to do."""

import contextlib
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Error, Route

from service import web
from tests.web.browser import HOSTILE, SENTENCE, opened

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


def test_text_is_text_whatever_it_says(browser: Browser, embedded: str) -> None:
    with opened(browser, embedded) as explorer:
        explorer.translate(HOSTILE, HOSTILE)
        explorer.word("target", 0).click()
        explorer.page.wait_for_selector(".alternatives li")
        assert explorer.page.evaluate("window.hit") is None
        assert explorer.page.locator("main img, main script").count() == 0


@pytest.mark.parametrize(
    "rest",
    [
        "word=target.-1&show=nothing",
        "word=x.1&unit=<b>",
        "what-if={",
        'what-if={"kept":5}',
        'what-if={"kept":[],"masked":[],"replaced":null,"given":null}',
        "word=source.99&model=none",
    ],
)
def test_a_link_that_says_nonsense_still_shows_its_text(browser: Browser, tiny: str, rest: str) -> None:
    with opened(browser, tiny, f"#text={quote(SENTENCE)}&{rest}") as explorer:
        explorer.page.wait_for_selector("#edition .word")
        assert "".join(explorer.words("source")) == SENTENCE.replace(" ", "")
        assert explorer.page.input_value("#show") == "weights"
        assert explorer.page.locator("#what-if-result .line").count() == 0


def test_a_refusal_is_told_in_words_with_what_to_do(browser: Browser, tiny: str) -> None:
    with opened(browser, tiny) as explorer:
        explorer.translate("")
        assert "SOURCE_EMPTY" in explorer.text("#failure")
        assert "Type some text first." in explorer.text("#failure")
        explorer.translate("word " * 200)
        assert "Shorten the text" in explorer.text("#failure")
        explorer.page.fill("#text", SENTENCE)
        with explorer.page.expect_response("**/v1/explain"):
            explorer.page.click("#submit")
        explorer.page.wait_for_selector("#edition .word")
        assert not explorer.page.locator("#failure").is_visible()
        refused = [complaint for complaint in explorer.complaints if "400" in complaint]
        assert len(refused) == 2  # the browser's own record of both refusals
        explorer.complaints.clear()


def test_a_service_that_is_gone_is_told_of_and_can_be_tried_again(browser: Browser, tiny: str) -> None:
    with opened(browser, tiny) as explorer:
        explorer.page.route("**/v1/explain", lambda route: route.abort())
        explorer.page.fill("#text", SENTENCE)
        explorer.page.click("#submit")
        explorer.page.wait_for_selector("#failure:not([hidden])")
        assert "The service did not answer" in explorer.text("#failure")
        explorer.page.unroute("**/v1/explain")
        explorer.page.click("#failure button")
        explorer.page.wait_for_selector("#edition .word")
        explorer.complaints.clear()  # the browser's own record of the failed request


def test_typing_again_takes_the_question_back(browser: Browser, tiny: str) -> None:
    with opened(browser, tiny) as explorer:
        held: list[Route] = []
        explorer.page.route("**/v1/explain", lambda route: held.append(route))
        explorer.page.fill("#text", SENTENCE)
        explorer.page.press("#text", "Control+Enter")
        explorer.page.wait_for_selector("body[aria-busy=true]")
        with explorer.page.expect_event("requestfailed"):
            explorer.page.press("#text", "x")
        explorer.page.wait_for_selector("body[aria-busy=false]")
        assert not explorer.page.locator("#failure").is_visible()
        with contextlib.suppress(Error):
            held[0].abort()


def test_the_page_holds_nothing_that_its_policy_forbids() -> None:
    page = (ROOT / "service" / "web" / "index.html").read_text("utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script>|https?://", page)
    for content, _ in web.FILES.values():
        assert b"</style" not in content and b"innerHTML" not in content and b"eval(" not in content
