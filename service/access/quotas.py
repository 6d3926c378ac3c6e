"""How much each principal may send: token buckets by characters and by requests, and calls open at once.

A bucket holds at most ``burst`` and is filled at ``rate`` a second, so in any t seconds at most burst + rate · t
passes. Time is the monotonic clock's: setting the machine's clock neither fills nor empties a bucket. Buckets belong to
a principal's name and outlive a reload of the credentials file; a quota that changed counts from the next charge.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.access.principals import Principal
from service.errors import ConcurrencyExceeded, LargerThanQuota, QuotaExceeded, ServiceError
from service.metrics import Metrics

_CONCURRENCY_RETRY_SECONDS = 1.0  # nobody knows when one of the caller's own calls will end


@dataclass
class _Bucket:
    """What a principal may still send of one kind.

    Attributes:
        level: How much, at the time ``filled``.
        filled: Seconds of the monotonic clock.
    """

    level: float
    filled: float

    def fill(self, rate: float, burst: int, now: float) -> None:
        self.level = min(float(burst), self.level + rate * (now - self.filled))
        self.filled = now


class Quotas:
    """The quotas of all principals; its methods belong to one event loop. Counts what it refuses."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}  # by name of the principal and kind
        self._open: Counter[str] = Counter()

    def charge(self, principal: Principal, characters: int, requests: int = 1) -> None:
        """Take what a request costs out of its sender's buckets, or take nothing and refuse it.

        Args:
            principal: Who sends it.
            characters: Code points of its texts.
            requests: 1, or 0 for what follows in a stream.

        Raises:
            QuotaExceeded: The buckets do not hold enough yet.
            LargerThanQuota: They never will.
        """
        quota = principal.quota
        taken: list[tuple[_Bucket, int]] = []
        wait_seconds = 0.0
        for kind, cost, rate, burst in (
            ("characters", characters, quota.characters_per_second, quota.burst_characters),
            ("requests", requests, quota.requests_per_second, quota.burst_requests),
        ):
            if rate is None or burst is None:
                continue
            if cost > burst:
                message = f"the request has {cost} {kind}; {principal.name!r} may send {burst} at once. Split the text."
                raise self._refused(LargerThanQuota("text", message))
            bucket = self._filled(principal.name, kind, rate, burst)
            wait_seconds = max(wait_seconds, (cost - bucket.level) / rate)
            taken.append((bucket, cost))
        if wait_seconds > 0:
            message = f"{principal.name!r} has used up its quota; try again in {wait_seconds:.3g} seconds"
            raise self._refused(QuotaExceeded(message, wait_seconds))
        for bucket, cost in taken:
            bucket.level -= cost

    @contextlib.contextmanager
    def open_call(self, principal: Principal) -> Iterator[None]:
        """Count a call as open while the context lasts.

        Raises:
            ConcurrencyExceeded: Its sender has as many open as it may have.
        """
        name, most = principal.name, principal.quota.concurrent
        if most is not None and self._open[name] >= most:
            message = f"{name!r} has {self._open[name]} calls open and may have {most}; wait for one to end"
            raise self._refused(ConcurrencyExceeded(message, _CONCURRENCY_RETRY_SECONDS))
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1

    def _filled(self, name: str, kind: str, rate: float, burst: int) -> _Bucket:
        """Return the bucket as it is now; a new one is full."""
        now = self._clock()
        bucket = self._buckets.setdefault((name, kind), _Bucket(burst, now))
        bucket.fill(rate, burst, now)
        return bucket

    def _refused(self, error: ServiceError) -> ServiceError:
        self._metrics.access.refusals.labels(error.reason).inc()
        return error
