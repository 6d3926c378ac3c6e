"""What traces are sent to in tests: a real OTLP receiver, listening on a port of its own."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass
class Received:
    """What arrived.

    Attributes:
        endpoint: Where the receiver listens, as ``OTEL_EXPORTER_OTLP_ENDPOINT`` has it.
        spans: Every span, in the form of OTLP.
        services: ``service.name`` of every resource.
    """

    endpoint: str = ""
    spans: list[Any] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def named(self, name: str) -> list[Any]:
        """Return the spans of that name."""
        return [span for span in self.spans if span.name == name]

    def wait(self, name: str, seconds: float = 20.0) -> list[Any]:
        """Return the spans of that name when there is one."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.named(name), seconds), f"no span {name} came"
            return self.named(name)


class _Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._received.changed:
            for resource in request.resource_spans:
                attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                self._received.services.add(attributes["service.name"])
                self._received.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self._received.changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()


@contextlib.contextmanager
def trace_receiver() -> Iterator[Received]:
    """Receive traces while the context lasts."""
    received = Received()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Receiver(received), server)  # type: ignore[no-untyped-call]
    received.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()
