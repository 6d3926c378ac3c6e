"""Tokens that would repeat a run, against a listing of all runs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bundle.blocking import completing
from bundle.ragged import NO_TOKEN


def repeating(tokens: list[int], size: int) -> set[int]:
    runs = {tuple(tokens[first : first + size]) for first in range(len(tokens) - size + 1)} if size else set()
    return {run[-1] for run in runs if tuple([*tokens, run[-1]][-size:]) == run}


@given(st.integers(1, 3), st.integers(0, 12), st.integers(1, 3), st.integers(0, 999), st.data())
def test_exactly_the_tokens_that_would_repeat_a_run_are_listed(
    batch: int, longest: int, beam: int, seed: int, data: st.DataObject
) -> None:
    emitted = np.random.default_rng(seed).integers(
        4, 7, (batch, longest, beam)
    )  # what lies past a sentence's steps too
    steps = np.array([data.draw(st.integers(0, longest)) for _ in range(batch)])
    sizes = np.array([data.draw(st.sampled_from([0, 1, 2, 3, 16])) for _ in range(batch)])
    blocked = completing(emitted, steps, sizes)
    longest_list = 0
    for sentence, row in np.ndindex(batch, beam):
        listed = blocked[sentence, :, row]
        expected = repeating(emitted[sentence, : steps[sentence], row].tolist(), int(sizes[sentence]))
        assert set(listed[listed != NO_TOKEN].tolist()) == expected
        longest_list = max(longest_list, int((listed != NO_TOKEN).sum()))
    assert blocked.shape == (batch, longest_list, beam)


def test_where_nothing_is_blocked_no_room_is_taken() -> None:
    assert completing(np.full((2, 9, 4), 5), np.array([9, 9]), np.array([0, 0])).shape == (2, 0, 4)
