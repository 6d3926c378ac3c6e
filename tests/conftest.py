"""Fixtures that more than one folder of tests uses."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.engine import Engine
from service.metrics import Metrics
from tests.tiny_bundle import TinyBundle


@pytest.fixture
def metrics() -> Metrics:
    """Metrics on a registry of their own."""
    return Metrics.on(CollectorRegistry())


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle with real graphs, a real tokenizer and fitted tables; read only."""
    return TinyBundle().write(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_bundle_without_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle, but nothing to explain it with; read only."""
    return TinyBundle(with_tables=False).write(tmp_path_factory.mktemp("bundles") / "tiny-without-tables")


@pytest.fixture
def engine(tiny_bundle: Path, metrics: Metrics) -> Engine:
    """The tiny bundle on the CPU, in one thread."""
    return Engine(tiny_bundle, "cpu", 1, metrics)
