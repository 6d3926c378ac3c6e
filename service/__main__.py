"""``python -m service``: the wiring, from settings to servers, and the way out.

Exit codes: 0 everything accepted was answered; 1 the process could not start, or had to give up calls when draining.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from service import json_api, pages, web
from service.calls import Calls
from service.errors import StartupError
from service.gate import Gate
from service.grpc_server import create_server
from service.http_server import create_app, running
from service.metrics import Metrics
from service.models.loading import loaded
from service.models.registry import Models
from service.settings import Settings, misspelled_variables, read_settings

_log = structlog.get_logger()


def main(overrides: Mapping[str, object] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Args:
        overrides: Settings that win over the environment.
    """
    try:
        settings = read_settings(**(overrides or {}))
        _configure_logs(settings)
        for name, meant in misspelled_variables(os.environ).items():
            _log.warning("unknown setting", name=name, meant=meant)
        return asyncio.run(_serve(settings))
    except StartupError as error:
        print(f"interlinear: {error}", file=sys.stderr)
        return 1


async def _serve(settings: Settings) -> int:
    started = time.perf_counter()
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    metrics = Metrics.on(registry)
    stopped = _stop_signal()
    async with loaded(settings, metrics) as model:
        gate = Gate(Calls(Models(model), settings.max_texts, metrics), metrics, settings.max_response_bytes)
        server = create_server(gate, settings)
        ready = asyncio.Event()
        routes = [*json_api.routes(gate, settings.max_request_bytes), *pages.routes(web.FILES)]
        app = create_app(registry, ready.is_set, routes)
        async with running(app, settings.http_address) as http_port:
            await server.start()
            ready.set()
            _log.info(
                "serving",
                model=model.manifest.bundle_id,
                digest=model.digest,
                device=model.device,
                grpc_address=_with_port(settings.grpc_address, server.port),
                http_address=_with_port(settings.http_address, http_port),
                startup_seconds=round(time.perf_counter() - started, 3),
            )
            await stopped.wait()
            ready.clear()
            _log.info("draining", in_flight=gate.in_flight)
            answered = await server.drain(settings.drain_delay_seconds, settings.drain_seconds)
            _log.info("stopped", abandoned=gate.in_flight)
    return 0 if answered else 1


def _stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets; a second signal of the same kind ends the process at once."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop(number: signal.Signals) -> None:
        stopped.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopped


def _with_port(address: str, port: int) -> str:
    """Return ``address`` with the port that was bound, which differs when it asked for port 0."""
    return f"{address.rpartition(':')[0]}:{port}"


def _configure_logs(settings: Settings) -> None:
    """Log to standard error, one event a line."""
    for_people = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    for_machines = structlog.processors.JSONRenderer()
    # Neither shows the values of variables in a traceback: a user's text could be among them.
    ending = [structlog.processors.format_exc_info, for_machines] if settings.log_format == "json" else [for_people]
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso"), *ending],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
