"""A real service for the tests of the edge: in this event loop, or in a process of its own; never a stand-in."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from service.access.entrance import Access
from service.gate import Gate
from service.listeners import Listeners
from service.metrics import Metrics
from service.models.folder import ModelFolder
from service.models.loading import loaded
from service.models.registry import Models
from service.models.served_model import ServedModel
from service.serving import serving
from service.settings import Settings, read_settings
from tests.tiny_bundle import SENTENCES

ROOT = Path(__file__).parent.parent.parent
SENTENCE = SENTENCES[0]
ADDRESSES = ("grpc_address", "http_address", "admin_grpc_address", "admin_http_address")


@dataclass(frozen=True)
class Served:
    """A service in this event loop, on all four listeners."""

    address: str
    http_address: str
    admin_grpc_address: str
    admin_http_address: str
    listeners: Listeners
    gate: Gate
    model: ServedModel
    metrics: Metrics


@contextlib.asynccontextmanager
async def served(bundle: Path, **overrides: object) -> AsyncIterator[Served]:
    """Serve ``bundle`` on free ports while the context lasts."""
    settings = settings_of(bundle=bundle, **overrides)
    metrics = Metrics.on(CollectorRegistry())
    async with loaded(settings, metrics) as model, served_model(model, settings, metrics) as running_service:
        yield running_service


@contextlib.asynccontextmanager
async def served_model(model: ServedModel, settings: Settings, metrics: Metrics) -> AsyncIterator[Served]:
    """Serve ``model`` while the context lasts; ``settings_of`` says where."""
    models = Models(metrics)
    models.add(model)
    async with serving(
        ModelFolder(settings, metrics, models), Access.of(settings, metrics), settings, metrics
    ) as service:
        grpc, http, admin_grpc, admin_http = service.addresses
        assert admin_grpc is not None and admin_http is not None
        try:
            yield Served(grpc, http, admin_grpc, admin_http, service.listeners, service.gate, model, metrics)
        finally:
            await service.listeners.drain(0.0, 5.0)


def settings_of(**overrides: object) -> Settings:
    """Return settings of a service in one thread and on free ports."""
    return read_settings(**{**dict.fromkeys(ADDRESSES, "127.0.0.1:0"), "threads": 1, **overrides})


def metric_value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that carry ``labels``."""
    return sum(
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@dataclass(frozen=True)
class ServiceProcess:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    http_address: str
    admin_grpc_address: str
    admin_http_address: str

    def log(self) -> list[dict[str, object]]:
        """Return what it logged since it said that it is serving; only after its end."""
        assert self.process.stderr is not None
        return [json.loads(line) for line in self.process.stderr]


@contextlib.contextmanager
def service_process(
    bundle: Path, arguments: Sequence[str] = ("-m", "service"), **settings: str
) -> Iterator[ServiceProcess]:
    """Run ``python -m service`` on ``bundle`` while the context lasts; settings by name, in capitals.

    Args:
        bundle: What to serve.
        arguments: Of Python, where it is to run something around the service.
        settings: Besides those.
    """
    given = {name.upper(): "127.0.0.1:0" for name in ADDRESSES} | {"BUNDLE": str(bundle), "THREADS": "1"}
    environment = os.environ | {f"INTERLINEAR_{name}": value for name, value in (given | settings).items()}
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:  # ends when the process does
                said.append(line)
                if "serving" in line:
                    break
            else:
                raise AssertionError("".join(said))
            event = json.loads(said[-1])
            yield ServiceProcess(process, *(event[name] for name in ADDRESSES))
        finally:
            process.terminate()
            process.wait(timeout=60)


def unused_address() -> str:
    """Return an address of this machine at which nothing listened a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"
