"""The tests' bundle, served or with nothing around it but what the use cases need; a module may have its own."""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import structlog.testing

from bundle.tokenizer import Tokenizer
from service.client import Client
from service.engine import Engine
from service.metrics import Metrics
from service.translator import Translator
from tests.service.edge import Served, served
from tests.service.held_engine import HeldEngine, scheduling


@pytest.fixture
async def service(tiny_bundle: Path) -> AsyncIterator[Served]:
    """A service in this event loop, on all four listeners."""
    async with served(tiny_bundle) as running:
        yield running


@pytest.fixture
async def channel(service: Served) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the public listener."""
    async with grpc.aio.insecure_channel(service.address) as open_channel:
        yield open_channel


@pytest.fixture
async def client(service: Served) -> AsyncIterator[Client]:
    """Our own client of the public listener."""
    async with Client(service.address) as open_client:
        yield open_client


@pytest.fixture
async def http(service: Served) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the public listener over HTTP."""
    async with httpx.AsyncClient(base_url=f"http://{service.http_address}", timeout=60) as open_client:
        yield open_client


@pytest.fixture
async def translator(engine: Engine, tiny_bundle: Path, metrics: Metrics) -> AsyncIterator[Translator]:
    """A translator with the service's own limits."""
    async with scheduling(engine, metrics) as scheduler:
        yield Translator(scheduler, Tokenizer(tiny_bundle / "tokenizer.model"), engine.manifest, metrics)


@pytest.fixture
def held(tiny_bundle: Path, metrics: Metrics) -> HeldEngine:
    """An engine that waits, or fails, when told to."""
    return HeldEngine(tiny_bundle, metrics)


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged; and not printed, which takes longer than a watchdog in a test has patience for."""
    with structlog.testing.capture_logs() as captured:
        yield captured
