"""``python -m service``: the wiring, from settings to servers, and the way out.

Exit codes: 0 everything accepted was answered; 1 the process could not start; 2 calls that it had accepted were given
up when draining; 3 an engine was lost and could not be made anew, or a gRPC server ended by itself; 128 + n a second
signal of the number n ended it at once.
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from typing import NoReturn

import structlog
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from service import logs, tracing
from service.access.entrance import Access
from service.errors import StartupError
from service.listeners import Listeners
from service.metrics import Metrics
from service.models.folder import ModelFolder, opened
from service.serving import serving
from service.settings import Settings, misspelled_variables, read_settings
from service.worker import left_behind

CLEAN, NOT_STARTED, CALLS_GIVEN_UP, LOST, AT_ONCE = 0, 1, 2, 3, 128

_POLL_SECONDS = 0.5  # between two looks at the engines
_FILES = 8192  # many systems let a process have 1024 unless it asks for more
_log = structlog.get_logger()


def main(overrides: Mapping[str, object] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Args:
        overrides: Settings that win over the environment.
    """
    try:
        settings = read_settings(**(overrides or {}))
        logs.configure(settings)
        for name, meant in misspelled_variables(os.environ).items():
            _log.warning("unknown setting", name=name, meant=meant)
        with tracing.sending(settings.traces):
            code = asyncio.run(_serve(settings))
    except StartupError as error:
        print(f"interlinear: {error}", file=sys.stderr)
        return NOT_STARTED
    if left_behind():
        sys.stderr.flush()
        os._exit(code)
    return code


async def _serve(settings: Settings) -> int:
    started = time.perf_counter()
    # They would be a series more for each counter and histogram, which nobody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    metrics = Metrics.on(registry)
    access = Access.of(settings, metrics)
    stopped = _stop_signal()
    _allow_connections()
    async with opened(settings, metrics) as folder:
        async with serving(folder, access, settings, metrics) as service:
            _log.info(
                "serving",
                models={model.manifest.qualified_name: model.digest for model in folder.models.listed()},
                device=settings.device,
                **service.addresses._asdict(),
                startup_seconds=round(time.perf_counter() - started, 3),
            )
            failed = await _end(folder, service.listeners, stopped)
            _log.info("draining", in_flight=service.gate.in_flight)
            given_up = await service.listeners.drain(settings.drain_delay_seconds, settings.drain_seconds)
            _log.info("stopped", abandoned=given_up)
    if failed:
        return LOST
    return CALLS_GIVEN_UP if given_up else CLEAN


async def _end(folder: ModelFolder, listeners: Listeners, stopped: asyncio.Event) -> bool:
    """Return when the process has to end: whether because something is lost, which a new process may get back."""
    while not stopped.is_set():
        if folder.lost:
            _log.error("an engine could not be made anew")
        if folder.lost or listeners.lost:
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), _POLL_SECONDS)
    return False


def _allow_connections() -> None:
    """Let the process have as many connections as its listeners take, as far as the system lets it say so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets; a second signal of the same kind ends the process at once."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop(number: signal.Signals) -> None:
        stopped.set()
        loop.add_signal_handler(number, _end_at_once, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopped


def _end_at_once(number: signal.Signals) -> NoReturn:
    """End the process without a word from calls that are open: unwound, each would print a traceback."""
    _log.warning("ended at once", signal=number.name)
    sys.stderr.flush()
    os._exit(AT_ONCE + number)


if __name__ == "__main__":
    sys.exit(main())
