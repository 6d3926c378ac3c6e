"""Every metric of the service, built once on a given registry, in families.

Units are base units and stand at the end of the name. Labels are bounded: ``model`` is a loaded bundle's id and version
(``en-fr@2``), all others take their values from a fixed list in the code. Never a user's text, address or key.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from service.metrics.machinery import (
    BatchMetrics,
    EngineMetrics,
    MemoryMetrics,
    ModelMetrics,
    RuntimeMetrics,
)
from service.metrics.quality import DriftMetrics, GuardMetrics, QualityMetrics
from service.metrics.requests import AccessMetrics, CacheMetrics, RequestMetrics, StageMetrics, StreamMetrics


@dataclass(frozen=True)
class Metrics:
    """All metrics of one process, or of one test: a registry of its own shares nothing."""

    registry: CollectorRegistry
    requests: RequestMetrics
    access: AccessMetrics
    stages: StageMetrics
    streams: StreamMetrics
    cache: CacheMetrics
    batches: BatchMetrics
    engine: EngineMetrics
    runtime: RuntimeMetrics
    models: ModelMetrics
    memory: MemoryMetrics
    quality: QualityMetrics
    guard: GuardMetrics
    drift: DriftMetrics

    @classmethod
    def on(cls, registry: CollectorRegistry) -> "Metrics":
        """Return the metrics, registered on ``registry``.

        Raises:
            ValueError: ``registry`` has metrics of these names already.
        """
        return cls(
            registry,
            RequestMetrics(registry),
            AccessMetrics(registry),
            StageMetrics(registry),
            StreamMetrics(registry),
            CacheMetrics(registry),
            BatchMetrics(registry),
            EngineMetrics(registry),
            RuntimeMetrics(registry),
            ModelMetrics(registry),
            MemoryMetrics(registry),
            QualityMetrics(registry),
            GuardMetrics(registry),
            DriftMetrics(registry),
        )

    def every(self) -> Iterator[MetricWrapperBase]:
        """Yield every metric."""
        for field in fields(self):
            if field.name != "registry":
                family = getattr(self, field.name)
                yield from (metric for metric in vars(family).values() if isinstance(metric, MetricWrapperBase))

    def forget(self, model: str) -> None:
        """Remove every series of a model that is no longer loaded, by its qualified name (``en-fr@2``)."""
        for metric in self.every():
            if "model" in metric._labelnames:
                metric.remove_by_labels({"model": model})
