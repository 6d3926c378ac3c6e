import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import structlog
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from prometheus_client import CollectorRegistry

from service.access.certificates import Certificates
from service.errors import InvalidSettings
from service.metrics import Metrics
from service.settings import read_settings
from tests.service.access.files import TlsFiles, issued, trusting, write_tls

AUTHORITY, CLIENTS = trustme.CA(), trustme.CA()


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return write_tls(tmp_path, issued(AUTHORITY, "localhost"), CLIENTS)


def certificates(files: TlsFiles, metrics: Metrics | None = None) -> Certificates:
    return Certificates(read_settings(**files.settings), metrics or Metrics.on(CollectorRegistry()))


async def over_http(own: Certificates, authority: trustme.CA, client: trustme.LeafCert | None) -> tuple[str, ...]:
    """Shake hands as HTTP does; return serial number of the service's certificate and names of the client's."""
    names: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names.extend(name for _, name in (writer.get_extra_info("peercert") or {}).get("subjectAltName", ()))
        writer.write(b".")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=own.ssl_context()) as server:
        port = server.sockets[0].getsockname()[1]
        return await serial_at(port, trusting(authority, client), "localhost"), *names


async def serial_at(port: int, trust: ssl.SSLContext, server_name: str) -> str:
    """Return the serial number of the certificate that answers at ``port``.

    Raises:
        ConnectionError: It did not answer; a client of TLS 1.3 has shaken hands before the server looks at it.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=server_name)
    try:
        if await asyncio.wait_for(reader.read(), timeout=5.0) != b".":
            raise ConnectionError
        return str(writer.get_extra_info("peercert")["serialNumber"])
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def grpc_listener(own: Certificates) -> AsyncIterator[int]:
    """Run a gRPC server that tells each caller the names in its certificate; yield its port."""

    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return b",".join(context.auth_context().get("x509_subject_alternative_name", ()))

    handler = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"B": handler}),))
    port = server.add_secure_port("localhost:0", own.grpc_credentials())
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def names_at(port: int, authority: trustme.CA, client: trustme.LeafCert | None) -> bytes:
    """Return what the gRPC server at ``port`` says to a caller."""
    chain, key = None, None
    if client is not None:
        chain, key = client.cert_chain_pems[0].bytes(), client.private_key_pem.bytes()
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        return bytes(await channel.unary_unary("/a/B")(b"", timeout=5.0))


async def over_grpc(own: Certificates, authority: trustme.CA, client: trustme.LeafCert | None) -> bytes:
    async with grpc_listener(own) as port:
        return await names_at(port, authority, client)


async def test_both_transports_see_the_names_of_a_certificate_that_a_trusted_authority_signed(files: TlsFiles) -> None:
    client = issued(CLIENTS, "newsroom.example")
    assert (await over_http(certificates(files), AUTHORITY, client))[1:] == ("newsroom.example",)
    assert b"newsroom.example" in await over_grpc(certificates(files), AUTHORITY, client)


@pytest.mark.parametrize("client", [issued(trustme.CA(), "newsroom.example"), issued(CLIENTS, "late.example", -1)])
async def test_a_certificate_of_a_stranger_or_of_the_past_fails_the_handshake(
    files: TlsFiles, client: trustme.LeafCert
) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await over_http(certificates(files), AUTHORITY, client)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await over_grpc(certificates(files), AUTHORITY, client)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_without_a_certificate_grpc_fails_and_http_lets_the_authority_decide(files: TlsFiles) -> None:
    assert len(await over_http(certificates(files), AUTHORITY, None)) == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await over_grpc(certificates(files), AUTHORITY, None)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_without_client_authority_nobody_is_asked_for_a_certificate(files: TlsFiles) -> None:
    settings = read_settings(tls_certificate=files.certificate, tls_key=files.key)
    own = Certificates(settings, Metrics.on(CollectorRegistry()))
    assert len(await over_http(own, AUTHORITY, None)) == 1
    assert await over_grpc(own, AUTHORITY, None) == b""


async def test_new_files_count_from_the_next_handshake_and_old_ones_no_more(files: TlsFiles) -> None:
    own = certificates(files)
    old, new_authority, new_clients = issued(CLIENTS, "old.example"), trustme.CA(), trustme.CA()
    async with grpc_listener(own) as port:
        assert (await over_http(own, AUTHORITY, old))[1:] == ("old.example",)
        assert b"old.example" in await names_at(port, AUTHORITY, old)
        write_tls(files.key.parent, issued(new_authority, "localhost"), new_clients)
        own.reload()
        new = issued(new_clients, "new.example")
        assert (await over_http(own, new_authority, new))[1:] == ("new.example",)
        assert b"new.example" in await names_at(port, new_authority, new)
        for authority, client in ((new_authority, old), (AUTHORITY, new)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await over_http(own, authority, client)
            with pytest.raises(grpc.aio.AioRpcError):
                await names_at(port, authority, client)


@pytest.mark.parametrize("server_name", ["localhost", ""])
async def test_a_listener_that_runs_takes_over_new_files_whether_or_not_it_is_named(
    files: TlsFiles, server_name: str
) -> None:
    own, renewed = certificates(files), trustme.CA()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b".")
        writer.close()

    def trust(authority: trustme.CA) -> ssl.SSLContext:
        context = trusting(authority)
        context.check_hostname = bool(server_name)
        return context

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=own.ssl_context()) as server:
        port = server.sockets[0].getsockname()[1]
        before = await serial_at(port, trust(AUTHORITY), server_name)
        write_tls(files.key.parent, issued(renewed, "localhost"), CLIENTS)
        own.reload()
        assert await serial_at(port, trust(renewed), server_name) != before


def is_resumed(port: int, trust: ssl.SSLContext) -> bool:
    """Return whether a second handshake could go on from where the first one ended."""
    session = None
    for _ in range(2):
        plain = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        with trust.wrap_socket(plain, server_hostname="localhost", session=session) as connection:
            connection.recv(1)  # tickets come with the first bytes
            session, is_reused = connection.session, connection.session_reused
    return bool(is_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_is_resumed_or_the_certificate_of_its_caller_would_not_be_looked_at_again(
    files: TlsFiles, version: ssl.TLSVersion
) -> None:
    trust = trusting(AUTHORITY, issued(CLIENTS, "newsroom.example"))
    trust.maximum_version = version
    trust.set_alpn_protocols(["h2"])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b".")
        writer.close()

    own = certificates(files)
    async with grpc_listener(own) as port:
        assert not await asyncio.to_thread(is_resumed, port, trust)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=own.ssl_context()) as server:
        port = server.sockets[0].getsockname()[1]
        if version == ssl.TLSVersion.TLSv1_2:
            with pytest.raises(ssl.SSLError):
                await asyncio.to_thread(is_resumed, port, trust)
        else:
            assert not await asyncio.to_thread(is_resumed, port, trust)


def other_key(files: TlsFiles) -> None:
    files.key.write_bytes(issued(AUTHORITY, "localhost").private_key_pem.bytes())


def expired(files: TlsFiles) -> None:
    write_tls(files.key.parent, issued(AUTHORITY, "localhost", -2), CLIENTS)


def from_the_future(files: TlsFiles) -> None:
    now = datetime.now(UTC)
    server = AUTHORITY.issue_cert("localhost", not_before=now + timedelta(1), not_after=now + timedelta(2))
    write_tls(files.key.parent, server, CLIENTS)


def encrypted_key(files: TlsFiles) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    files.key.write_bytes(encrypted)


BREAKAGES: dict[Callable[[TlsFiles], object], str] = {
    other_key: "TLS_KEY: it is not the key of the first certificate in INTERLINEAR_TLS_CERTIFICATE",
    expired: "TLS_CERTIFICATE: certificate 1 in it expired on 20",
    from_the_future: "is this machine's clock right?",
    encrypted_key: "TLS_KEY: it is encrypted",
    lambda files: files.key.unlink(): "TLS_KEY=.*: it cannot be read: No such file or directory",
    lambda files: files.certificate.unlink(): "TLS_CERTIFICATE=.*: it cannot be read: No such file or directory",
    lambda files: files.key.write_bytes(b"ilk_\xff"): "TLS_KEY: there is no private key in it",
    lambda files: files.certificate.write_bytes(files.key.read_bytes()): "TLS_CERTIFICATE: there is no certificate in",
    lambda files: files.certificate.write_bytes(files.certificate.read_bytes()[:300]): "TLS_CERTIFICATE: there is no",
    lambda files: files.client_authority.write_bytes(b""): "TLS_CLIENT_AUTHORITY: there is no certificate in it",
}


@pytest.mark.parametrize("damage", BREAKAGES)
def test_files_of_no_use_stop_the_start_in_plain_words(files: TlsFiles, damage: Callable[[TlsFiles], object]) -> None:
    damage(files)
    with pytest.raises(InvalidSettings, match=f"(?s)cannot be used:.*INTERLINEAR_.*{BREAKAGES[damage]}"):
        certificates(files)


@pytest.mark.parametrize("damage", BREAKAGES)
async def test_files_that_have_become_useless_change_nothing_and_are_told_once(
    files: TlsFiles, damage: Callable[[TlsFiles], object]
) -> None:
    metrics = Metrics.on(CollectorRegistry())
    own = certificates(files, metrics)
    before = await over_http(own, AUTHORITY, None)
    kept = {file: file.read_bytes() for file in (files.certificate, files.key, files.client_authority)}
    damage(files)
    with structlog.testing.capture_logs() as logged:
        own.reload()
        own.reload()
    assert [event["log_level"] for event in logged] == ["error"]
    assert await over_http(own, AUTHORITY, None) == before
    value = metrics.registry.get_sample_value
    assert value("interlinear_certificate_reloads_total", {"result": "refused"}) == 1
    assert value("interlinear_certificate_refused") == 1
    for file, content in kept.items():
        file.write_bytes(content)
    own.reload()
    assert value("interlinear_certificate_refused") == 0


async def test_a_certificate_that_comes_a_moment_before_its_time_is_taken_when_that_has_come(files: TlsFiles) -> None:
    metrics = Metrics.on(CollectorRegistry())
    own, now = certificates(files, metrics), datetime.now(UTC)
    before = await over_http(own, AUTHORITY, None)
    begins = now.replace(microsecond=0) + timedelta(seconds=3)  # a certificate knows whole seconds
    write_tls(files.key.parent, AUTHORITY.issue_cert("localhost", not_before=begins), CLIENTS)
    with structlog.testing.capture_logs() as logged:
        own.reload()
        own.reload()
        assert await over_http(own, AUTHORITY, None) == before
        await asyncio.sleep((begins - datetime.now(UTC)).total_seconds() + 0.1)
        own.reload()
        own.reload()
    assert await over_http(own, AUTHORITY, None) != before
    assert [event["log_level"] for event in logged] == ["error", "info"]
    value = metrics.registry.get_sample_value
    assert value("interlinear_certificate_reloads_total", {"result": "refused"}) == 1
    assert value("interlinear_certificate_reloads_total", {"result": "loaded"}) == 1


def test_all_faults_are_told_at_once(files: TlsFiles) -> None:
    expired(files)
    files.client_authority.write_text("nothing")
    other_key(files)
    with pytest.raises(InvalidSettings) as caught:
        certificates(files)
    assert str(caught.value).count("INTERLINEAR_TLS_") == 4  # one of the faults names two settings


def test_the_metric_tells_when_the_first_certificate_in_use_ends(files: TlsFiles) -> None:
    metrics = Metrics.on(CollectorRegistry())
    own = certificates(files, metrics)
    name = "interlinear_certificate_expiry_timestamp_seconds"
    now = datetime.now(UTC).timestamp()
    assert metrics.registry.get_sample_value(name) == pytest.approx(now + 30 * 86_400, abs=60)
    write_tls(files.key.parent, issued(AUTHORITY, "localhost", 60), CLIENTS)
    own.reload()
    assert metrics.registry.get_sample_value(name) == pytest.approx(now + 60 * 86_400, abs=60)


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_a_key_that_every_user_of_the_machine_can_read_is_warned_of(files: TlsFiles, mode: int, warnings: int) -> None:
    files.key.chmod(mode)
    with structlog.testing.capture_logs() as logged:
        certificates(files)
    assert [event["log_level"] for event in logged] == ["warning"] * warnings
