"""A report in a real browser, opened from a file: sorted, opened and walked through without a network."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from service.commands.report_page import measure, report_into
from tests.service.explanations import explanation
from tests.web.browser import CHROMIUM, chromium

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH; install it to test the page"),
    pytest.mark.slow,
]

SENTENCES = (
    ("the old house", "la vieille maison"),
    ("שלום עולם", "bonjour le monde"),
    ("我 喜欢 城市", "j' aime la ville"),
)
HOSTILE = '<img src=x onerror="window.hit=1">', "</script><script>window.hit=1</script>"
CONFIDENCES = (-0.5, -3.0, -0.1, -1.0)
MEASURES = ("confidence", "weakest word", "uncovered source", "delta share", "repetition", "alignment entropy")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of four sentences of known confidence and one refused line."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    with report_into(file, "sentences.txt") as report:
        for line, ((source, target), nats) in enumerate(zip((*SENTENCES, HOSTILE), CONFIDENCES, strict=True), 1):
            response = explanation(source.split(), target.split())
            response.hypothesis.log_probability = nats * len(response.hypothesis.token_log_probabilities)
            report.add(line, response)
        report.refuse(5, "no <b>text</b>")
    return file


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    """The report in a tab; afterwards nothing must have gone wrong in it, and nothing have been asked for."""
    tab = browser.new_context(locale="en-GB", viewport={"width": 1200, "height": 900})
    page = tab.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: complaints.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    yield page
    assert page.evaluate("window.hit") is None
    tab.close()
    assert complaints == []


def lines(page: Page) -> list[str]:
    rows = page.locator("#sentences tbody tr[data-line]")
    found: list[str] = rows.evaluate_all("rows => rows.map(row => row.dataset.line)")
    return found


def test_a_columns_name_sorts_by_it_and_once_more_turns_it_round(page: Page) -> None:
    assert lines(page) == ["1", "2", "3", "4"]
    page.get_by_role("button", name="confidence").click()
    assert lines(page) == ["2", "4", "1", "3"], "the least sure first"
    assert page.locator("th[aria-sort=ascending]").inner_text() == "confidence"
    page.keyboard.press("Enter")
    assert lines(page) == ["3", "1", "4", "2"]
    assert page.locator("th[aria-sort=descending]").inner_text() == "confidence"
    page.get_by_role("button", name="line", exact=True).click()
    assert lines(page) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("column", MEASURES)
def test_what_to_worry_about_comes_first(page: Page, column: str) -> None:
    page.get_by_role("button", name=column).click()
    index = MEASURES.index(column) + 2
    values = page.locator("#sentences tbody tr").evaluate_all(
        "(rows, index) => rows.map(row => Number(row.cells[index].dataset.value))", index
    )
    assert values == sorted(values, reverse=column not in ("confidence", "weakest word"))


def test_on_a_telephone_every_column_can_be_read_and_sorted_by(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator("tr[data-line='1'] p").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    heading, texts = (page.locator("thead th").nth(index).bounding_box() for index in (0, 1))
    assert heading is not None and texts is not None and heading["x"] + heading["width"] <= texts["x"]
    row = page.locator("tr[data-line='1']")
    for index, column in enumerate(MEASURES, 2):
        name = page.get_by_role("button", name=column).bounding_box()
        value = row.locator("td").nth(index).bounding_box()
        assert name is not None and value is not None
        assert name["x"] >= 0 and name["x"] + name["width"] <= 390
        middle = name["x"] + name["width"] / 2
        assert value["x"] <= middle <= value["x"] + value["width"], "a number stands in the column of its name"
    page.get_by_role("button", name="confidence").click()
    assert lines(page) == ["2", "4", "1", "3"]


def test_a_line_opens_by_click_into_its_words_and_its_matrix(page: Page) -> None:
    page.locator("tr[data-line='1'] p").first.click()
    words = "words => words.map(word => word.firstChild.textContent)"
    for side, text in zip(("source", "target"), SENTENCES[0], strict=True):
        assert page.locator(f"#edition .word[data-side={side}]").evaluate_all(words) == text.split()
    response = explanation(SENTENCES[0][0].split(), SENTENCES[0][1].split())
    weights = np.frombuffer(response.hypothesis.alignment.word_weights.packed_float32, "<f4")
    fills = page.locator(".sheet .body rect").evaluate_all("cells => cells.map(cell => cell.getAttribute('fill'))")
    shades = [int(fill.removeprefix("rgb(").split(",")[0]) for fill in fills]
    assert shades == pytest.approx(255 * weights, abs=1.0), "0 black, 1 white, row after row"
    page.locator("tr[data-line='1'] p").first.click()
    assert page.locator(".sheet").count() == 0


def test_keys_walk_from_line_to_line_and_into_the_words(page: Page) -> None:
    openers = page.locator("button.open-line")
    assert openers.evaluate_all("all => all.filter(each => each.tabIndex === 0).length") == 1
    openers.first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#edition").is_visible()
    page.keyboard.press("ArrowDown")
    assert page.locator("tr.open").get_attribute("data-line") == "2"
    assert page.evaluate("document.activeElement.textContent") == "2"
    page.keyboard.press("End")
    assert page.locator("tr.open").get_attribute("data-line") == "4"
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "the"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "old"
    assert page.locator("#edition .word.chosen").inner_text() == "old"
    assert page.locator("#edition .target .above").all_inner_texts() != ["", "", ""]


def test_right_to_left_lines_run_from_the_right(page: Page) -> None:
    page.locator("tr[data-line='2'] p").first.click()
    boxes = [page.locator(f"#edition .word[data-side=source][data-index='{index}']").bounding_box() for index in (0, 1)]
    assert boxes[0] is not None and boxes[1] is not None and boxes[0]["x"] > boxes[1]["x"]


def test_it_speaks_chinese_and_stays_open_where_it_was(page: Page) -> None:
    page.locator("tr[data-line='3'] p").first.click()
    page.click("#language")
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    shown = page.inner_text("body")
    for english in ("confidence", "What the columns mean", "Refused lines", "Across: source", "Model:"):
        assert english not in shown
    assert page.locator("tr.open").get_attribute("data-line") == "3"
    page.click("#language")
    assert "confidence" in page.inner_text("body")


def test_dark_is_dark(page: Page) -> None:
    page.select_option("#theme", "dark")
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(red, green, blue) < 60


def test_without_javascript_the_table_says_everything(browser: Browser, file: Path) -> None:
    tab = browser.new_context(java_script_enabled=False)
    page = tab.new_page()
    page.goto(file.as_uri())
    shown = page.inner_text("body")
    for text in (
        "the old house",
        "שלום עולם",
        "我 喜欢 城市",
        HOSTILE[1],
        "no <b>text</b>",
        "median",
        "Geometric mean",
    ):
        assert text in shown
    assert "{" not in shown, "no record is shown"
    tab.close()


def test_a_thousand_lines_are_sorted_at_once(browser: Browser, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    response = explanation([f"word{index}" for index in range(20)], [f"mot{index}" for index in range(20)])
    with report_into(tmp_path / "large.html", "large.txt") as report:
        for line in range(1, 1001):
            response.hypothesis.log_probability = -float(random.uniform(1, 60))
            report.add(line, response)
    assert measure(response).confidence < 1
    assert (tmp_path / "large.html").stat().st_size < 3e6
    page = browser.new_page()
    page.goto((tmp_path / "large.html").as_uri())
    seconds = page.evaluate(
        """() => {
            const start = performance.now();
            document.querySelector("th:nth-child(3) button").click();
            document.body.offsetHeight;
            return (performance.now() - start) / 1000;
        }"""
    )
    assert seconds < 5
    page.close()
