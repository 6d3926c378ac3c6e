from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from service import pages

FILES = {"/": (b"<!doctype html>", "text/html; charset=utf-8"), "/explorer.js": (b"1;", "text/javascript")}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=pages.routes(FILES)))
    async with httpx.AsyncClient(transport=transport, base_url="http://explorer") as client:
        yield client


@pytest.mark.parametrize("path", FILES)
async def test_a_file_comes_as_it_is_and_may_load_nothing_from_elsewhere(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert (response.content, response.headers["content-type"]) == FILES[path]
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]


async def test_a_browser_asks_each_time_and_gets_only_what_has_changed(http: httpx.AsyncClient) -> None:
    first = await http.get("/")
    assert first.headers["cache-control"] == "no-cache"
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = await http.get("/", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert (await http.get("/", headers={"if-none-match": '"other"'})).content == first.content
    assert (await http.get("/explorer.js")).headers["etag"] != first.headers["etag"]


async def test_nothing_else_is_there(http: httpx.AsyncClient) -> None:
    assert (await http.get("/explorer.css")).status_code == 404
    assert (await http.post("/")).status_code == 405
