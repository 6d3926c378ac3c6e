from pathlib import Path

import pytest

from tests.reliability.burst import bars, burst
from tests.reliability.process import running


@pytest.mark.parametrize("connections", [1, 8])
async def test_a_burst_is_answered_or_refused_to_the_last_call(connections: int, tiny_bundle: Path) -> None:
    with running(tiny_bundle, THREADS="1") as service:
        came = await burst(service, connections, calls=400)
    assert came.count("right")
    assert all(bar.met for bar in bars([came], calls=400)), came.outcomes
