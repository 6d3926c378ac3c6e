"""Loaded models, served: the calls, the gate before them, the listeners before that; for a process, or for a test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from service.access.entrance import Access
from service.admin_calls import AdminCalls
from service.calls import Calls
from service.gate import Bounds, Gate
from service.listeners import Addresses, Listeners
from service.memory import MemoryCeiling
from service.metrics import Metrics
from service.models.folder import ModelFolder
from service.models.registry import Models
from service.settings import Settings

_POLL_SECONDS = 0.1  # between two looks at whether the models can answer


@dataclass(frozen=True)
class Serving:
    """A service that takes calls.

    Attributes:
        addresses: Where it listens.
        gate: What every call passes.
        listeners: What drains it.
    """

    addresses: Addresses
    gate: Gate
    listeners: Listeners


@contextlib.asynccontextmanager
async def serving(folder: ModelFolder, access: Access, settings: Settings, metrics: Metrics) -> AsyncIterator[Serving]:
    """Serve the models of ``folder`` while the context lasts; whoever leaves it drains before.

    Args:
        folder: What answers, and who loads more of it.
        access: Who may come in.
        settings: Addresses and limits.
        metrics: What is counted.

    Raises:
        InvalidSettings: Nothing can listen on an address.
    """
    models = folder.models
    calls = Calls(models, settings, metrics)
    bounds = Bounds(settings.max_response_bytes, MemoryCeiling(settings.memory_limit_bytes, metrics))
    gate = Gate({**calls.by_name, **AdminCalls(folder).by_name}, calls.streams, access, metrics, bounds)
    listeners = Listeners(gate, settings, access, lambda: models.ready)
    async with access.watched(), listeners.bound(metrics.registry) as addresses:
        await listeners.open()
        following = asyncio.create_task(_follow(models, listeners))
        try:
            yield Serving(addresses, gate, listeners)
        finally:
            following.cancel()


async def _follow(models: Models, listeners: Listeners) -> None:
    """Let health checks know whenever the models become able or unable to answer."""
    told: bool | None = None
    while True:
        if models.ready != told:
            told = models.ready
            listeners.tell()
        await asyncio.sleep(_POLL_SECONDS)
