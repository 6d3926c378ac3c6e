import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from service.errors import InvalidSettings
from service.http_server import create_app, running


class Service:
    """What the probes ask: readiness that a test can change, and one metric."""

    def __init__(self) -> None:
        self.ready = True
        self.registry = CollectorRegistry()
        Counter("interlinear_examples", "Examples.", registry=self.registry).inc(3)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(service.registry, lambda: service.ready)
    async with running(app, "127.0.0.1:0") as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    reply = await http.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    (family,) = (f for f in text_string_to_metric_families(reply.text) if f.name == "interlinear_examples")
    assert [sample.value for sample in family.samples if sample.name.endswith("_total")] == [3]


async def test_metrics_are_openmetrics_for_a_scraper_that_prefers_them(http: httpx.AsyncClient) -> None:
    reply = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert reply.text.endswith("# EOF\n")


async def test_readiness_follows_the_service_and_liveness_does_not(http: httpx.AsyncClient, service: Service) -> None:
    assert (await http.get("/readyz")).status_code == 200
    service.ready = False
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/", 404), ("POST", "/metrics", 405)])
async def test_nothing_else_is_served(http: httpx.AsyncClient, method: str, path: str, code: int) -> None:
    assert (await http.request(method, path)).status_code == code


async def test_the_port_is_free_again_after_the_context(service: Service) -> None:
    app = create_app(service.registry, lambda: True)
    async with running(app, "127.0.0.1:0") as port:
        pass
    async with running(app, f"127.0.0.1:{port}") as again:
        assert again == port


async def test_an_address_in_use_is_refused_by_the_name_of_its_setting(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InvalidSettings, match=f"INTERLINEAR_HTTP_ADDRESS={address}"):
            async with running(create_app(service.registry, lambda: True), address):
                raise AssertionError("two servers on one port")
