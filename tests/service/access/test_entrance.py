import asyncio
import tomllib
from pathlib import Path

import pytest
import structlog
import trustme
from prometheus_client import CollectorRegistry

from service.access.entrance import Access
from service.errors import CredentialsInvalid, InvalidSettings, PermissionDenied
from service.metrics import Metrics
from service.settings import read_settings
from tests.service.access.files import entry, issued, write_tls


def access(**settings: object) -> Access:
    return Access.of(read_settings(**settings), Metrics.on(CollectorRegistry()))


def test_plain_settings_ask_for_nothing() -> None:
    own = access()
    assert own.certificates is None
    assert own.admit(None, (), "LoadModel").name == "anyone"


def test_everything_wrong_with_addresses_credentials_and_certificates_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(entry("newsroom"))
    with pytest.raises(InvalidSettings) as caught:
        access(
            http_address="0.0.0.0:8080",
            credentials=tmp_path / "keys.toml",
            tls_key=tmp_path / "tls.key",
            admin_http_address="0.0.0.0:9464",
        )
    said = str(caught.value)
    for expected in (
        "HTTP_ADDRESS=0.0.0.0:8080",
        "ADMIN_HTTP_ADDRESS",
        "TLS_KEY go together",
        "neither key_sha256 nor",
    ):
        assert expected in said
    files = write_tls(tmp_path, issued(trustme.CA(), "localhost", -2), trustme.CA())
    with pytest.raises(InvalidSettings, match=r"(?s)neither key_sha256 nor.*expired on"):
        access(credentials=tmp_path / "keys.toml", **files.settings)


def test_who_comes_in_is_known_and_may_do_what_it_asks_for(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(entry("newsroom", key="ilk_a"))
    own = access(credentials=tmp_path / "keys.toml")
    assert own.admit("ilk_a", (), "Translate").name == "newsroom"
    with pytest.raises(PermissionDenied):
        own.admit("ilk_a", (), "Explain")
    with pytest.raises(CredentialsInvalid):
        own.admit("ilk_b", (), "Translate")


async def test_files_are_followed_while_the_context_lasts(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(entry("newsroom", key="ilk_a"))
    files = write_tls(tmp_path, issued(trustme.CA(), "localhost"), trustme.CA())
    metrics = Metrics.on(CollectorRegistry())
    own = Access.of(read_settings(credentials=keys, **files.settings), metrics)

    def loaded(kind: str) -> float:
        return metrics.registry.get_sample_value(f"interlinear_{kind}_reloads_total", {"result": "loaded"}) or 0.0

    async with own.watched(poll_seconds=0.01):
        keys.write_text(entry("newsroom", key="ilk_b"))
        write_tls(tmp_path, issued(trustme.CA(), "localhost"), trustme.CA())
        async with asyncio.timeout(10):
            while not (loaded("credential") and loaded("certificate")):
                await asyncio.sleep(0.01)
    keys.write_text(entry("newsroom", key="ilk_c"))
    await asyncio.sleep(0.05)
    assert own.admit("ilk_b", ("a.example",), "Translate").name == "newsroom"


async def test_nothing_that_reading_raises_stops_the_watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(entry("newsroom", key="ilk_a"))
    own = access(credentials=keys)

    def fail(content: str) -> None:
        raise MemoryError

    with structlog.testing.capture_logs() as logged:
        async with own.watched(poll_seconds=0.01), asyncio.timeout(10):
            with monkeypatch.context() as patch:
                patch.setattr(tomllib, "loads", fail)
                keys.write_text(entry("newsroom", key="ilk_b"))
                while not logged:
                    await asyncio.sleep(0.01)
            keys.write_text(entry("newsroom", key="ilk_c"))
            while len(logged) < 2:
                await asyncio.sleep(0.01)
    assert [event["log_level"] for event in logged] == ["error", "info"]
    assert own.admit("ilk_c", (), "Translate").name == "newsroom"
