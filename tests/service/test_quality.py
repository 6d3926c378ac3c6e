import math

import numpy as np
import pytest

from bundle.search import Hypothesis
from service.metrics import Metrics
from service.metrics.registration import SeriesOf
from service.quality import mean_entropy, meter_translation, monotone_ratio, uncovered_ratio


def test_entropy_is_nothing_for_a_sharp_row_and_most_for_a_flat_one() -> None:
    assert mean_entropy(np.eye(3, dtype=np.float32)) == pytest.approx(0.0, abs=1e-6)
    assert mean_entropy(np.full((2, 4), 0.25, np.float32)) == pytest.approx(math.log(4))


def test_a_source_token_nobody_looked_at_is_uncovered() -> None:
    weights = np.array([[0.9, 0.05, 0.0, 0.05], [0.8, 0.01, 0.1, 0.09]], np.float32)
    assert uncovered_ratio(weights) == pytest.approx(1 / 3)
    assert uncovered_ratio(np.ones((2, 1), np.float32)) == 0.0


def test_attention_that_goes_back_is_not_monotone() -> None:
    assert monotone_ratio(np.eye(4, dtype=np.float32)) == 1.0
    assert monotone_ratio(np.eye(4, dtype=np.float32)[[0, 2, 1, 3]]) == pytest.approx(2 / 3)
    assert monotone_ratio(np.ones((1, 3), np.float32)) == 1.0


def test_a_translation_is_metered_with_alignment_only_where_there_is_one(metrics: Metrics) -> None:
    hypothesis = Hypothesis((5, 5, 5, 5, 3), -2.5, -0.5, (-0.5,) * 5, "eos", (0,) * 5)
    meter_translation(metrics.quality, SeriesOf("tiny@1"), (5, 6, 7, 3), hypothesis, None)
    meter_translation(metrics.quality, SeriesOf("tiny@1"), (5, 6, 7, 3), hypothesis, np.full((5, 4), 0.25, np.float32))

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"interlinear_{name}", {"model": "tiny@1"})

    assert value("token_log_probability_nats_count") == 2
    assert value("sequence_confidence_ratio_sum") == pytest.approx(2 * math.exp(-0.5))
    assert value("length_ratio_sum") == pytest.approx(2 * 5 / 4)
    assert value("copied_source_ratio_sum") == 2 * 1.0
    assert value("repeated_pairs_ratio_sum") == pytest.approx(2 * 0.5)
    for name in ("entropy_nats", "uncovered_source_ratio", "max_weight_ratio", "monotonicity_ratio"):
        assert value(f"alignment_{name}_count") == 1
    assert value("alignment_max_weight_ratio_sum") == pytest.approx(0.25)
