"""A service in a process of its own, as its supervisor sees it: started, measured, stopped, killed, started again."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
SHIPPED_BUNDLE = ROOT / "service" / "bundles" / "en-fr"

_READY_SECONDS = 60.0
_STOPPED_SECONDS = 90.0
_POLL_SECONDS = 0.01


@dataclass
class Service:
    """One service with addresses of its own, which stay the same when it is started again.

    Attributes:
        settings: By name, in capitals and without prefix.
        log_file: Where its standard error goes; a file, for nobody has to read it while it runs.
        module: What is run; a launcher that breaks something on purpose stands here in place of the service.
        environment: Variables besides the settings.
    """

    settings: Mapping[str, str]
    log_file: Path
    module: str = "service"
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("GRPC_ADDRESS", "HTTP_ADDRESS", "ADMIN_GRPC_ADDRESS", "ADMIN_HTTP_ADDRESS")
        self._settings = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(4), strict=True)}
        self._settings |= self.settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where gRPC listens."""
        return self._settings["GRPC_ADDRESS"]

    @property
    def http_address(self) -> str:
        """Where HTTP listens."""
        return self._settings["HTTP_ADDRESS"]

    @property
    def admin_address(self) -> str:
        """Where the calls that administer models listen."""
        return self._settings["ADMIN_GRPC_ADDRESS"]

    @property
    def admin_http_address(self) -> str:
        """Where metrics are, and the same calls over HTTP."""
        return self._settings["ADMIN_HTTP_ADDRESS"]

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process that runs, or ran last."""
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def start(self) -> float:
        """Start it and return how many seconds it took to serve.

        Raises:
            RuntimeError: It ended, or does not serve within a minute; the message has its log.
        """
        settings = {f"INTERLINEAR_{name}": value for name, value in self._settings.items()}
        begun = time.perf_counter()
        said = len(self._log())
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                cwd=ROOT,
                env={**os.environ, **settings, **self.environment},
                stderr=log,
            )
        while time.perf_counter() - begun < _READY_SECONDS and self.alive:
            if '"event": "serving"' in self._log()[said:]:
                return time.perf_counter() - begun
            time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"the service did not start:\n{self._log()[said:]}")

    def stop(self) -> int:
        """Stop it as its supervisor would, with SIGTERM; return its exit code."""
        self.process.terminate()
        return self.ended()

    def kill(self) -> None:
        """End it at once, with SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ended(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(timeout=_STOPPED_SECONDS)

    def events(self, name: str = "") -> list[dict[str, object]]:
        """Return what it has logged, all of its runs together; only events of that name if one is given."""
        lines = (line for line in self._log().splitlines() if line.startswith("{"))
        events: list[dict[str, object]] = [json.loads(line) for line in lines]
        return [event for event in events if name in ("", event["event"])]

    def log(self) -> str:
        """Return its log as it stands in the file."""
        return self._log()

    def resident_bytes(self) -> int:
        """Return its resident memory now (Linux)."""
        return self._memory("VmRSS")

    def peak_bytes(self) -> int:
        """Return the most resident memory it has had (Linux)."""
        return self._memory("VmHWM")

    def open_files(self) -> int:
        """Return how many file descriptors it has open, sockets included (Linux)."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def processor_seconds(self) -> float:
        """Return the processor time that it has used (Linux)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metrics(self) -> "Metrics":
        """Return what it tells Prometheus now."""
        with urllib.request.urlopen(f"http://{self.admin_http_address}/metrics", timeout=30) as reply:
            families = text_string_to_metric_families(reply.read().decode())
            return Metrics([(sample.name, sample.labels, sample.value) for each in families for sample in each.samples])

    def _log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(rf"{name}:\s*(\d+) kB", status)
        assert found is not None, f"no {name}: has the process ended?"
        return int(found.group(1)) * 1024


@dataclass(frozen=True)
class Metrics:
    """Samples of one scrape: name, labels, value."""

    samples: list[tuple[str, dict[str, str], float]]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of that name that carry ``labels``."""
        return sum(value for has, of, value in self.samples if has == name and labels.items() <= of.items())

    def by_label(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the sums of the samples of that name for each combination of ``labels``."""
        sums: dict[tuple[str, ...], float] = {}
        for has, of, value in self.samples:
            if has == name:
                key = tuple(of[label] for label in labels)
                sums[key] = sums.get(key, 0.0) + value
        return sums


@contextlib.contextmanager
def running(bundle: Path, module: str = "service", **settings: str) -> Iterator[Service]:
    """Run a service on ``bundle`` while the context lasts; settings by name, in capitals."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service({"BUNDLE": str(bundle), **settings}, Path(folder) / "log", module)
        service.start()
        try:
            yield service
        finally:
            if service.alive:
                service.stop()


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
