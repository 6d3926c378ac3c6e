import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.access.credentials import key_digest, parse_credentials
from service.access.principals import Quota
from service.commands.app import app
from service.commands.command_line import Unusable


def interlinear(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def refused(*arguments: str | Path) -> str:
    result = interlinear(*arguments)
    assert isinstance(result.exception, Unusable)
    return str(result.exception)


def test_a_new_key_is_shown_once_and_what_is_printed_lets_it_in() -> None:
    limits = ("characters_per_second=1000", "burst_characters=20000", "requests_per_second=0.5", "burst_requests=3")
    quota = [word for limit in limits for word in ("--quota", limit)]
    result = interlinear(
        "keys", "new", "newsroom", "--role", "translate", "--role", "explain", "--expires", "2027-01-31", *quota
    )
    (key,) = re.findall(r"ilk_\S+", result.output)
    assert key in result.stderr and key not in result.stdout
    (credential,) = parse_credentials(result.stdout.encode(), "keys.toml")
    assert credential.key_digests == (key_digest(key),)
    assert credential.principal.roles == {"translate", "explain"}
    assert credential.principal.quota == Quota(1000.0, 20000, 0.5, 3, None)
    assert str(credential.expires) == "2027-01-31"


def test_what_several_calls_print_makes_one_file(tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    for name in ("newsroom", "ops"):
        with file.open("a") as lines:
            lines.write(interlinear("keys", "new", name, "--role", "translate").stdout)
    result = interlinear("keys", "check", file)
    assert result.exit_code == 0
    assert "newsroom" in result.stdout and "ops" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("a b", "--role", "translate"), "name: write up to 64 letters"),
        (("a", "--role", "root"), "there is no such role; there are translate, explain, monitor, admin"),
        (("a", "--role", "admin", "--quota", "speed=3"), "there is no such field; there are characters_per_second"),
        (("a", "--role", "admin", "--quota", "concurrent=0"), "greater than 0"),
        (("a", "--role", "admin", "--quota", "concurrent"), "write NAME=NUMBER, for instance concurrent=8"),
        (("a", "--role", "admin", "--quota", "burst_requests=5"), "go together"),
    ],
)
def test_what_no_file_may_say_is_refused_before_there_is_a_key(arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refused("keys", "new", *arguments)
    assert "ilk_" not in interlinear("keys", "new", *arguments).output


def test_a_check_shows_who_comes_in_for_what_until_when(tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    file.write_text(
        '[[principal]]\nname = "robot"\nroles = ["monitor"]\ncertificate = ["robot.example"]\nexpires = 2001-01-01\n'
        '[[principal]]\nname = "ops"\nroles = ["admin"]\ncertificate = ["x"]\nquota.concurrent = 5\n'
    )
    result = CliRunner().invoke(app, ["keys", "check", str(file)], env={"COLUMNS": "200"})
    shown = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()]
    assert shown == [
        ["name", "roles", "keys", "certificates", "until", "quota"],
        ["robot", "monitor", "0", "robot.example", "2001-01-01 (expired)"],
        ["ops", "admin", "0", "x", "concurrent 5"],
    ]


def test_a_check_tells_every_fault_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    file.write_text('[[principal]]\nname = "a"\nroles = []\n[[principal]]\nname = "b"\nroles = ["x"]\n')
    said = refused("keys", "check", file)
    assert "principal 1 ('a'): roles" in said and "principal 2 ('b'): roles[0]" in said
