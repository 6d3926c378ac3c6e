import math

import numpy as np
import pytest

from bundle.search import Hypothesis
from service.metrics import Metrics
from service.quality import is_repetitive, mean_entropy, meter_translation, uncovered_ratio


@pytest.mark.parametrize("token_ids", [(1, 1, 1, 1), (9, 1, 2, 1, 2, 1, 2), (1, 2, 3, 4, 5, 6, 7, 8) * 3])
def test_a_loop_is_suspected(token_ids: tuple[int, ...]) -> None:
    assert is_repetitive(token_ids)


@pytest.mark.parametrize("token_ids", [(), (1,), (1, 1, 1), (1, 2, 1, 2), (1, 2, 3, 1, 2, 3), tuple(range(40))])
def test_a_word_said_again_is_no_loop(token_ids: tuple[int, ...]) -> None:
    assert not is_repetitive(token_ids)


def test_entropy_is_nothing_for_a_sharp_row_and_most_for_a_flat_one() -> None:
    assert mean_entropy(np.eye(3, dtype=np.float32)) == pytest.approx(0.0, abs=1e-6)
    assert mean_entropy(np.full((2, 4), 0.25, np.float32)) == pytest.approx(math.log(4))


def test_a_source_token_nobody_looked_at_is_uncovered() -> None:
    weights = np.array([[0.9, 0.05, 0.0, 0.05], [0.8, 0.01, 0.1, 0.09]], np.float32)
    assert uncovered_ratio(weights) == pytest.approx(1 / 3)
    assert uncovered_ratio(np.ones((2, 1), np.float32)) == 0.0


def test_a_translation_is_metered_with_alignment_only_where_there_is_one(metrics: Metrics) -> None:
    hypothesis = Hypothesis((5, 5, 5, 5, 3), -2.5, -0.5, (-0.5,) * 5, "eos", (0,) * 5)
    meter_translation(metrics.quality, "tiny", 4, hypothesis, None)
    meter_translation(metrics.quality, "tiny", 4, hypothesis, np.full((5, 4), 0.25, np.float32))

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"interlinear_{name}", {"model": "tiny"})

    assert value("token_log_probability_nats_count") == 2
    assert value("sequence_confidence_ratio_sum") == pytest.approx(2 * math.exp(-0.5))
    assert value("length_ratio_sum") == pytest.approx(2 * 5 / 4)
    assert value("repetition_suspected_total") == 2
    assert value("alignment_entropy_nats_count") == value("alignment_uncovered_source_ratio_count") == 1
