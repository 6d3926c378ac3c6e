"""What is installed: the locks, the wheel, and the container's own steps carried out in a clean environment."""

import ast
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unmet(requirements: list[str], lock: str) -> list[str]:
    versions = {normalized(name): version for name, version in pins(lock).items()}
    parsed = [Requirement(text) for text in requirements]
    ours = [need for need in parsed if need.name != PROJECT["name"]]
    return [str(need) for need in ours if not need.specifier.contains(versions.get(normalized(need.name), "0"))]


def test_each_lock_answers_what_pyproject_asks() -> None:
    assert not unmet(PROJECT["dependencies"] + EXTRAS["cpu"] + EXTRAS["service"], "serving")
    # Not locked: the other ONNX Runtime, and the aligner, which takes a C compiler and which no test needs.
    everything = [need for extra, needs in EXTRAS.items() if extra not in ("gpu", "guidance") for need in needs]
    assert not unmet(PROJECT["dependencies"] + everything, "development")


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("bundle", []),
        ("training", ["training"]),
        ("exporters", ["exporters", "training", "cpu"]),
        ("service", ["service", "cpu", "figures", "traces"]),
    ],
)
def test_a_package_imports_only_what_its_extra_installs(package: str, extras: list[str]) -> None:
    declared = PROJECT["dependencies"] + [need for extra in extras for need in EXTRAS[extra]]
    distributions = {normalized(Requirement(need).name) for need in declared}
    owners = importlib.metadata.packages_distributions()
    for path in (ROOT / package).rglob("*.py"):
        for name in (
            imported_names(path) - set(sys.stdlib_module_names) - {"bundle", "training", "exporters", "service"}
        ):
            owned_by = {normalized(owner) for owner in owners.get(name, [])}
            assert owned_by & distributions, f"{path.relative_to(ROOT)} imports {name}; declare one of {owned_by}"


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_what_is_tested_is_what_is_served() -> None:
    assert pins("serving").items() <= pins("development").items()


def test_no_lock_holds_cuda_and_the_serving_lock_holds_no_trainer() -> None:
    for lock in ("serving", "development"):
        assert not [name for name in pins(lock) if name.startswith(("nvidia", "cuda", "triton", "onnxruntime-gpu"))]
    assert not pins("serving").keys() & {"torch", "onnx", "onnxscript", "lightning-fabric", "tensorboard", "pytest"}
    assert pins("development")["torch"] == "2.13.0"  # with a local label (+cpu) only one index would have it


def test_the_two_runtimes_exclude_each_other() -> None:
    conflicts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["uv"]["conflicts"]
    bring_cpu = {"cpu"} | {
        extra for extra, needs in EXTRAS.items() for need in needs if "cpu" in Requirement(need).extras
    }
    assert {pair["extra"] for conflict in conflicts for pair in conflict} == bring_cpu | {"gpu"}
    assert all({"extra": "gpu"} in conflict for conflict in conflicts)
    assert not [need for need in PROJECT["dependencies"] + EXTRAS["service"] if "onnxruntime" in need]


# ----------------------------------------------------------------------------------- the container, without a container


class Dockerfile(NamedTuple):
    """What the two stages of our Dockerfile do, in order."""

    install: list[tuple[str, str]]  # COPY and RUN lines of the first stage
    serve: list[tuple[str, str]]  # all lines of the second stage

    def last(self, instruction: str) -> str:
        return [text for name, text in self.serve if name == instruction][-1]


def read_dockerfile() -> Dockerfile:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", "")
    lines = [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]
    second = [index for index, (name, _) in enumerate(lines) if name == "FROM"][1]
    return Dockerfile([line for line in lines[:second] if line[0] in {"COPY", "RUN"}], lines[second:])


class Image(NamedTuple):
    """A folder that holds what the image holds."""

    source: Path  # where the first stage worked
    prefix: Path  # what the second stage copies

    def environment(self) -> dict[str, str]:
        listeners = ("GRPC", "HTTP", "ADMIN_GRPC", "ADMIN_HTTP")
        ports = {f"INTERLINEAR_{name}_ADDRESS": free_address() for name in listeners}
        return {"PATH": f"{self.prefix / 'bin'}:/usr/bin:/bin", **ports}


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, **options)  # type: ignore[call-overload]
    assert result.returncode == 0, f"{shlex.join(command)}\n{result.stdout}\n{result.stderr}"
    assert isinstance(result, subprocess.CompletedProcess)
    return result


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    source, prefix = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("opt") / "interlinear"
    environment = {**os.environ, "PREFIX": str(prefix), "PYTHONPATH": ""}
    environment["PATH"] = f"{Path(sys.base_prefix) / 'bin'}:{environment['PATH']}"
    for instruction, text in read_dockerfile().install:
        if instruction == "RUN":
            run(["sh", "-ec", text], cwd=source, env=environment)
            continue
        *names, destination = text.split()
        for name in names:
            target = source / destination / (name if destination.endswith(("/", ".")) and "/" not in name else "")
            target = target / Path(name).name if "/" in name else target
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_as_docker_would(ROOT / name, target)
    return Image(source, prefix)


def copy_as_docker_would(path: Path, target: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    assert path.relative_to(ROOT).as_posix() in allowed, f"{path.name} is copied but .dockerignore leaves it out"
    if path.is_dir():
        shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(path, target)


@pytest.mark.slow
def test_the_image_holds_no_torch_and_every_requirement(image: Image) -> None:
    run([str(image.prefix / "bin/pip"), "check"])
    listed = json.loads(run([str(image.prefix / "bin/pip"), "list", "--format=json"]).stdout)
    installed = {normalized(entry["name"]) for entry in listed}
    assert {normalized(name) for name in pins("serving")} | {"interlinear"} == installed - {
        "pip",
        "setuptools",
        "wheel",
    }


@pytest.mark.slow
def test_the_wheel_holds_our_packages_and_what_they_read(image: Image) -> None:
    (wheel,) = (image.source / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} - {f"interlinear-{PROJECT['version']}.dist-info"} == {
        "bundle",
        "training",
        "exporters",
        "service",
    }
    assert {"bundle/py.typed", "service/pb/interlinear_pb2.py", "training/recipes/en-fr.toml"} <= set(names)
    assert "service/bundles/en-fr/manifest.json" in names


@pytest.mark.slow
def test_the_installed_command_explains_itself_away_from_the_checkout(image: Image, tmp_path: Path) -> None:
    result = run([str(image.prefix / "bin/interlinear"), "--help"], cwd=tmp_path, env=image.environment())
    for command in ("serve", "translate", "explain", "models"):
        assert command in result.stdout


class Container(NamedTuple):
    """A process that stands for a running container."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    log: Path

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Return what ``command`` answers inside the container."""
        program = shutil.which(command[0], path=self.environment["PATH"])
        words = [program or command[0], *command[1:]]
        return subprocess.run(
            words, env=self.environment, cwd=self.log.parent, capture_output=True, text=True, timeout=60
        )


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Iterator[Container]:
    stage = read_dockerfile()
    program, *arguments = json.loads(stage.last("ENTRYPOINT")) + json.loads(stage.last("CMD"))
    command, environment, log = [image.prefix / "bin" / program, *arguments], image.environment(), tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=file, stderr=file)
    yield Container(process, environment, log)
    if process.poll() is None:
        process.kill()
        process.wait()


def peak_memory_bytes(process_id: int) -> int:
    """Return the most memory that a process ever had resident, as Linux counts it."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process_id}/status").read_text().splitlines())
    return int(status["VmHWM"].removesuffix("kB")) * 1024


@pytest.mark.slow
def test_the_container_becomes_healthy_translates_and_stops(container: Container) -> None:
    health = json.loads(read_dockerfile().last("HEALTHCHECK").partition("CMD")[2])
    deadline = time.monotonic() + 30
    while (check := container.run(health)).returncode:
        assert container.process.poll() is None and time.monotonic() < deadline, (
            container.log.read_text() + check.stderr
        )
        time.sleep(0.2)
    translated = container.run(["interlinear", "translate", "Thank you."])
    assert translated.returncode == 0 and translated.stdout.strip(), translated.stderr
    events = [json.loads(line) for line in container.log.read_text().splitlines()]
    (serving,) = (event for event in events if event["event"] == "serving")
    assert serving["startup_seconds"] > 0
    if sys.platform == "linux":
        assert peak_memory_bytes(container.process.pid) < 400e6
    container.process.terminate()
    assert container.process.wait(timeout=30) == 0, container.log.read_text()


def test_the_container_runs_as_nobody_in_particular() -> None:
    user = read_dockerfile().last("USER")
    assert user.split(":")[0].isdigit() and int(user.split(":")[0]) > 0
