import random
from typing import Any

import pytest

from service.cache import _ENTRY_BYTES, CacheKey, TranslationCache
from service.metrics import Metrics
from service.pb import interlinear_pb2 as pb
from service.translation import TranslationOptions
from tests.service.edge import metric_value


def key(text: str = "a", **changes: Any) -> CacheKey:
    return CacheKey("anyone", "digest", "", text, TranslationOptions(), 0, 0)._replace(**changes)


def translation(text: str) -> pb.Translation:
    return pb.Translation(hypotheses=[pb.Hypothesis(text=text, log_probability=-0.1)], batch_size=3)


def test_what_was_kept_comes_back_the_same_to_the_bit_and_says_that_it_was_kept(metrics: Metrics) -> None:
    cache = TranslationCache(1 << 20, metrics)
    assert cache.get(key()) is None
    cache.keep(key(), translation("un"))
    found = cache.get(key())
    assert found is not None and found.cached
    found.cached = False
    assert found.SerializeToString() == translation("un").SerializeToString()


def test_a_reader_of_a_kept_translation_may_change_his_copy(metrics: Metrics) -> None:
    cache = TranslationCache(1 << 20, metrics)
    cache.keep(key(), translation("un"))
    for _ in range(2):
        found = cache.get(key())
        assert found is not None and found.hypotheses[0].text == "un"
        found.hypotheses[0].text = "deux"


@pytest.mark.parametrize(
    "changes",
    [
        {"principal": "other"},
        {"digest": "other"},
        {"reverse_digest": "other"},
        {"text": "A"},
        {"text": "a "},
        {"options": TranslationOptions(beam_size=1)},
        {"options": TranslationOptions(max_target_tokens=9)},
        {"options": TranslationOptions(guard="report")},
        {"options": TranslationOptions(no_repeat_ngram_size=3)},
        {"detail": 1},
        {"encoding": 1},
    ],
)
def test_whatever_may_change_a_translation_is_part_of_its_key(metrics: Metrics, changes: dict[str, Any]) -> None:
    cache = TranslationCache(1 << 20, metrics)
    cache.keep(key(), translation("un"))
    assert cache.get(key(**changes)) is None


def test_it_never_holds_more_than_its_bytes_and_lets_the_least_recently_used_go(metrics: Metrics) -> None:
    limit = 20 * _ENTRY_BYTES
    cache = TranslationCache(limit, metrics)
    cache.keep(key("kept"), translation("kept"))
    generator = random.Random(7)
    for number in range(500):
        assert cache.get(key("kept")) is not None
        cache.keep(key(str(number)), translation("x" * generator.randrange(3000)))
        assert metric_value(metrics, "interlinear_cache_bytes") <= limit
        assert metric_value(metrics, "interlinear_cache_entries") <= 20
    assert cache.get(key("0")) is None
    evicted = metric_value(metrics, "interlinear_cache_evictions_total")
    assert evicted == 501 - metric_value(metrics, "interlinear_cache_entries")
    assert metric_value(metrics, "interlinear_cache_hits_total") == 500
    assert metric_value(metrics, "interlinear_cache_misses_total") == 1


def test_a_translation_larger_than_the_cache_is_not_kept(metrics: Metrics) -> None:
    cache = TranslationCache(2 * _ENTRY_BYTES, metrics)
    cache.keep(key("small"), translation("s"))
    cache.keep(key("large"), translation("x" * 3000))
    assert cache.get(key("large")) is None
    assert cache.get(key("small")) is not None


def test_a_cache_of_no_bytes_is_off_and_counts_nothing(metrics: Metrics) -> None:
    cache = TranslationCache(0, metrics)
    cache.keep(key(), translation("un"))
    assert cache.get(key()) is None
    assert metric_value(metrics, "interlinear_cache_misses_total") == 0
