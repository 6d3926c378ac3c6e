import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import InvalidSettings
from service.http_server import create_app, running
from tests.service.refusals import reason_and_field


class Readiness:
    """What the probes ask, for a test to change."""

    def __init__(self) -> None:
        self.ready = True


@pytest.fixture
def service() -> Readiness:
    return Readiness()


@pytest.fixture
async def http(service: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(lambda: service.ready)
    async with running(app, "127.0.0.1:0") as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def test_readiness_follows_the_service_and_liveness_does_not(http: httpx.AsyncClient, service: Readiness) -> None:
    assert (await http.get("/readyz")).status_code == 200
    service.ready = False
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/", 404), ("GET", "/metrics", 404), ("POST", "/healthz", 405)]
)
async def test_nothing_else_is_served(http: httpx.AsyncClient, method: str, path: str, code: int) -> None:
    response = await http.request(method, path)
    assert reason_and_field(response) == (code, "METHOD_UNKNOWN", "")


async def test_a_path_with_a_slash_too_many_is_not_there_and_leads_nowhere() -> None:
    async def name(request: Request) -> Response:
        return Response(request.path_params["name"])

    app = create_app(lambda: True, [Route("/names/{name}", name)])
    async with running(app, "127.0.0.1:0") as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/names/a")).text == "a"
        for path in ("/names/a/", "/names/a%2f", "/readyz/"):
            assert reason_and_field(await http.get(path)) == (404, "METHOD_UNKNOWN", "")


async def test_the_port_is_free_again_after_the_context(service: Readiness) -> None:
    app = create_app(lambda: True)
    async with running(app, "127.0.0.1:0") as port:
        pass
    async with running(app, f"127.0.0.1:{port}") as again:
        assert again == port


async def test_an_address_in_use_is_refused_by_the_name_of_its_setting(service: Readiness) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InvalidSettings, match=f"INTERLINEAR_HTTP_ADDRESS={address}"):
            async with running(create_app(lambda: True), address):
                raise AssertionError("two servers on one port")
