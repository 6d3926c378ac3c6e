from pathlib import Path

import pytest

from tests.reliability.process import running
from tests.reliability.soak import Load, Soak, bars, memory_windows


@pytest.mark.slow
async def test_a_mixed_load_with_callers_who_leave_ends_with_every_gauge_at_zero(tiny_bundle: Path) -> None:
    soaked = Soak(Load(callers=24, requests=500, seconds=20.0, seed=1, questions=60))
    with running(tiny_bundle, THREADS="1") as service:
        await soaked.run(service)
        found = bars(soaked, service)
    assert soaked.count("gone") and soaked.count("right")
    # Whether memory grows cannot be told in so short a time.
    assert not [bar for bar in found if not bar.met and "memory" not in bar.name], soaked.judged


def test_memory_is_judged_without_its_warm_up() -> None:
    assert memory_windows([*range(24), *[100] * 120]) == [100] * 10
