"""A service that asks its callers who they are: the explorer asks its reader for a key, and keeps it to itself."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from service.access.credentials import new_key
from tests.service.access.files import entry
from tests.service.edge import service_process
from tests.web.browser import SENTENCE, Explorer

pytestmark = pytest.mark.slow

KEY, EXPIRED, TRANSLATOR = new_key(), new_key(), new_key()
_STORES = (
    "() => JSON.stringify([location.href, {...localStorage}, {...sessionStorage}, document.cookie, history.state])"
)


@pytest.fixture(scope="module")
def asking(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a service that lets nobody in without a key."""
    credentials = tmp_path_factory.mktemp("access") / "credentials.toml"
    yesterday = (date.today() - timedelta(days=2)).isoformat()
    entries = (
        entry("reader", '"translate", "explain"', KEY),
        entry("former", '"explain"', EXPIRED, expires=yesterday),
        entry("translator", '"translate"', TRANSLATOR),
    )
    credentials.write_text("".join(entries))
    with service_process(tiny_bundle, CREDENTIALS=str(credentials)) as service:
        yield f"http://{service.http_address}"


@pytest.fixture
def explorer(browser: Browser, asking: str) -> Iterator[Explorer]:
    """The page, before anybody typed a key."""
    tab = browser.new_context(locale="en-GB")
    try:
        explorer = Explorer(tab.new_page(), asking)
        explorer.page.goto(asking)
        explorer.page.wait_for_selector("#key")
        yield explorer
        assert all("401" in complaint or "403" in complaint for complaint in explorer.complaints)
    finally:
        tab.close()


def type_key(explorer: Explorer, key: str, status: int) -> None:
    """Type a key where the focus is, press Enter, and wait for an answer of that status."""
    with explorer.page.expect_response(lambda response: "/v1/" in response.url and response.status == status):
        explorer.page.keyboard.type(key)
        explorer.page.keyboard.press("Enter")


def test_a_reader_types_a_key_without_a_mouse_and_goes_on(explorer: Explorer) -> None:
    page = explorer.page
    assert "CREDENTIALS_MISSING" in explorer.text("#failure")
    assert page.evaluate("document.activeElement.id") == "key"
    assert page.get_by_label("API key").get_attribute("type") == "password"
    type_key(explorer, "ilk_wrong", 401)
    page.wait_for_selector("text=CREDENTIALS_INVALID")
    assert (page.input_value("#key"), page.evaluate("document.activeElement.id")) == ("", "key")
    type_key(explorer, EXPIRED, 401)
    page.wait_for_selector("text=CREDENTIALS_EXPIRED")
    type_key(explorer, f" {KEY} ", 200)
    page.wait_for_selector("#failure", state="hidden")
    page.wait_for_function("document.activeElement.id === 'text'")
    explorer.translate(SENTENCE)
    page.wait_for_selector("#edition .word")
    explorer.word("target", 0).click()
    page.wait_for_selector(".alternatives li")
    assert page.locator("#key").count() == 0 or not page.locator("#key").is_visible()


def test_the_key_goes_to_the_service_in_a_header_and_nowhere_else(explorer: Explorer) -> None:
    type_key(explorer, KEY, 200)
    explorer.translate(SENTENCE)
    explorer.page.wait_for_selector("#edition .word")
    calls = [request for request in explorer.asked if "/v1/" in request.url]
    assert calls[0].headers.get("authorization") is None
    assert {request.headers.get("authorization") for request in calls[1:]} == {f"Bearer {KEY}"}
    assert not any(KEY in request.url or KEY in (request.post_data or "") for request in explorer.asked)
    kept = explorer.page.evaluate(_STORES)
    assert json.loads(kept)[0].startswith(f"{explorer.origin}/#text=")
    assert KEY not in kept and KEY not in explorer.page.content()
    explorer.page.reload()
    explorer.page.wait_for_selector("#key")


def test_what_cannot_be_a_key_is_not_sent(explorer: Explorer) -> None:
    asked = len(explorer.asked)
    for typed in ("", "ключ", "two words"):
        explorer.page.fill("#key", typed)
        explorer.page.press("#key", "Enter")
    assert not explorer.page.evaluate("document.getElementById('key').checkValidity()")
    assert len(explorer.asked) == asked


def test_a_key_without_the_role_is_told_of_in_words(explorer: Explorer) -> None:
    type_key(explorer, TRANSLATOR, 200)
    explorer.translate(SENTENCE)
    assert "PERMISSION_DENIED" in explorer.text("#failure")
    assert "load the page again" in explorer.text("#failure")


def test_it_asks_in_chinese_as_well(explorer: Explorer) -> None:
    explorer.page.click("#language")
    explorer.page.reload()
    explorer.page.wait_for_selector("#key")
    assert "请输入服务所有者给您的密钥" in explorer.text("#failure")
    assert explorer.page.get_by_label("API 密钥").is_visible()
    type_key(explorer, KEY, 200)
    explorer.page.wait_for_selector("#model option", state="attached")
