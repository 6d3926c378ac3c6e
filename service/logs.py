"""Structured logs: one event a line, on standard error, with the call that it is about.

An event carries what is bound around it (``request_id``, ``model``, ``digest``) and, where traces are sent, the
``trace_id``. Never a text, a key or an address. What libraries log by Python's ``logging`` comes out in the same form.
"""

import logging
import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any

import structlog
from structlog.typing import Processor

from service.settings import Settings
from service.tracing import current_trace_id

_GRPC = "grpc._cython.cygrpc"


def configure(settings: Settings) -> None:
    """Log as ``settings`` say, from now on, in this process."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_trace_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    for_people = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    for_machines = structlog.processors.JSONRenderer()
    # Neither shows the values of variables in a traceback: a user's text could be among them.
    last: list[Processor] = [structlog.processors.format_exc_info, for_machines]
    if settings.log_format == "console":
        last = [for_people]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    of_libraries = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    of_libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[remove, *last], foreign_pre_chain=[*first, structlog.stdlib.add_logger_name]
        )
    )
    of_libraries.addFilter(_is_harmless)
    # Libraries are heard from warnings on: what they do meanwhile is their business.
    logging.basicConfig(handlers=[of_libraries], level=max(level, logging.WARNING), force=True)
    logging.captureWarnings(True)


def bound(**fields: str) -> AbstractContextManager[None]:
    """Let every event logged inside, by whatever is called, carry ``fields``."""
    return structlog.contextvars.bound_contextvars(**fields)


def about(**fields: str) -> None:
    """Let every event that is logged from here on in this call carry ``fields``; its task ends with the call."""
    structlog.contextvars.bind_contextvars(**fields)


def _is_harmless(record: logging.LogRecord) -> bool:
    """Return whether nothing of a caller is in a record: gRPC logs headers that are not UTF-8, a key too."""
    return not (record.name == _GRPC and record.msg.startswith("Invalid encoding"))


def _with_trace_id(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    trace_id = current_trace_id()
    if trace_id is not None:
        event["trace_id"] = trace_id
    return event
