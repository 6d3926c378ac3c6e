import random
from pathlib import Path

import pytest

from tests.reliability import garbage
from tests.reliability.fuzz import bars, fuzz
from tests.reliability.load import METHODS
from tests.reliability.mutations import broken_bytes, broken_json
from tests.reliability.process import running


@pytest.mark.slow
async def test_malformed_requests_are_refused_by_name_and_change_nothing(tiny_bundle: Path) -> None:
    with running(tiny_bundle, THREADS="1") as service:
        fuzzed = await fuzz(service, requests=1000, seed=7)
        found = bars(fuzzed, 1000, service)
    assert all(bar.met for bar in found), (found, fuzzed.faults)


def test_a_case_is_the_same_whenever_it_is_sent() -> None:
    for method in METHODS.values():
        once, again = (
            [make(method.input_type, random.Random(f"{method.name} 1")) for make in (broken_bytes, broken_json)]
            for _ in range(2)
        )
        assert once == again


@pytest.mark.parametrize("make", [garbage.for_grpc, garbage.for_http])
def test_every_kind_of_garbage_can_be_made(make: garbage.Maker) -> None:
    chance = random.Random(1)
    conversations = [make(chance) for _ in range(1000)]
    assert all(isinstance(part, bytes) for one in conversations for part in one.parts)
    assert len({one.name for one in conversations}) > 8
