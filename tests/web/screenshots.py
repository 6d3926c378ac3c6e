"""Make the pictures of the documentation anew: ``python -m tests.web.screenshots docs/images [--bundle FOLDER]``."""

import argparse
import re
from pathlib import Path

from tests.service.edge import ROOT, service_process
from tests.web.browser import Explorer, chromium

SENTENCE = "You must tell me the truth now."
_EMBEDDED = ROOT / "service" / "bundles" / "en-fr"
_MARGIN = 16  # px around a part of the page


def main() -> None:
    """Write ``explorer``, ``matrix``, ``what-if`` and ``position-or-meaning``, all PNG, into the folder named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument(
        "--bundle", type=Path, default=_EMBEDDED, help="the bundle to serve (default: the embedded one)"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with service_process(given.bundle) as service, chromium() as browser:
        tab = browser.new_context(
            locale="en-GB", viewport={"width": 1280, "height": 1000}, color_scheme="light", reduced_motion="reduce"
        )
        explorer = Explorer(tab.new_page(), f"http://{service.http_address}")
        explorer.open()
        explorer.translate(SENTENCE)
        _take(explorer, given.folder)


def _take(explorer: Explorer, folder: Path) -> None:
    page = explorer.page
    explorer.word("target", _clearest(explorer)).focus()
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=folder / "explorer.png")
    page.locator("#word [data-check]").first.click()
    page.wait_for_selector(".checked")
    _part(explorer, folder / "position-or-meaning.png", "#edition", "#reading")
    page.click("#reset-what-if")
    drawn_from = page.locator("#edition .source .linked").first.get_attribute("data-index")
    page.click(f'[data-hide="{drawn_from}"]')
    page.click("#run-what-if")
    page.wait_for_selector("#what-if-result .line")
    _part(explorer, folder / "what-if.png", "#what-if", "#what-if")
    page.select_option("#show", "term.input_driven.input_driven")
    page.select_option("#ramp", "color")
    page.locator("#matrix").screenshot(path=folder / "matrix.png")


def _clearest(explorer: Explorer) -> int:
    """Return the word that its check changes most: whether it stays, then by how much its probability moves.

    Only words placed by position or by meaning count; the second word where there is none. Never the first: there
    position and the word that was read cannot be told apart.
    """
    found = [(False, 0, 1)]
    for index in range(1, len(explorer.words("target"))):
        explorer.word("target", index).focus()
        if explorer.page.get_attribute("#word .verdict", "data-verdict") in ("position", "meaning"):
            explorer.page.click("#word [data-check]")
            explorer.page.wait_for_selector(".checked")
            said = explorer.text(".checked")
            before, after, _ = map(int, re.findall(r"(\d+) %", said)[:3])
            found.append(("does not stay" in said, abs(after - before), index))
    explorer.page.click("#reset-what-if")
    return max(found)[2]


def _part(explorer: Explorer, file: Path, first: str, last: str) -> None:
    """Take a picture of the page from the top of one part to the bottom of another."""
    explorer.page.evaluate("scrollTo(0, 0)")
    top, bottom = (explorer.page.locator(part).bounding_box() for part in (first, last))
    assert top and bottom
    start = top["y"] - _MARGIN
    height = bottom["y"] + bottom["height"] + _MARGIN - start
    explorer.page.screenshot(path=file, full_page=True, clip={"x": 0, "y": start, "width": 1280, "height": height})


if __name__ == "__main__":
    main()
