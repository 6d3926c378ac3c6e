from pathlib import Path

import pytest

from tests.reliability import faults, model_faults, process_faults
from tests.reliability.stage import scene_of

SOME = (
    process_faults.engine_hangs,
    process_faults.terminated,
    model_faults.bundle_damaged,
    model_faults.hot_swaps,
)


@pytest.mark.slow
@pytest.mark.parametrize("fault", SOME, ids=lambda fault: fault.__name__)
async def test_a_fault_under_load_costs_no_answer_and_falsifies_none(fault: faults.Fault, tiny_bundle: Path) -> None:
    with scene_of(tiny_bundle, seed=1, share=0.02) as scene:
        found = await fault(scene)
    assert not found.misses, found.examples()
    assert found.stage.count("right")
