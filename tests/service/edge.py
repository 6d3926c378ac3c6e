"""A real service for the tests of the edge: in this event loop, or in a process of its own; never a stand-in."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from service import json_api, pages, web
from service.calls import Calls
from service.gate import Gate
from service.grpc_server import GrpcServer, create_server
from service.http_server import create_app, running
from service.metrics import Metrics
from service.models.loading import loaded
from service.models.registry import Models
from service.models.served_model import ServedModel
from service.settings import Settings, read_settings

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Served:
    """A server of both transports in this event loop."""

    address: str
    http_address: str
    server: GrpcServer
    gate: Gate
    model: ServedModel
    metrics: Metrics


@contextlib.asynccontextmanager
async def served(bundle: Path, **overrides: object) -> AsyncIterator[Served]:
    """Serve ``bundle`` on free ports while the context lasts."""
    settings = read_settings(**{"bundle": bundle, "grpc_address": "127.0.0.1:0", "threads": 1, **overrides})
    metrics = Metrics.on(CollectorRegistry())
    async with loaded(settings, metrics) as model, served_model(model, settings, metrics) as running_service:
        yield running_service


@contextlib.asynccontextmanager
async def served_model(model: ServedModel, settings: Settings, metrics: Metrics) -> AsyncIterator[Served]:
    """Serve ``model`` on free ports while the context lasts."""
    gate = Gate(Calls(Models(model), settings.max_texts, metrics), metrics, settings.max_response_bytes)
    server = create_server(gate, settings)
    routes = [*json_api.routes(gate, settings.max_request_bytes), *pages.routes(web.FILES)]
    app = create_app(metrics.registry, lambda: True, routes)
    async with running(app, "127.0.0.1:0") as http_port:
        await server.start()
        try:
            yield Served(f"127.0.0.1:{server.port}", f"127.0.0.1:{http_port}", server, gate, model, metrics)
        finally:
            await server.drain(0.0, 5.0)


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

    def log(self) -> list[dict[str, object]]:
        """Return what it logged since it said that it is serving; only after its end."""
        assert self.process.stderr is not None
        return [json.loads(line) for line in self.process.stderr]


@contextlib.contextmanager
def service_process(bundle: Path, **settings: str) -> Iterator[ServiceProcess]:
    """Run ``python -m service`` on ``bundle`` while the context lasts; settings by name, in capitals."""
    given = {"BUNDLE": str(bundle), "GRPC_ADDRESS": "127.0.0.1:0", "HTTP_ADDRESS": "127.0.0.1:0", "THREADS": "1"}
    environment = os.environ | {f"INTERLINEAR_{name}": value for name, value in (given | settings).items()}
    command = [sys.executable, "-m", "service"]
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
            yield ServiceProcess(process, event["grpc_address"], event["http_address"])
        finally:
            process.terminate()
            process.wait(timeout=60)
