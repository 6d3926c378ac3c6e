"""One browser, and services to open the page of."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.service.edge import ROOT, service_process
from tests.web.browser import CHROMIUM, Explorer, chromium, opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window. No longer than a module: beside Playwright no other event loop can run."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH; install it to test the explorer")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def tiny(tiny_bundle: Path) -> Iterator[str]:
    """The origin of a service with the tiny bundle."""
    with service_process(tiny_bundle) as service:
        yield f"http://{service.http_address}"


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """The origin of a service with the embedded bundle."""
    with service_process(ROOT / "service" / "bundles" / "en-fr") as service:
        yield f"http://{service.http_address}"


@pytest.fixture
def explorer(browser: Browser, tiny: str) -> Iterator[Explorer]:
    """The page of the tiny bundle, in which nothing may go wrong."""
    with opened(browser, tiny) as explorer:
        yield explorer
