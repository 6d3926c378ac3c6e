"""What stands before a command's name: how it and the service come to trust each other."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from service.access.credentials import new_key
from tests.commands.command import run
from tests.service.access.files import entry, issued, write_tls
from tests.service.edge import SENTENCE, ServiceProcess, service_process

AUTHORITY, CLIENTS = trustme.CA(), trustme.CA()
KEY = new_key()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("secrets")
    client = issued(CLIENTS, "room.example")
    (written / "credentials.toml").write_text(entry("reader", key=KEY) + entry("room", certificate='["room.example"]'))
    (written / "reader.key").write_text(f"{KEY}\n")
    AUTHORITY.cert_pem.write_to_path(str(written / "authority.crt"))
    client.cert_chain_pems[0].write_to_path(str(written / "client.crt"))
    client.private_key_pem.write_to_path(str(written / "client.key"))
    return written


@pytest.fixture(scope="module")
def service(tiny_bundle: Path, folder: Path) -> Iterator[ServiceProcess]:
    files = write_tls(folder, issued(AUTHORITY, "127.0.0.1"), CLIENTS)
    settings = {name.upper(): str(path) for name, path in files.settings.items() if "client" not in name}
    with service_process(tiny_bundle, CREDENTIALS=str(folder / "credentials.toml"), **settings) as running:
        yield running


def asked(service: ServiceProcess, *options: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Return how the command ended that asks for one translation."""
    return run(service.address, *options, "translate", SENTENCE, "--timeout", "5", variables=variables)


def test_a_key_and_an_authority_may_stand_on_the_command_line_or_in_the_environment(
    service: ServiceProcess, folder: Path
) -> None:
    authority, key_file = str(folder / "authority.crt"), str(folder / "reader.key")
    by_option = asked(service, "--tls-authority", authority, "--key-file", key_file)
    assert (by_option.returncode, by_option.stderr) == (0, b"")
    by_variable = asked(service, INTERLINEAR_TLS_AUTHORITY=authority, INTERLINEAR_KEY=KEY)
    assert by_variable.stdout == by_option.stdout != b""


def test_without_a_key_or_without_tls_the_command_says_what_is_missing(service: ServiceProcess, folder: Path) -> None:
    authority = str(folder / "authority.crt")
    keyless = asked(service, "--tls-authority", authority)
    assert keyless.returncode == 1
    assert b"API key" in keyless.stderr and b"--key-file" in keyless.stderr and b"INTERLINEAR_KEY" in keyless.stderr
    wrong = asked(service, "--tls-authority", authority, INTERLINEAR_KEY="ilk_wrong")
    assert wrong.returncode == 1
    assert b"ilk_wrong" not in wrong.stderr
    plain = asked(service, INTERLINEAR_KEY=KEY)
    assert plain.returncode == 3, "the service speaks TLS, the command does not"
    assert b"it may be restarting, or speak TLS (--tls-authority" in plain.stderr
    stranger = asked(service, "--tls", INTERLINEAR_KEY=KEY)
    assert stranger.returncode == 3 and b"--tls-authority" in stranger.stderr
    assert b"interlinear serve" not in plain.stderr + stranger.stderr, "there is one"


def test_a_service_reached_by_another_name_is_known_by_the_one_in_its_certificate(
    tiny_bundle: Path, folder: Path
) -> None:
    files = write_tls(folder, issued(AUTHORITY, "translate.example"), CLIENTS)
    settings = {name.upper(): str(path) for name, path in files.settings.items() if "client" not in name}
    with service_process(tiny_bundle, CREDENTIALS=str(folder / "credentials.toml"), **settings) as running:
        known = "--tls-authority", str(folder / "authority.crt"), "--key-file", str(folder / "reader.key")
        wrong = asked(running, *known)
        assert wrong.returncode == 3 and b"--tls-server-name" in wrong.stderr
        assert asked(running, *known, "--tls-server-name", "translate.example").returncode == 0
        assert asked(running, *known, INTERLINEAR_TLS_SERVER_NAME="translate.example").returncode == 0


def test_a_certificate_stands_in_for_a_key_where_the_service_asks_for_one(tiny_bundle: Path, folder: Path) -> None:
    files = write_tls(folder, issued(AUTHORITY, "127.0.0.1"), CLIENTS)
    settings = {name.upper(): str(path) for name, path in files.settings.items()}
    own = "--certificate", str(folder / "client.crt"), "--certificate-key", str(folder / "client.key")
    authority = "--tls-authority", str(folder / "authority.crt")
    with service_process(tiny_bundle, CREDENTIALS=str(folder / "credentials.toml"), **settings) as running:
        assert asked(running, *authority, *own).returncode == 0
        without = asked(running, *authority)
        assert without.returncode == 3, "the handshake fails"
        assert b"--certificate" in without.stderr


def test_a_file_that_is_not_there_is_named(service: ServiceProcess) -> None:
    ended = asked(service, "--key-file", "/no/such/key")
    assert ended.returncode == 2
    assert ended.stderr == b"interlinear: there is no /no/such/key; check its name, and the folder that it is in\n"
