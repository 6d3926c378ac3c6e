"""What each listener shows and to whom, over plain text and over TLS, and when it says that it is ready."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from service.access.credentials import new_key
from service.client import CallFailed, Client, Security
from service.grpc_server import ADMINISTRATION, PUBLIC
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.service.access.files import TlsFiles, entry, issued, trusting, write_tls
from tests.service.edge import SENTENCE, Served, metric_value, served, service_process
from tests.service.refusals import reason_and_field, refusal

TEXTS = {"texts": [SENTENCE], "options": {"beamSize": 1, "maxTargetTokens": 4}}
AUTHORITY, CLIENTS = trustme.CA(), trustme.CA()
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client of any listener."""
    async with httpx.AsyncClient(timeout=60) as client:
        yield client


async def test_each_listener_has_its_own_calls_and_no_other(service: Served) -> None:
    async with (
        grpc.aio.insecure_channel(service.address) as public,
        grpc.aio.insecure_channel(service.admin_grpc_address) as administration,
    ):
        load = pb.LoadModelRequest(folder="none")
        refused = await refusal(pb_grpc.ModelAdminServiceStub(administration).LoadModel(load))
        assert refused.reason != "METHOD_UNKNOWN"
        for call in (
            pb_grpc.ModelAdminServiceStub(public).LoadModel(load),
            pb_grpc.ModelServiceStub(administration).ListModels(pb.ListModelsRequest()),
            public.unary_unary("/interlinear.v1.TranslationService/Nothing")(b""),
            public.unary_unary("/nothing.at.All/Nothing")(b""),
        ):
            refused = await refusal(call)
            assert refused[:2] == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
            assert "interlinear.v1." in refused.message
        for channel, face in ((public, PUBLIC), (administration, ADMINISTRATION)):
            check = health_pb2_grpc.HealthStub(channel).Check
            for name in ("", *face.services):
                assert (await check(health_pb2.HealthCheckRequest(service=name))).status == SERVING


async def test_metrics_are_for_those_who_run_the_service(service: Served, http: httpx.AsyncClient) -> None:
    missing = await http.get(f"http://{service.http_address}/metrics")
    assert reason_and_field(missing) == (404, "METHOD_UNKNOWN", "")
    await http.post(f"http://{service.http_address}/v1/translate", json=TEXTS)
    url = f"http://{service.admin_http_address}/metrics"
    plain = await http.get(url)
    assert plain.headers["content-type"].startswith("text/plain; version=")
    (family,) = (f for f in text_string_to_metric_families(plain.text) if f.name == "grpc_server_started")
    assert sum(s.value for s in family.samples if s.labels["grpc_method"] == "Translate") == 1
    preferred = await http.get(url, headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert preferred.headers["content-type"].startswith("application/openmetrics-text")
    assert preferred.text.endswith("# EOF\n")


HERE = ("localhost", "LOCALHOST:1", "127.0.0.1", "127.9.8.7:8080", "[::1]:8080", "[::1]")
ELSEWHERE = (
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "[::2]",
)


@pytest.mark.parametrize("listener", ["http_address", "admin_http_address"])
async def test_without_credentials_only_names_of_this_machine_are_answered(
    service: Served, http: httpx.AsyncClient, listener: str
) -> None:
    url = f"http://{getattr(service, listener)}"
    body = {"name": "tiny", "version": "9"}
    for host in (*HERE, *ELSEWHERE):
        headers = {"host": host}
        probe = await http.get(f"{url}/readyz", headers=headers)
        answers = [
            await http.get(url, headers=headers),
            await http.get(f"{url}/metrics", headers=headers),
            await http.post(f"{url}/v1/admin/models/unload", json=body, headers=headers),
            await http.post(f"{url}/v1/translate", json=TEXTS, headers=headers),
        ]
        assert probe.status_code == 200
        for answer in answers:
            assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
            assert (answer.status_code == 403) is (host in ELSEWHERE)
            if host in ELSEWHERE:
                assert reason_and_field(answer) == (403, "PERMISSION_DENIED", "")
                assert "localhost" in answer.text and "INTERLINEAR_ALLOW_UNPROTECTED=true" in answer.text


async def test_where_something_else_tells_strangers_apart_any_name_is_answered(
    tiny_bundle: Path, tmp_path: Path, http: httpx.AsyncClient
) -> None:
    credentials, key = tmp_path / "credentials.toml", new_key()
    credentials.write_text(entry("newsroom", key=key))
    for settings in ({"allow_unprotected": True}, {"credentials": credentials}):
        async with served(tiny_bundle, **settings) as running:
            headers = {"host": "translate.example", "x-api-key": key}
            url = f"http://{running.http_address}/v1/translate"
            assert (await http.post(url, json=TEXTS, headers=headers)).status_code == 200


async def test_models_are_administered_over_http_on_the_listener_for_it(
    service: Served, http: httpx.AsyncClient
) -> None:
    body = {"name": "tiny", "version": "9"}
    answered = await http.post(f"http://{service.admin_http_address}/v1/admin/models/unload", json=body)
    assert reason_and_field(answered) == (404, "MODEL_NOT_FOUND", "")
    missing = await http.post(f"http://{service.http_address}/v1/admin/models/unload", json=body)
    assert reason_and_field(missing) == (404, "METHOD_UNKNOWN", "")
    translated = await http.post(f"http://{service.admin_http_address}/v1/translate", json=TEXTS)
    assert reason_and_field(translated) == (404, "METHOD_UNKNOWN", "")


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/v1/models", "/nothing", "/v1/translate", "/explorer.js"]
)
async def test_every_answer_over_http_has_the_headers_that_protect(
    service: Served, http: httpx.AsyncClient, path: str
) -> None:
    response = await http.get(f"http://{service.http_address}{path}")
    assert SECURITY_HEADERS.items() <= dict(response.headers).items()
    assert "default-src" in response.headers["content-security-policy"]
    assert response.headers["cache-control"] in ("no-store", "no-cache")
    assert "strict-transport-security" not in response.headers
    assert "server" not in response.headers


async def test_an_unready_service_says_so_to_every_probe_and_recovers(
    service: Served, channel: grpc.aio.Channel, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watches = {name: stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in PUBLIC.needing_models}
    for expected, readiness, health in (
        (SERVING, 200, "serving"),
        (NOT_SERVING, 503, "rebuilding"),
        (SERVING, 200, "serving"),
    ):
        monkeypatch.setattr(service.model.scheduler._watchdog, "health", health)
        for watch in watches.values():
            assert (await asyncio.wait_for(watch.read(), 5)).status == expected
        assert (await http.get(f"http://{service.http_address}/readyz")).status_code == readiness
        assert (await http.get(f"http://{service.http_address}/healthz")).status_code == 200
        models = await stub.Check(health_pb2.HealthCheckRequest(service="interlinear.v1.ModelService"))
        assert models.status == SERVING


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return write_tls(tmp_path, issued(AUTHORITY, "localhost"), CLIENTS)


def security(client: trustme.LeafCert | None = None, key: str | None = None) -> Security:
    chain = client.cert_chain_pems[0].bytes() if client else None
    return Security(key, False, AUTHORITY.cert_pem.bytes(), chain, client.private_key_pem.bytes() if client else None)


def named(address: str) -> str:
    """Return an address under the name that the certificate is for."""
    return address.replace("127.0.0.1", "localhost")


async def test_with_a_certificate_every_listener_speaks_tls(tiny_bundle: Path, files: TlsFiles) -> None:
    own = {name: path for name, path in files.settings.items() if name != "tls_client_authority"}
    async with served(tiny_bundle, **own) as running:
        for address in (running.address, running.admin_grpc_address):
            credentials = grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes())
            async with grpc.aio.secure_channel(named(address), credentials) as channel:
                check = health_pb2_grpc.HealthStub(channel).Check
                assert (await check(health_pb2.HealthCheckRequest())).status == SERVING
            async with Client(address, timeout_seconds=1) as plain:
                with pytest.raises(CallFailed):
                    await plain.list_models()
        async with httpx.AsyncClient(verify=trusting(AUTHORITY)) as http:
            for address in (running.http_address, running.admin_http_address):
                response = await http.get(f"https://{named(address)}/readyz")
                assert response.status_code == 200
                assert response.headers["strict-transport-security"] == "max-age=31536000"
                with pytest.raises(httpx.TransportError):
                    await http.get(f"http://{address}/readyz")
        async with Client(named(running.address), security=security()) as client:
            assert (await client.list_models()).models


async def test_a_certificate_or_a_key_says_who_calls_over_either_transport(
    tiny_bundle: Path, tmp_path: Path, files: TlsFiles
) -> None:
    key, scraper = new_key(), new_key()
    newsroom, stranger = issued(CLIENTS, "newsroom.example"), issued(CLIENTS, "stranger.example")
    credentials = tmp_path / "credentials.toml"
    credentials.write_text(
        entry("newsroom", certificate='["newsroom.example"]')
        + entry("explainer", '"explain"', key)
        + entry("scraper", '"monitor"', scraper)
    )
    async with served(tiny_bundle, credentials=credentials, **files.settings) as running:
        translate = pb.TranslateRequest(texts=[SENTENCE], options=pb.DecodingOptions(beam_size=1))
        address = named(running.address)
        async with Client(address, security=security(newsroom)) as client:
            assert (await client.translate(translate)).results
            with pytest.raises(CallFailed) as caught:
                await client.explain(pb.ExplainRequest(text=SENTENCE))
            assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        async with Client(address, security=security(stranger, key)) as client:
            assert (await client.explain(pb.ExplainRequest(text=SENTENCE))).hypothesis.text
        async with Client(address, security=security(stranger)) as client:
            with pytest.raises(CallFailed) as caught:
                await client.translate(translate)
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
        url = f"https://{named(running.http_address)}/v1/translate"
        metrics = f"https://{named(running.admin_http_address)}/metrics"
        async with httpx.AsyncClient(verify=trusting(AUTHORITY, newsroom), timeout=60) as http:
            assert (await http.post(url, json=TEXTS)).status_code == 200
            assert reason_and_field(await http.get(metrics)) == (403, "PERMISSION_DENIED", "")
            allowed = await http.get(metrics, headers={"authorization": f"Bearer {scraper}"})
            assert allowed.text.startswith("# HELP")
        async with httpx.AsyncClient(verify=trusting(AUTHORITY, stranger), timeout=60) as http:
            refused = await http.post(url, json=TEXTS)
            assert reason_and_field(refused) == (401, "CREDENTIALS_INVALID", "")
            assert refused.headers["www-authenticate"] == "Bearer"
            denied = await http.post(url, json=TEXTS, headers={"x-api-key": key})
            assert reason_and_field(denied) == (403, "PERMISSION_DENIED", "")
        async with httpx.AsyncClient(verify=trusting(AUTHORITY)) as http:  # a probe has no certificate
            assert (await http.get(f"https://{named(running.http_address)}/healthz")).status_code == 200
        handled = {"grpc_method": "Translate", "grpc_code": "UNAUTHENTICATED"}
        for transport in ("grpc", "http"):
            assert metric_value(running.metrics, "grpc_server_handled_total", transport=transport, **handled) == 1


async def test_a_listener_that_is_off_is_not_there(tiny_bundle: Path) -> None:
    with service_process(tiny_bundle, ADMIN_GRPC_ADDRESS="off", ADMIN_HTTP_ADDRESS="off") as process:
        assert not process.admin_grpc_address and not process.admin_http_address
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://{process.http_address}/readyz")).status_code == 200
