import itertools

import pytest

from service.access.protection import protection_faults
from service.settings import read_settings

LISTENERS = ("grpc_address", "http_address", "admin_grpc_address", "admin_http_address")
TLS = {"tls_certificate": "a", "tls_key": "b"}
KEYS = {"credentials": "c"}
MUTUAL = {**TLS, "tls_client_authority": "d"}


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.7", "example.org", "[fe80::1]", "0", "127.evil.example"])
def test_an_address_that_others_can_reach_is_refused_by_name(listener: str, host: str) -> None:
    (fault,) = protection_faults(read_settings(**{listener: f"{host}:50051"}))
    assert fault.startswith(f"INTERLINEAR_{listener.upper()}={host}:50051: other machines can reach it")
    assert "INTERLINEAR_ALLOW_UNPROTECTED=true" in fault


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "localhost"])
def test_loopback_needs_no_protection(listener: str, host: str) -> None:
    assert protection_faults(read_settings(**{listener: f"{host}:0"})) == ()


def test_the_defaults_and_listeners_that_are_off_need_none() -> None:
    assert protection_faults(read_settings()) == ()
    assert protection_faults(read_settings(admin_grpc_address="off", admin_http_address="off")) == ()


def test_all_four_addresses_are_told_at_once() -> None:
    (fault,) = protection_faults(read_settings(**dict.fromkeys(LISTENERS, "0.0.0.0:0")))
    assert fault.startswith(", ".join(f"INTERLINEAR_{name.upper()}=0.0.0.0:0" for name in LISTENERS))


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({}, "no TLS (INTERLINEAR_TLS_CERTIFICATE and INTERLINEAR_TLS_KEY) and no credentials"),
        (TLS, "there is no credentials (INTERLINEAR_CREDENTIALS"),
        (KEYS, "there is no TLS (INTERLINEAR_TLS_CERTIFICATE and INTERLINEAR_TLS_KEY);"),
        ({**TLS, **KEYS}, None),
        (MUTUAL, None),
        ({**MUTUAL, **KEYS}, None),
        ({"allow_unprotected": True}, None),
    ],
)
def test_a_public_address_takes_tls_and_credentials_or_the_explicit_flag(
    given: dict[str, object], lacking: str | None
) -> None:
    faults = protection_faults(read_settings(http_address="0.0.0.0:8080", **given))
    assert len(faults) == (lacking is not None)
    assert all(str(lacking) in fault for fault in faults)


@pytest.mark.parametrize("given", [*itertools.combinations(MUTUAL, 1), ("tls_key", "tls_client_authority")])
def test_parts_of_tls_that_need_others_are_refused_without_them(given: tuple[str, ...]) -> None:
    settings = {name: MUTUAL[name] for name in given}
    (fault, *_) = protection_faults(read_settings(allow_unprotected=True, **settings))
    assert "INTERLINEAR_TLS_" in fault
