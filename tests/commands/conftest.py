"""The service that the commands ask, and the command that asks it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.commands.command import Run, run
from tests.service.edge import ServiceProcess, service_process


@pytest.fixture(scope="module")
def service(tiny_bundle: Path) -> Iterator[ServiceProcess]:
    with service_process(tiny_bundle) as running:
        yield running


@pytest.fixture
def interlinear(service: ServiceProcess) -> Run:
    """Run the command against the service."""
    return partial(run, service.address)
