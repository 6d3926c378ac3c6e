"""How a metric is made here: on a given registry, with our prefix, and in buckets that are written down once."""

from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)

PREFIX = "interlinear"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SHORT_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
RATIO = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
SIGNED_RATIO = (-0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)
LENGTH_RATIO = (0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
NATS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
LOG_PROBABILITY = (-10.0, -7.0, -5.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.7, -0.5, -0.3, -0.2, -0.1, -0.05, -0.01)
ERROR = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class SeriesOf:
    """The series of one model, each looked up when it is first asked for: that takes longer than counting does."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._found: dict[tuple[MetricWrapperBase, *tuple[str, ...]], Any] = {}

    def __call__(self, metric: MetricT, *labels: str) -> MetricT:
        """Return the series of ``metric`` whose first label is the model, and whose others are ``labels``."""
        found: MetricT | None = self._found.get((metric, *labels))
        if found is None:
            found = self._found[metric, *labels] = metric.labels(self._model, *labels)
        return found


class Family:
    """Metrics that belong together; a child names each of them as an attribute.

    Names are given without the prefix and, for counters, without ``_total``; a unit stands at their end.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Return a counter."""
        return Counter(name, text, labels, namespace=PREFIX, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Return a gauge."""
        return Gauge(name, text, labels, namespace=PREFIX, registry=self._registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        """Return a histogram with one more bucket than ``buckets`` has upper bounds."""
        return Histogram(name, text, labels, namespace=PREFIX, buckets=buckets, registry=self._registry)
