"""A real Prometheus with the rules that are shipped, sixty times as fast: a minute of theirs is a second here."""

import asyncio
import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.queries import ALERTS, RECORDING
from tests.service.edge import unused_address

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FASTER = 60
_START_SECONDS = 60
_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 90

# Often enough that five seconds, the shortest window, hold several samples, and not so often that a busy machine has no
# time to answer.
_CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms}
rule_files: [recording.yml, alerts.yml]
scrape_configs:
  - job_name: interlinear
    tls_config: {insecure_skip_verify: true}
    relabel_configs:
      - {source_labels: [scheme], regex: (.+), target_label: __scheme__}
      - {regex: scheme, action: labeldrop}
    file_sd_configs: [{files: [targets.json], refresh_interval: 500ms}]
"""


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that is running.

    Attributes:
        address: Of its own HTTP.
        folder: Where its configuration is.
    """

    address: str
    folder: Path

    def scrape(self, instance: str, address: str, scheme: str = "http") -> None:
        """Scrape the service at ``address`` from now on, and nothing else; call it ``instance``."""
        labels = {"instance": instance, "scheme": scheme}
        temporary = self.folder / "targets.new"
        temporary.write_text(json.dumps([{"targets": [address], "labels": labels}]))
        temporary.replace(self.folder / "targets.json")

    async def firing(self, instance: str) -> set[str]:
        """Return the names of the alerts that fire, of ``instance`` or of all that is scraped."""
        alerts = await self.ask("alerts")
        return {
            alert["labels"]["alertname"]
            for alert in alerts["alerts"]
            if alert["state"] == "firing" and alert["labels"].get("instance", instance) == instance
        }

    async def fires(self, alert: str, instance: str) -> None:
        """Return when ``alert`` fires."""
        await self._wait(alert, instance, fires=True)

    async def is_over(self, alert: str, instance: str) -> None:
        """Return when ``alert`` does not fire."""
        await self._wait(alert, instance, fires=False)

    async def _wait(self, alert: str, instance: str, fires: bool) -> None:
        firing: set[str] = set()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while (alert in (firing := await self.firing(instance))) is not fires:
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise AssertionError(f"{alert} should {'' if fires else 'not '}fire; firing are {firing}") from None

    async def traces_of(self, series: str) -> set[str]:
        """Return the traces that mark samples of ``series``, as soon as there is one."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not (found := await self.ask("query_exemplars", query=series, start="0", end="9999999999")):
                await asyncio.sleep(_POLL_SECONDS)
        return {exemplar["labels"]["trace_id"] for one in found for exemplar in one["exemplars"]}

    async def ask(self, what: str, **parameters: str) -> Any:
        """Return what the API answers."""
        async with httpx.AsyncClient(verify=False) as client:
            response = await client.get(f"http://{self.address}/api/v1/{what}", params=parameters)
        return response.raise_for_status().json()["data"]


@contextlib.contextmanager
def running_prometheus(folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus in ``folder`` while the context lasts."""
    address = unused_address()
    (folder / "prometheus.yml").write_text(_CONFIG)
    (folder / "targets.json").write_text("[]")
    for file in (RECORDING, ALERTS):
        (folder / file.name).write_text(faster(file.read_text("utf-8")))
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            until = time.monotonic() + _START_SECONDS
            while not _ready(address):
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(_POLL_SECONDS)
            yield Prometheus(address, folder)
        finally:
            process.terminate()
            process.wait(timeout=30)


def faster(rules: str) -> str:
    """Return rules whose windows and patience are a sixtieth; names of recorded series stay.

    >>> faster("expr: rate(a:rate5m[5m]) > 0 for: 2m")
    'expr: rate(a:rate5m[5s]) > 0 for: 2s'
    """

    def shorter(match: re.Match[str]) -> str:
        seconds = int(match["number"]) * _SECONDS[match["unit"]]
        return f"{match['before']}{max(seconds // _FASTER, 1)}s{match['after']}"

    return re.sub(r"(?P<before>\[|for: )(?P<number>\d+)(?P<unit>[smhd])(?P<after>\]|\b)", shorter, rules)


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready").status_code == 200
    except httpx.TransportError:
        return False
