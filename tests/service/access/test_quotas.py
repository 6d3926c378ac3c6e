import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service.access.principals import Principal, Quota
from service.access.quotas import Quotas
from service.errors import ConcurrencyExceeded, LargerThanQuota, QuotaExceeded, ServiceError
from service.metrics import Metrics

RATES = st.floats(0.1, 1e5)
WAITS = st.floats(0, 100)


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def of(name: str = "newsroom", **limits: float) -> Principal:
    return Principal(name, frozenset({"translate"}), Quota(**limits))  # type: ignore[arg-type]


def quotas(clock: Callable[[], float]) -> Quotas:
    return Quotas(Metrics.on(CollectorRegistry()), clock)


@settings(deadline=None)
@given(RATES, st.integers(1, 10_000), st.lists(st.tuples(WAITS, st.integers(0, 12_000)), max_size=60))
def test_in_no_stretch_of_time_more_passes_than_burst_and_rate_times_time(
    rate: float, burst: int, charges: list[tuple[float, int]]
) -> None:
    clock, requests_per_second, burst_requests = Clock(), 0.1, 3
    principal = Principal("a", frozenset(), Quota(rate, burst, requests_per_second, burst_requests))
    own = quotas(clock)
    passed: list[tuple[float, int]] = []
    for wait, characters in charges:
        clock.now += wait
        try:
            own.charge(principal, characters)
        except ServiceError:
            continue
        passed.append((clock.now, characters))
    for first, (begin, _) in enumerate(passed):
        total = 0
        for requests, (now, characters) in enumerate(passed[first:], start=1):
            total += characters
            assert total <= (burst + rate * (now - begin)) * (1 + 1e-9)
            assert requests <= (burst_requests + requests_per_second * (now - begin)) * (1 + 1e-9)


@settings(deadline=None)
@given(RATES, st.integers(1, 10_000), st.lists(st.integers(1, 10_000), min_size=1, max_size=30))
def test_after_the_time_it_names_a_refused_request_passes(rate: float, burst: int, sizes: list[int]) -> None:
    clock = Clock()
    own, principal = quotas(clock), of(characters_per_second=rate, burst_characters=burst)
    for size in (min(size, burst) for size in sizes):
        try:
            own.charge(principal, size)
        except QuotaExceeded as refusal:
            assert 0 < refusal.retry_after_seconds <= burst / rate * (1 + 1e-9)
            clock.now += refusal.retry_after_seconds * (1 + 1e-9) + 1e-6
            own.charge(principal, size)


@settings(deadline=None)
@given(st.lists(st.tuples(WAITS, st.integers(0, 120), st.integers(0, 1)), max_size=60))
def test_a_refused_request_takes_nothing_from_any_bucket(charges: list[tuple[float, int, int]]) -> None:
    """Twin: a service that is never asked what would be refused lets the same requests pass."""
    clock, principal = (
        Clock(),
        of(characters_per_second=10.0, burst_characters=100, requests_per_second=0.5, burst_requests=3),
    )
    asked, spared = quotas(clock), quotas(clock)
    for wait, characters, requests in charges:
        clock.now += wait
        try:
            asked.charge(principal, characters, requests)
        except ServiceError:
            continue
        spared.charge(principal, characters, requests)


def test_a_full_bucket_lets_its_burst_pass_at_once_and_no_more() -> None:
    clock = Clock()
    own, principal = quotas(clock), of(requests_per_second=2.0, burst_requests=5)
    for _ in range(5):
        own.charge(principal, 1_000_000)
    with pytest.raises(QuotaExceeded, match=r"'newsroom' has used up its quota; try again in 0.5 seconds") as caught:
        own.charge(principal, 1)
    assert caught.value.retry_after_seconds == 0.5


def test_what_follows_in_a_stream_costs_no_request() -> None:
    own, principal = quotas(Clock()), of(requests_per_second=1.0, burst_requests=1)
    own.charge(principal, 10)
    own.charge(principal, 10, requests=0)


def test_a_text_that_no_wait_would_let_pass_is_refused_by_name() -> None:
    own, principal = quotas(Clock()), of(characters_per_second=1.0, burst_characters=100)
    with pytest.raises(LargerThanQuota, match="the request has 101 characters; 'newsroom' may send 100 at once"):
        own.charge(principal, 101)
    own.charge(principal, 100)


def test_principals_do_not_share_a_bucket() -> None:
    own = quotas(Clock())
    for name in ("a", "b"):
        own.charge(of(name, characters_per_second=1.0, burst_characters=10), 10)


def test_a_quota_that_changed_counts_from_the_next_charge() -> None:
    clock = Clock()
    own = quotas(clock)
    own.charge(of(characters_per_second=1.0, burst_characters=10), 10)
    with pytest.raises(QuotaExceeded):
        own.charge(of(characters_per_second=10.0, burst_characters=50), 20)
    clock.now += 2.0
    own.charge(of(characters_per_second=10.0, burst_characters=50), 20)
    own.charge(of(), 1_000_000)


def test_no_quota_is_no_limit() -> None:
    own = quotas(Clock())
    with own.open_call(of()), own.open_call(of()):
        own.charge(of(), 10**9)


def test_by_default_time_is_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    own, principal = Quotas(Metrics.on(CollectorRegistry())), of(requests_per_second=0.001, burst_requests=1)
    own.charge(principal, 1)
    monkeypatch.setattr("time.time", lambda: math.inf)
    with pytest.raises(QuotaExceeded):
        own.charge(principal, 1)


def test_calls_open_at_once_are_bounded_and_come_back_when_they_end() -> None:
    own, principal = quotas(Clock()), of(concurrent=2)
    with own.open_call(principal):
        with pytest.raises(KeyError), own.open_call(principal):
            with pytest.raises(ConcurrencyExceeded, match="'newsroom' has 2 calls open and may have 2") as caught:
                own.open_call(principal).__enter__()
            assert caught.value.retry_after_seconds > 0
            raise KeyError
        with own.open_call(principal):
            pass


def test_refusals_are_counted_by_reason() -> None:
    metrics = Metrics.on(CollectorRegistry())
    own, principal = Quotas(metrics, Clock()), of(characters_per_second=1.0, burst_characters=1, concurrent=1)
    own.charge(principal, 1)
    with own.open_call(principal):
        with pytest.raises(QuotaExceeded):
            own.charge(principal, 1)
        with pytest.raises(LargerThanQuota):
            own.charge(principal, 2)
        with pytest.raises(ConcurrencyExceeded), own.open_call(principal):
            pass
    for reason in ("QUOTA_EXCEEDED", "LARGER_THAN_QUOTA", "CONCURRENCY_EXCEEDED"):
        assert metrics.registry.get_sample_value("interlinear_access_refusals_total", {"reason": reason}) == 1
