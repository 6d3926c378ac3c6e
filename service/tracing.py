"""OpenTelemetry traces, where they are asked for; switched off, a call here costs less than a microsecond.

A trace is one call: a server span that goes on with the caller's trace (W3C ``traceparent``), and below it what the
call went through. The stages of a sentence are recorded when it is done, from the times it took: the worker thread
knows nothing of traces, as a batch belongs to many of them. Spans hold names, sizes and codes, never a text, key or
address.

The libraries come with the extra ``traces`` and are imported only when traces are sent. Where to, which share of them
and under which name is told by OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``,
``OTEL_SERVICE_NAME``).

Source: https://www.w3.org/TR/trace-context/, https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from service.errors import InvalidSettings

_NOTHING: AbstractContextManager[None] = contextlib.nullcontext()
_LAST_SECONDS = 3.0  # a collector that is away must not hold up the end of the process
_tracer: Any = None  # of ``opentelemetry``, while traces are sent


@contextlib.contextmanager
def sending(to: Literal["off", "otlp"]) -> Iterator[None]:
    """Send the spans made inside over OTLP, or, with ``off``, make none; at the end, send those that still wait.

    Raises:
        InvalidSettings: The extra ``traces`` is not installed.
    """
    global _tracer
    if to == "off":
        yield
        return
    provider, exporter = _provider()
    _tracer = provider.get_tracer("interlinear")
    try:
        yield
    finally:
        _tracer = None
        giving_up = threading.Timer(_LAST_SECONDS, exporter.shutdown)
        giving_up.start()
        provider.shutdown()
        giving_up.cancel()


def serving(service: str, method: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Return the server span of a call, in the trace that ``headers`` (``traceparent``, ``tracestate``) are about."""
    return _NOTHING if _tracer is None else _server_span(service, method, headers)


def answered(code: str) -> None:
    """Tell the span of the call how it was answered, by the name of the gRPC code; all but OK are errors."""
    if _tracer is None:
        return
    from opentelemetry import trace

    current = trace.get_current_span()
    current.set_attribute("rpc.response.status_code", code)
    if code != "OK":
        current.set_status(trace.StatusCode.ERROR, code)


def span(name: str, **attributes: str | int | float) -> AbstractContextManager[None]:
    """Return a span of what is done inside, below the current one."""
    return _NOTHING if _tracer is None else _inner_span(name, attributes)


def record(name: str, seconds: float) -> None:
    """Record something that took ``seconds`` and ended just now, as a span below the current one."""
    if _tracer is not None:
        end = time.time_ns()
        _tracer.start_span(name, start_time=end - round(seconds * 1e9)).end(end_time=end)


def record_stages(name: str, stages: Mapping[str, float], **attributes: str | int | float) -> None:
    """Record something that ended just now: a span, and below it its ``stages``, seconds each, one after the other."""
    if _tracer is None:
        return
    from opentelemetry import trace

    at = time.time_ns() - round(sum(stages.values()) * 1e9)
    whole = _tracer.start_span(name, start_time=at, attributes=attributes)
    inside = trace.set_span_in_context(whole)
    for stage, seconds in stages.items():
        part = _tracer.start_span(stage, context=inside, start_time=at)
        at += round(seconds * 1e9)
        part.end(end_time=at)
    whole.end(end_time=at)


def current_trace_id() -> str | None:
    """Return the trace that the running call belongs to, 32 hex digits; None where there is none."""
    context = _context()
    return None if context is None else f"{context.trace_id:032x}"


def exemplar() -> dict[str, str] | None:
    """Return what an observation of a histogram is to be marked with: the trace, where it is one that is kept."""
    context = _context()
    return {"trace_id": f"{context.trace_id:032x}"} if context is not None and context.trace_flags.sampled else None


def _context() -> Any:
    if _tracer is None:
        return None
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


@contextlib.contextmanager
def _server_span(service: str, method: str, headers: Mapping[str, str]) -> Iterator[None]:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    attributes = {"rpc.system.name": "grpc", "rpc.method": f"{service}/{method}"}
    with _tracer.start_as_current_span(
        f"{service}/{method}",
        context=TraceContextTextMapPropagator().extract(headers),
        kind=SpanKind.SERVER,
        attributes=attributes,
        record_exception=False,  # the message of an exception nobody foresaw may hold anything
        set_status_on_exception=False,
    ):
        yield


@contextlib.contextmanager
def _inner_span(name: str, attributes: Mapping[str, str | int | float]) -> Iterator[None]:
    with _tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ):
        yield


def _provider() -> tuple[Any, Any]:
    """Return what makes spans, and what sends them."""
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise InvalidSettings(
            "INTERLINEAR_TRACES=otlp needs the extra traces; install interlinear[traces], or set it to off"
        ) from None
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):  # no variable says otherwise
        resource = resource.merge(Resource({"service.name": "interlinear"}))
    provider, exporter = TracerProvider(resource=resource), OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider, exporter
