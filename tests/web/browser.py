"""A real browser for the explorer: headless Chromium, and what a person does with the page and sees of it."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, Request, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SENTENCE = "The house is small, but the garden is big."
HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium while the context lasts."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--force-color-profile=srgb"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Explorer:
    """The page in one tab, and everything that went wrong there.

    Attributes:
        page: The tab.
        origin: Where the service is: scheme, host and port.
        complaints: Errors on the console, uncaught exceptions, requests to elsewhere.
        asked: Every request that was sent.
    """

    page: Page
    origin: str
    complaints: list[str] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen from the beginning."""
        self.page.on("console", lambda message: self._complain(message.type == "error", message.text))
        self.page.on("pageerror", lambda error: self._complain(True, str(error)))
        self.page.on("request", self._note)

    def _complain(self, bad: bool, text: str) -> None:
        if bad:
            self.complaints.append(text)

    def _note(self, request: Request) -> None:
        self.asked.append(request)
        address = urlsplit(request.url)
        local = address.scheme in ("data", "blob") or f"{address.scheme}://{address.netloc}" == self.origin
        self._complain(not local, f"asked {request.url}")

    def open(self, fragment: str = "") -> None:
        """Open the page, and wait until it knows its models."""
        self.page.goto(f"{self.origin}/{fragment}")
        self.page.wait_for_selector("#model option", state="attached")

    def translate(self, text: str, target: str | None = None) -> None:
        """Ask for a translation, or for an explanation of ``target``, and wait for the answer."""
        self.page.fill("#text", text)
        if target is not None:
            if not self.page.locator("#target").is_visible():
                self.page.click("#own summary")
            self.page.fill("#target", target)
        with self.page.expect_response("**/v1/explain"):
            self.page.press("#text", "Control+Enter")
        self.page.wait_for_selector("body[aria-busy=false]")

    def word(self, side: str, index: int) -> Locator:
        """Return a word of the edition."""
        return self.page.locator(f'#edition .word[data-side="{side}"][data-index="{index}"]')

    def words(self, side: str) -> list[str]:
        """Return the words of one side as shown, without marks of notes."""
        script = "words => words.map(word => word.firstChild.textContent)"
        found: list[str] = self.page.locator(f'#edition .word[data-side="{side}"]').evaluate_all(script)
        return found

    def classes(self, side: str, index: int) -> list[str]:
        """Return how a word is marked."""
        return (self.word(side, index).get_attribute("class") or "").split()

    def focused(self) -> tuple[str, int]:
        """Return the side and the index of the word that has the focus."""
        script = "(({side, index}) => [side, Number(index)])(document.activeElement.dataset)"
        side, index = self.page.evaluate(script)
        return side, index

    def text(self, selector: str) -> str:
        """Return what an element says, spaces that may not break as plain ones."""
        return self.page.locator(selector).inner_text().replace("\u00a0", " ")

    def cell_colors(self) -> list[list[int]]:
        """Return red, green and blue of every cell of the matrix, row after row."""
        cells = self.page.locator("#sheet .body rect:not(.frame)")
        fills = cells.evaluate_all("cells => cells.map(cell => cell.getAttribute('fill'))")
        return [[int(channel) for channel in re.findall(r"\d+", fill)] for fill in fills]

    def reading(self, script: str, argument: object = None) -> Any:
        """Return what ``script``, a function of the page's module reading.js and of ``argument``, returns."""
        return self.page.evaluate(f"async argument => ({script})(await import('/reading.js'), argument)", argument)


@contextlib.contextmanager
def opened(browser: Browser, origin: str, fragment: str = "", **context: Any) -> Iterator[Explorer]:
    """Open the page in a tab of its own; afterwards nothing must have gone wrong in it.

    Args:
        browser: Where to open it.
        origin: Of the service.
        fragment: Of the address, ``#`` included.
        context: What kind of reader: ``color_scheme`` and the like.
    """
    tab = browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 900}, **context)
    explorer = Explorer(tab.new_page(), origin)
    try:
        explorer.open(fragment)
        yield explorer
        assert not explorer.complaints
    finally:
        tab.close()
