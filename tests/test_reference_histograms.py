"""Drift is the distance between what the service meters and what the exporter recorded: their bins must be the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters import figures
from exporters.figures import REFERENCE_BINS
from service import quality
from service.metrics import Metrics


@pytest.mark.parametrize("name", REFERENCE_BINS)
def test_the_service_meters_in_the_bins_of_the_reference(name: str, metrics: Metrics) -> None:
    histogram = metrics.registry._names_to_collectors[f"interlinear_{name}"]
    histogram.labels("model").observe(0.0)  # type: ignore[attr-defined]
    (family,) = histogram.collect()
    bounds = [float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")]
    assert bounds == [*REFERENCE_BINS[name], float("inf")]


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_service_measures_attention_as_the_exporter_did(source: int, target: int, seed: int) -> None:
    weights = np.random.default_rng(seed).dirichlet(np.full(source, 0.2), target).astype(np.float32)
    assert quality.mean_entropy(weights) == pytest.approx(figures._entropy(weights), abs=1e-5)
    assert quality.uncovered_ratio(weights) == figures._uncovered(weights)


@given(st.lists(st.integers(0, 5), max_size=20))
def test_the_service_measures_repetition_as_the_exporter_did(token_ids: list[int]) -> None:
    assert quality.repeated_ratio(token_ids) == figures._repeated(token_ids)
