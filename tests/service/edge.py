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

from service.__main__ import loaded
from service.grpc_server import GrpcServer, ServedModel, create_server
from service.metrics import Metrics
from service.settings import read_settings

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Served:
    """A server in this event loop."""

    address: str
    server: GrpcServer
    model: ServedModel
    metrics: Metrics


@contextlib.asynccontextmanager
async def served(bundle: Path, **overrides: object) -> AsyncIterator[Served]:
    """Serve ``bundle`` on a free port while the context lasts."""
    settings = read_settings(**{"bundle": bundle, "grpc_address": "127.0.0.1:0", "threads": 1, **overrides})
    metrics = Metrics.on(CollectorRegistry())
    async with loaded(settings, metrics) as model:
        server = create_server(model, settings, metrics)
        await server.start()
        try:
            yield Served(f"127.0.0.1:{server.port}", server, model, metrics)
        finally:
            await server.drain(0.0, 5.0)


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
            line = process.stderr.readline()
            assert "serving" in line, line + process.stderr.read()
            event = json.loads(line)
            yield ServiceProcess(process, event["grpc_address"], event["http_address"])
        finally:
            process.terminate()
            process.wait(timeout=60)
