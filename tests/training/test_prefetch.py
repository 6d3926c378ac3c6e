import threading
from collections.abc import Iterator

import pytest

from training.prefetch import Prefetcher


def test_items_come_in_their_order_and_each_once() -> None:
    with Prefetcher(iter(range(500)), ahead=3) as items:
        assert list(items) == list(range(500))


def test_reading_goes_ahead_as_far_as_it_may_and_no_further() -> None:
    read: list[int] = []
    full = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            if number == 4:
                full.set()
            yield number

    with Prefetcher(numbers(), ahead=4) as items:
        assert full.wait(30)  # four lie ready and the fifth waits for room, though none was asked for
        assert next(iter(items)) == 0
    assert len(read) <= 6


def test_an_error_of_the_reader_reaches_the_caller_after_the_items_before_it() -> None:
    def two() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("a bad third")

    seen = []
    with Prefetcher(two(), ahead=8) as items, pytest.raises(ValueError, match="a bad third"):
        for item in items:
            seen.append(item)
    assert seen == [1, 2]


@pytest.mark.parametrize("error", [None, KeyError("the caller's own")])
def test_leaving_early_ends_the_thread(error: KeyError | None) -> None:
    def forever() -> Iterator[int]:
        while True:
            yield 0

    before = threading.active_count()
    try:
        with Prefetcher(forever(), ahead=2) as items:
            for _ in items:
                if error:
                    raise error
                break
    except KeyError as raised:
        assert raised is error
    assert threading.active_count() == before
