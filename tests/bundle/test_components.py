from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bundle.components import CURVE_AXES, NEIGHBORS, ComponentViews
from bundle.tables import SideTables

MINIMUM_COUNT = 3
VALUES = st.floats(-4, 4, width=16)


@st.composite
def side_tables(draw: Any) -> SideTables:
    positions, vocabulary, key = (draw(st.integers(1, 9)) for _ in range(3))
    counts = st.integers(0, 2 * MINIMUM_COUNT)
    temporal_counts = draw(arrays(np.uint32, positions, elements=counts))
    temporal_counts[draw(st.integers(0, positions - 1))] = MINIMUM_COUNT  # a fit has one well-counted position at least
    return SideTables(
        temporal=draw(arrays(np.float16, (positions, key), elements=VALUES)),
        temporal_counts=temporal_counts,
        input_driven=draw(arrays(np.float16, (vocabulary, key), elements=VALUES)),
        input_counts=draw(arrays(np.uint32, vocabulary, elements=counts)),
        minimum_count=MINIMUM_COUNT,
    )


def well_counted_positions(side: SideTables) -> np.ndarray:
    return side.temporal[side.temporal_counts >= MINIMUM_COUNT].astype(np.float64)


@given(side_tables())
def test_axes_are_orthonormal_or_absent_and_their_largest_entry_is_positive(side: SideTables) -> None:
    axes = ComponentViews(side).temporal_axes
    products = axes @ axes.T
    present = axes.any(axis=1)
    assert products == pytest.approx(np.diag(present.astype(float)), abs=1e-9)
    assert not (np.diff(present.astype(int)) > 0).any(), "the axes that are missing are the last ones"
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in axes[present])


@given(side_tables())
def test_the_axes_hold_as_much_of_the_variance_as_the_largest_eigenvalues_of_the_covariance(side: SideTables) -> None:
    states = well_counted_positions(side)
    centred = states - states.mean(axis=0)
    eigenvalues = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1][:CURVE_AXES]
    along = ((centred @ ComponentViews(side).temporal_axes.T) ** 2).sum(axis=0)
    assert along[: len(eigenvalues)] == pytest.approx(eigenvalues, abs=1e-8 * max(1.0, eigenvalues[0]))


@given(side_tables(), st.integers(1, 15), st.integers(1, 15))
def test_a_curve_is_the_beginning_of_a_longer_one(side: SideTables, one: int, other: int) -> None:
    views, (short, long) = ComponentViews(side), sorted((one, other))
    assert np.array_equal(views.temporal_curve(short), views.temporal_curve(long)[:short])
    assert views.temporal_curve(long).shape == (long, CURVE_AXES)


@given(side_tables())
def test_a_curve_keeps_the_distances_between_positions_where_three_axes_hold_all_of_them(side: SideTables) -> None:
    curve = ComponentViews(side).temporal_curve(len(side.temporal))[side.temporal_counts >= MINIMUM_COUNT]
    states = well_counted_positions(side)
    true = np.linalg.norm(states[:, None] - states[None], axis=2)
    shown = np.linalg.norm(curve[:, None] - curve[None], axis=2)
    assert (shown <= true + 1e-6).all()
    if np.linalg.matrix_rank(states - states.mean(axis=0)) <= CURVE_AXES:
        assert shown == pytest.approx(true, abs=1e-5)


def neighbors_one_by_one(side: SideTables, token_id: int) -> dict[int, float]:
    """Return the cosine to every possible neighbor: the definition, in plain loops."""

    def direction(other: int) -> np.ndarray | None:
        component = side.input_driven[other].astype(np.float64)
        if side.input_counts[other] < MINIMUM_COUNT or not component.any():
            return None
        return np.asarray(component / np.sqrt((component**2).sum()))

    mine = direction(token_id)
    if mine is None:
        return {}
    others = {other: direction(other) for other in range(len(side.input_counts)) if other != token_id}
    return {other: float(mine @ theirs) for other, theirs in others.items() if theirs is not None}


@given(side_tables(), st.data())
def test_neighbors_are_those_that_plain_loops_find(side: SideTables, data: Any) -> None:
    views = ComponentViews(side)
    token_id = data.draw(st.integers(0, len(side.input_counts) - 1))
    count = data.draw(st.integers(1, NEIGHBORS))
    neighbors, true = views.nearest_tokens(token_id, count), neighbors_one_by_one(side, token_id)
    cosines = [neighbor.cosine for neighbor in neighbors]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines == pytest.approx(sorted(true.values(), reverse=True)[:count], abs=1e-5)
    assert len({neighbor.token_id for neighbor in neighbors}) == len(neighbors)
    for neighbor in neighbors:
        assert neighbor.cosine == pytest.approx(true[neighbor.token_id], abs=1e-5)
    assert views.nearest_tokens(token_id, count) == neighbors, "the second time as the first"


def test_tokens_seen_too_seldom_neither_have_nor_are_neighbors() -> None:
    side = SideTables(
        temporal=np.zeros((1, 2), np.float16),
        temporal_counts=np.array([9], np.uint32),
        input_driven=np.array([[1, 0], [2, 0.1], [1, 0], [0, 0]], np.float16),
        input_counts=np.array([9, 9, MINIMUM_COUNT - 1, 9], np.uint32),
        minimum_count=MINIMUM_COUNT,
    )
    first, second, seldom, zero = map(ComponentViews(side).nearest_tokens, range(4))
    assert [neighbor.token_id for neighbor in first] == [1]
    assert [neighbor.token_id for neighbor in second] == [0]
    assert not seldom and not zero
