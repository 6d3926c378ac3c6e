"""Certificates that change or end while calls come in, quotas, and what none of it leaves in the log."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from google.rpc import error_details_pb2, status_pb2

from service.pb import interlinear_pb2 as pb
from service.pb.interlinear_pb2_grpc import TranslationServiceStub
from tests.service.access.files import TlsFiles, entry, issued, write_tls
from tests.service.edge import SENTENCE, ServiceProcess, served, service_process
from tests.service.refusals import reason_and_field

OLD, NEW, CLIENTS, NEW_CLIENTS = (trustme.CA() for _ in range(4))
KEY = "ilk_" + "k" * 43


def pem(*blobs: trustme.Blob) -> bytes:
    return b"".join(blob.bytes() for blob in blobs)


def open_channel(service: ServiceProcess, client: trustme.LeafCert) -> grpc.aio.Channel:
    """Return a connection that trusts the old authority and the new one."""
    roots = pem(OLD.cert_pem, NEW.cert_pem)
    trust = grpc.ssl_channel_credentials(roots, client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes())
    # Channels to the same address with the same credentials would share a connection.
    return grpc.aio.secure_channel(service.address, trust, options=[("grpc.use_local_subchannel_pool", 1)])


async def translate(channel: grpc.aio.Channel, **metadata: str) -> pb.TranslateResponse:
    request = pb.TranslateRequest(texts=[SENTENCE])
    response: pb.TranslateResponse = await TranslationServiceStub(channel).Translate(
        request, timeout=30, metadata=tuple(metadata.items())
    )
    assert response.results[0].HasField("translation")
    return response


def http_client(client: trustme.LeafCert) -> httpx.AsyncClient:
    trust = httpx.create_ssl_context()
    for authority in (OLD, NEW):
        authority.configure_trust(trust)
    client.configure_cert(trust)
    return httpx.AsyncClient(verify=trust, timeout=30)


async def post(client: httpx.AsyncClient, service: ServiceProcess) -> None:
    response = await client.post(f"https://{service.http_address}/v1/translate", json={"texts": [SENTENCE]})
    assert response.status_code == 200, response.text


async def serial_number(service: ServiceProcess, client: trustme.LeafCert) -> str:
    """Return the serial number of the certificate that HTTP shows now."""
    trust = ssl.create_default_context()
    for authority in (OLD, NEW):
        authority.configure_trust(trust)
    client.configure_cert(trust)
    host, _, port = service.http_address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=trust)
    writer.close()
    return str(writer.get_extra_info("peercert")["serialNumber"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return write_tls(tmp_path_factory.mktemp("tls"), issued(OLD, "127.0.0.1"), CLIENTS)


@pytest.fixture(scope="module")
def service(tiny_bundle: Path, files: TlsFiles) -> Iterator[ServiceProcess]:
    settings = {name.upper(): str(file) for name, file in files.settings.items()}
    with service_process(tiny_bundle, **settings) as running:
        yield running


@contextlib.asynccontextmanager
async def repeating(*calls: Callable[[], Awaitable[object]]) -> AsyncIterator[list[int]]:
    """Make each of the calls again and again while the context lasts; yield how often each was answered.

    Raises:
        ExceptionGroup: One was not answered.
    """
    answered, going_on = [0] * len(calls), True

    async def repeat(index: int) -> None:
        while going_on:
            await calls[index]()
            answered[index] += 1

    async with asyncio.TaskGroup() as group:
        for index in range(len(calls)):
            group.create_task(repeat(index))
        yield answered
        going_on = False


async def test_a_client_whose_certificate_ends_gets_no_further_connection(service: ServiceProcess) -> None:
    client = issued(CLIENTS, "newsroom.example", days=3 / 86_400)
    async with open_channel(service, client) as before, http_client(client) as web:
        await translate(before)
        await post(web, service)
        await asyncio.sleep(4)
        async with open_channel(service, client) as after:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await translate(after)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        async with http_client(client) as late:
            with pytest.raises(httpx.TransportError):
                await post(late, service)
        await translate(before)  # what is connected stays so, until its connection grows too old


async def test_no_call_is_lost_when_the_certificates_of_both_sides_change_under_load(
    service: ServiceProcess, files: TlsFiles
) -> None:
    client, late = issued(CLIENTS, "newsroom.example"), issued(NEW_CLIENTS, "late.example")

    async def over_a_new_connection() -> None:
        async with open_channel(service, client) as channel:
            await translate(channel)

    async def over_a_new_https_connection() -> None:
        async with http_client(client) as web:
            await post(web, service)

    async with open_channel(service, client) as channel, http_client(client) as web:
        kinds = (
            lambda: translate(channel),
            over_a_new_connection,
            lambda: post(web, service),
            over_a_new_https_connection,
        )
        async with asyncio.timeout(60), repeating(*kinds, *kinds) as answered:
            await asyncio.sleep(0.5)
            first = await serial_number(service, client)
            write_tls(files.key.parent, issued(NEW, "127.0.0.1"), CLIENTS)
            files.client_authority.write_bytes(pem(CLIENTS.cert_pem, NEW_CLIENTS.cert_pem))
            while await serial_number(service, client) == first:
                await asyncio.sleep(0.1)
            async with open_channel(service, late) as newcomer:
                await translate(newcomer)
            before = list(answered)
            while not all(now > then for now, then in zip(answered, before, strict=True)):
                await asyncio.sleep(0.1)


async def test_a_quota_is_one_for_both_transports_and_tells_when_to_come_back(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "credentials.toml"
    burst = str(len(SENTENCE) + 3)
    limits = {"quota_characters_per_second": "0.5", "quota_burst_characters": burst, "quota_concurrent": "1"}
    file.write_text(entry("newsroom", key=KEY, **limits))
    async with served(tiny_bundle, credentials=file) as service, httpx.AsyncClient() as web:
        async with grpc.aio.insecure_channel(service.address) as channel:
            await translate(channel, authorization=f"Bearer {KEY}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await translate(channel, authorization=f"Bearer {KEY}")
            headers = {"authorization": f"Bearer {KEY}"}
            url = f"http://{service.http_address}/v1/translate"
            refused = await web.post(url, json={"texts": [SENTENCE]}, headers=headers)
            too_large = await web.post(url, json={"texts": [SENTENCE, SENTENCE]}, headers=headers)
            stream = channel.stream_stream("/interlinear.v1.TranslationService/TranslateStream")
            call = stream(metadata=tuple(headers.items()))
            await call.wait_for_connection()
            await asyncio.sleep(0.2)
            second = await web.post(url, json={"texts": ["a"]}, headers=headers)
            call.cancel()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = dict(caught.value.trailing_metadata() or ())
    retry = error_details_pb2.RetryInfo()
    assert any(
        detail.Unpack(retry) for detail in status_pb2.Status.FromString(details["grpc-status-details-bin"]).details
    )
    assert 1 <= retry.retry_delay.seconds <= 2 * len(SENTENCE)
    assert reason_and_field(refused) == (429, "QUOTA_EXCEEDED", "")
    assert 1 <= int(refused.headers["retry-after"]) <= 2 * len(SENTENCE)
    assert reason_and_field(too_large) == (400, "LARGER_THAN_QUOTA", "text")
    assert reason_and_field(second) == (429, "CONCURRENCY_EXCEEDED", "")


async def test_what_one_caller_sent_is_kept_for_that_caller_alone_over_one_connection_too(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    keys = {name: f"ilk_{name}" for name in ("newsroom", "archive")}
    credentials = tmp_path / "credentials.toml"
    credentials.write_text("".join(entry(name, key=key) for name, key in keys.items()))
    over_http, over_grpc = [], []
    async with served(tiny_bundle, credentials=credentials, cache_bytes=1 << 20) as running:
        address = f"http://{running.http_address}/v1/translate"
        async with httpx.AsyncClient(timeout=30) as http, grpc.aio.insecure_channel(running.address) as channel:
            for name in ("newsroom", "archive", "newsroom", "archive"):
                headers = {"authorization": f"Bearer {keys[name]}"}
                reply = await http.post(address, json={"texts": [SENTENCE]}, headers=headers)
                over_http.append(reply.json()["results"][0]["translation"].get("cached", False))
                response = await translate(channel, **headers)
                over_grpc.append(response.results[0].translation.cached)
    assert over_http == over_grpc == [False, False, True, True]


async def test_no_key_no_certificate_and_no_address_of_a_caller_reaches_the_log(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    file, client = tmp_path / "credentials.toml", issued(CLIENTS, "newsroom.example")
    file.write_text(entry("newsroom", key=KEY))
    settings = {
        name.upper(): str(path)
        for name, path in write_tls(tmp_path, issued(OLD, "127.0.0.1"), CLIENTS).settings.items()
    }
    with service_process(tiny_bundle, LOG_LEVEL="debug", CREDENTIALS=str(file), **settings) as service:
        async with open_channel(service, client) as channel, http_client(client) as web:
            await translate(channel, authorization=f"Bearer {KEY}")
            for wrong in ("ilk_wrong", KEY[:-1]):
                with pytest.raises(grpc.aio.AioRpcError):
                    await translate(channel, authorization=f"Bearer {wrong}")
                headers = {"x-api-key": wrong, "content-type": "nonsense"}
                await web.post(f"https://{service.http_address}/v1/translate", content=SENTENCE, headers=headers)
        stranger = issued(NEW_CLIENTS, "stranger.example")
        async with open_channel(service, stranger) as channel, http_client(stranger) as web:
            with pytest.raises(grpc.aio.AioRpcError):
                await translate(channel)
            with pytest.raises(httpx.TransportError):
                await post(web, service)
        service.process.terminate()
        log = str(service.log())
    assert "draining" in log
    for secret in (KEY, "ilk_wrong", "newsroom.example", "stranger.example", SENTENCE, "127.0.0.1"):
        assert secret not in log
