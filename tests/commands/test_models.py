"""``interlinear models`` and its verbs, against a service with a folder of models."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.command import command, environment
from tests.service.edge import ROOT, ServiceProcess, service_process
from tests.service.models.bundles import renamed


@pytest.fixture(scope="module")
def service(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    root = tmp_path_factory.mktemp("models")
    renamed(tiny_bundle, root / "second", version="2")
    with service_process(tiny_bundle, MODELS=str(root), MODELS_POLL_SECONDS="0") as running:
        yield running


def run(service: ServiceProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    known = environment(service.address) | {"INTERLINEAR_ADMIN_GRPC_ADDRESS": service.admin_grpc_address}
    return subprocess.run(
        command("models", *arguments), cwd=ROOT, env=known, capture_output=True, text=True, timeout=120
    )


def test_versions_are_listed_activated_loaded_and_unloaded(service: ServiceProcess) -> None:
    assert run(service).stdout.index("tiny 1") >= 0
    assert run(service, "activate", "tiny", "1").stdout == "tiny@1 is active, in place of 2\n"
    assert run(service, "activate", "tiny").stdout == "tiny@2 is active, in place of 1\n"
    assert run(service, "load", "second").stdout == "tiny@2 is active, in place of 2\n"
    answer = json.loads(run(service, "activate", "tiny", "1", "--json").stdout)
    assert (answer["model"]["version"], answer["model"]["isActive"], answer["previousVersion"]) == ("1", True, "2")
    assert run(service, "activate", "tiny@2").stdout == "tiny@2 is active, in place of 1\n"
    assert run(service, "activate", "tiny@1", "1").stdout == "tiny@1 is active, in place of 2\n"
    assert run(service, "unload", "tiny@2").stdout == "unloaded tiny@2\n"
    assert [model["version"] for model in json.loads(run(service, "--json").stdout)["models"]] == ["1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("load", "nowhere"), "no bundle in a folder of that name"),
        (("activate", "klingon"), "'klingon'"),
        (("unload", "tiny", "1"), "only model"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(service: ServiceProcess, arguments: tuple[str, ...], words: str) -> None:
    result = run(service, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("activate", "tiny@1", "2"), "give one of them"), (("unload", "tiny"), "tiny@VERSION")],
)
def test_a_version_named_twice_over_or_not_at_all_is_asked_for(
    service: ServiceProcess, arguments: tuple[str, ...], words: str
) -> None:
    result = run(service, *arguments)
    assert result.returncode == 2 and words in result.stderr
