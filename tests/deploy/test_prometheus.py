"""A real Prometheus scrapes a real service: alerts fire when something goes wrong, and are over when it is mended."""

import asyncio
import contextlib
import datetime
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme

from bundle import manifest as manifests
from bundle.tokenizer import Tokenizer
from service import tracing
from service.engine import Engine
from service.metrics.registration import TOKENS
from tests.deploy.prometheus import Prometheus, running_prometheus
from tests.service.edge import Served, served, service_process
from tests.service.trace_receiver import trace_receiver
from tests.tiny_bundle import SENTENCES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path_factory.mktemp("prometheus")) as running:
        yield running


async def translate(service: Served, texts: list[str], beam_size: int = 1) -> int:
    """Return the status of one call of Translate."""
    request = {"texts": texts, "options": {"beamSize": beam_size}}
    async with httpx.AsyncClient(
        timeout=60, verify=False
    ) as client:  # reading all authorities takes longer than a call
        return (await client.post(f"http://{service.http_address}/v1/translate", json=request)).status_code


@contextlib.asynccontextmanager
async def load(service: Served, texts: int) -> AsyncIterator[None]:
    """Ask for so many translations at once, again and again while the context lasts."""

    async def ask() -> None:
        while True:
            await translate(service, [SENTENCES[0]] * texts, beam_size=4)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def test_a_full_queue(prometheus: Prometheus, tiny_bundle: Path) -> None:
    async with served(tiny_bundle, queue_capacity=2, batch_hypotheses=16) as service:
        prometheus.scrape("queue", service.admin_http_address)
        async with load(service, texts=2):
            await asyncio.sleep(5)
            assert not await prometheus.firing("queue") & {"InterlinearRejects", "InterlinearDown"}
        async with load(service, texts=60):
            await prometheus.fires("InterlinearRejects", "queue")
        await prometheus.is_over("InterlinearRejects", "queue")


async def test_an_engine_that_hangs(prometheus: Prometheus, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mended = threading.Event()
    step, reloaded = Engine.step, Engine.reloaded

    def hanging(engine: Engine, *arguments: object) -> object:
        mended.wait(60)
        return step(engine, *arguments)  # type: ignore[arg-type]  # handed on as they came

    def slowly_reloaded(engine: Engine) -> Engine:
        mended.wait(60)
        return reloaded(engine)

    async with served(tiny_bundle, watchdog_seconds=1) as service:
        prometheus.scrape("engine", service.admin_http_address)
        assert await translate(service, ["abc"]) == 200
        await asyncio.sleep(3)  # a counter that rises is one that was seen before
        monkeypatch.setattr(Engine, "step", hanging)
        monkeypatch.setattr(Engine, "reloaded", slowly_reloaded)
        assert await translate(service, ["abc"]) == 503
        try:
            await prometheus.fires("InterlinearEngineUnhealthy", "engine")
            await prometheus.fires("InterlinearEngineRebuilt", "engine")
        finally:
            mended.set()
        await prometheus.is_over("InterlinearEngineUnhealthy", "engine")
        assert await translate(service, ["abc"]) == 200
        await prometheus.is_over("InterlinearEngineRebuilt", "engine")


async def test_input_that_is_not_what_the_model_was_made_for(
    prometheus: Prometheus, tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    manifest = manifests.read(bundle)
    tokenizer = Tokenizer(bundle / "tokenizer.model")
    lengths = [len(tokenizer.encode_ids(sentence)) + 1 for sentence in SENTENCES]
    places = np.searchsorted(TOKENS, lengths)
    histogram = {"upper_bounds": list(TOKENS), "counts": np.bincount(places, minlength=len(TOKENS) + 1).tolist()}
    manifests.write(bundle, replace(manifest, reference={"histograms": {"source_length_tokens": histogram}}))
    async with served(bundle) as service:
        prometheus.scrape("drift", service.admin_http_address)
        for _ in range(20):
            assert await translate(service, list(SENTENCES)) == 200
        await asyncio.sleep(3)
        assert "InterlinearDrift" not in await prometheus.firing("drift")
        for _ in range(10):
            assert await translate(service, ["xq"] * 100) == 200
        await prometheus.fires("InterlinearDrift", "drift")
        for _ in range(20):
            assert await translate(service, list(SENTENCES) * 10) == 200
        await prometheus.is_over("InterlinearDrift", "drift")


async def test_a_process_that_is_killed_and_one_in_its_place(prometheus: Prometheus, tiny_bundle: Path) -> None:
    with service_process(tiny_bundle) as first:
        prometheus.scrape("killed", address := first.admin_http_address)
        await asyncio.sleep(3)
        assert "InterlinearDown" not in await prometheus.firing("killed")
        first.process.send_signal(signal.SIGKILL)
        await prometheus.fires("InterlinearDown", "killed")
    with service_process(tiny_bundle, ADMIN_HTTP_ADDRESS=address):
        await prometheus.is_over("InterlinearDown", "killed")


async def test_a_bundle_that_is_refused(prometheus: Prometheus, tiny_bundle: Path, tmp_path: Path) -> None:
    with service_process(tiny_bundle, MODELS=str(tmp_path), MODELS_POLL_SECONDS="0.2") as service:
        prometheus.scrape("bundle", service.admin_http_address)
        await asyncio.sleep(3)
        shutil.copytree(tiny_bundle, tmp_path / ".coming")
        (tmp_path / ".coming" / "encoder.onnx").write_bytes(b"cut short")
        (tmp_path / ".coming").rename(tmp_path / "broken")
        await prometheus.fires("InterlinearModelRefused", "bundle")
        shutil.rmtree(tmp_path / "broken")
        await prometheus.is_over("InterlinearModelRefused", "bundle")


async def test_a_bundle_that_was_refused_before_anybody_looked(
    prometheus: Prometheus, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "broken")
    (tmp_path / "broken" / "encoder.onnx").write_bytes(b"cut short")
    with service_process(tiny_bundle, MODELS=str(tmp_path), MODELS_POLL_SECONDS="0.2") as service:
        prometheus.scrape("early", service.admin_http_address)
        await prometheus.fires("InterlinearModelRefused", "early")
        shutil.rmtree(tmp_path / "broken")
        await prometheus.is_over("InterlinearModelRefused", "early")


async def test_a_certificate_that_ends_soon_and_one_that_is_none(
    prometheus: Prometheus, tiny_bundle: Path, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def issue(days: int) -> None:
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        issued = authority.issue_cert("127.0.0.1", not_after=until)
        key.write_bytes(issued.private_key_pem.bytes())
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    issue(days=10)
    with service_process(tiny_bundle, TLS_CERTIFICATE=str(certificate), TLS_KEY=str(key)) as service:
        prometheus.scrape("certificate", service.admin_http_address, "https")
        await prometheus.fires("InterlinearCertificateEndsSoon", "certificate")
        issue(days=300)
        await prometheus.is_over("InterlinearCertificateEndsSoon", "certificate")
        certificate.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
        await prometheus.fires("InterlinearCertificateRefused", "certificate")
        issue(days=300)
        await prometheus.is_over("InterlinearCertificateRefused", "certificate")


async def test_a_latency_leads_to_its_trace(
    prometheus: Prometheus, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
    with trace_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with tracing.sending("otlp"):
            async with served(tiny_bundle) as service, httpx.AsyncClient() as client:
                prometheus.scrape("exemplars", service.admin_http_address)
                url = f"http://{service.http_address}/v1/translate"
                assert (await client.post(url, json={"texts": ["abc"]}, headers=headers)).status_code == 200
                for metric in ("grpc_server_handling_seconds", "interlinear_request_duration_seconds"):
                    assert await prometheus.traces_of(f'{metric}_bucket{{instance="exemplars"}}') == {TRACE_ID}
