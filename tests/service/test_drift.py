import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from bundle import manifest as manifests
from service.drift import Lately, distance, watch
from service.metrics import Metrics

COUNTS = st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(any).map(lambda counts: np.array(counts, float))


def histogram() -> Histogram:
    return Histogram("seen_tokens", "Seen.", buckets=(1, 2, 4), registry=None)


@pytest.fixture
def watched(tiny_bundle: Path, metrics: Metrics) -> Metrics:
    """Metrics of a model whose reference is that half of all sources have 3 tokens, and half 6."""
    reference = {"upper_bounds": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], "counts": [0, 0, 250, 250] + [0] * 8}
    manifest = manifests.read(tiny_bundle)
    watch(dataclasses.replace(manifest, reference={"histograms": {"source_length_tokens": reference}}), metrics)
    return metrics


def told(metrics: Metrics, signal: str = "source_length") -> float:
    value = metrics.registry.get_sample_value("interlinear_drift_distance", {"model": "tiny@1", "signal": signal})
    assert value is not None, f"nothing is told of {signal}"
    return value


def signals(metrics: Metrics) -> set[str]:
    return set(re.findall(r'interlinear_drift_distance{.*signal="(\w+)"', generate_latest(metrics.registry).decode()))


def serve(metrics: Metrics, lengths: list[int], times: int) -> None:
    for length in lengths * times:
        metrics.requests.source_length.labels("tiny@1").observe(length)


@given(COUNTS, COUNTS)
def test_distance_is_between_0_and_1_and_the_same_both_ways(one: np.ndarray, other: np.ndarray) -> None:
    assert 0.0 <= distance(one, other) <= 1.0 + 1e-12
    assert distance(one, other) == pytest.approx(distance(other, one), abs=1e-7)
    assert distance(one, 3 * one) == pytest.approx(0.0, abs=1e-7)


@given(COUNTS, COUNTS, COUNTS)
def test_a_detour_is_never_shorter(one: np.ndarray, other: np.ndarray, between: np.ndarray) -> None:
    assert distance(one, other) <= distance(one, between) + distance(between, other) + 1e-7


@given(COUNTS, COUNTS)
def test_its_square_is_the_entropy_of_the_mixture_less_that_of_the_parts(one: np.ndarray, other: np.ndarray) -> None:
    def entropy(p: list[float]) -> float:  # twin, in bits
        return -sum(share * math.log2(share) for share in p if share)

    p, q = (list(counts / counts.sum()) for counts in (one, other))
    mixture = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    assert distance(one, other) ** 2 == pytest.approx(entropy(mixture) - (entropy(p) + entropy(q)) / 2, abs=1e-9)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=400), st.integers(1, 50))
def test_how_often_it_is_read_changes_how_much_it_remembers_by_nothing(values: list[int], often: int) -> None:
    rarely, constantly = Lately(one := histogram()), Lately(other := histogram())
    for index, value in enumerate(values):
        one.observe(value)
        other.observe(value)
        if index % often == 0:
            constantly.counts()
    assert constantly.counts().sum() == pytest.approx(rarely.counts().sum())
    assert rarely.sentences == constantly.sentences == len(values)


def test_what_was_long_ago_is_forgotten() -> None:
    lately = Lately(seen := histogram())
    for value, times in ((1, 3000), (3, 3000)):
        for _ in range(times):
            seen.observe(value)
        counts = lately.counts()
    assert counts.sum() == pytest.approx(500, rel=0.01)
    assert counts[0] < 2 < 490 < counts[2]


def test_nothing_is_said_before_a_hundred_sentences(watched: Metrics) -> None:
    serve(watched, [3, 6, 3], 33)
    assert math.isnan(told(watched))
    serve(watched, [6], 1)
    assert 0.0 < told(watched) < 0.2


def test_sentences_like_the_reference_are_near_and_others_far_and_it_comes_back(watched: Metrics) -> None:
    serve(watched, [3, 6], 500)
    assert told(watched) < 0.01
    serve(watched, [100], 1000)
    assert told(watched) > 0.8
    serve(watched, [3, 6], 1000)
    assert told(watched) < 0.3


def test_a_signal_without_a_reference_is_not_exported(watched: Metrics) -> None:
    assert signals(watched) == {"source_length"}


@pytest.mark.parametrize(
    "reference", [{"upper_bounds": [1, 2], "counts": [1, 1, 1]}, {"upper_bounds": [1.0], "counts": [0, 0]}]
)
def test_a_reference_in_other_bins_or_of_nothing_is_not_compared(tiny_bundle: Path, reference: object) -> None:
    metrics = Metrics.on(CollectorRegistry())
    manifest = manifests.read(tiny_bundle)
    watch(dataclasses.replace(manifest, reference={"histograms": {"source_length_tokens": reference}}), metrics)
    assert not signals(metrics)


def test_an_unloaded_model_is_no_longer_watched(watched: Metrics) -> None:
    watched.forget("tiny@1")
    assert not signals(watched)
