"""Drift is the distance between what the service meters and what the exporter recorded: their bins must be the same."""

import pytest

from exporters.figures import REFERENCE_BINS
from service.metrics import Metrics


@pytest.mark.parametrize("name", REFERENCE_BINS)
def test_the_service_meters_in_the_bins_of_the_reference(name: str, metrics: Metrics) -> None:
    histogram = metrics.registry._names_to_collectors[f"interlinear_{name}"]
    histogram.labels("model").observe(0.0)  # type: ignore[attr-defined]
    (family,) = histogram.collect()
    bounds = [float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")]
    assert bounds == [*REFERENCE_BINS[name], float("inf")]
