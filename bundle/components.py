"""Components that a person can take in: how the temporal one runs through the positions, which tokens go the same way.

Axes: ``position`` counts time steps from 0; ``time`` does so within one sentence; ``key`` is the attention's key space.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, Int

from bundle.tables import SideTables

CURVE_AXES = 3
NEIGHBORS = 3


@dataclass(frozen=True)
class Neighbor:
    """A token whose input-driven component points nearly the same way as another's.

    Attributes:
        token_id: The token.
        cosine: Of the angle between the two components, -1 to 1.
    """

    token_id: int
    cosine: float


class ComponentViews:
    """Views of one side's tables; what they rest on is computed when it is first asked for, and kept."""

    def __init__(self, side: SideTables) -> None:
        self._side = side
        self._found: dict[tuple[int, int], tuple[Neighbor, ...]] = {}

    @cached_property
    def temporal_axes(self) -> Float64[np.ndarray, "3 key"]:
        """The directions in which the temporal components of well-counted positions vary most about their mean.

        The first varies most; they are orthonormal, or 0 where there are fewer than three. The largest entry of each
        is positive, which settles their signs.
        """
        side = self._side
        well_counted = side.temporal[side.temporal_counts >= side.minimum_count].astype(np.float64)
        _, sizes, directions = np.linalg.svd(well_counted - well_counted.mean(axis=0), full_matrices=False)
        varied = directions[:CURVE_AXES][sizes[:CURVE_AXES] > np.finfo(np.float64).eps * sizes.max(initial=0.0)]
        largest = np.abs(varied).argmax(axis=1)
        axes = np.zeros((CURVE_AXES, side.temporal.shape[1]))
        axes[: len(varied)] = varied * np.sign(varied[np.arange(len(varied)), largest])[:, None]
        return axes

    def temporal_curve(self, length: int) -> Float64[np.ndarray, "time 3"]:
        """Return where the temporal components of the first ``length`` positions lie along ``temporal_axes``.

        Counted from their mean, in the unit of the states. A position past the table stays where the last one is; a
        shorter curve is the beginning of a longer one, to the last bit.
        """
        return self._curve[np.minimum(np.arange(length), len(self._curve) - 1)]

    def nearest_tokens(self, token_id: int, count: int = NEIGHBORS) -> tuple[Neighbor, ...]:
        """Return the ``count`` tokens whose input-driven components point most nearly the same way, nearest first.

        Only tokens that the tables have seen often enough have neighbors and are neighbors, and of those only the ones
        whose component is not 0. What was found once is kept: texts repeat their tokens.
        """
        if (token_id, count) not in self._found:
            self._found[token_id, count] = self._search(token_id, count)
        return self._found[token_id, count]

    def _search(self, token_id: int, count: int) -> tuple[Neighbor, ...]:
        place = int(np.searchsorted(self._candidates, token_id))
        if place == len(self._candidates) or self._candidates[place] != token_id:
            return ()
        cosines = self._directions @ self._directions[place]
        cosines[place] = -np.inf  # nobody is a neighbor of their own
        count = min(count, len(cosines) - 1)
        top = np.argpartition(-cosines, count)[:count]
        top = top[np.lexsort((top, -cosines[top]))]  # the smaller id first among equals
        return tuple(Neighbor(int(self._candidates[near]), float(np.clip(cosines[near], -1, 1))) for near in top)

    @cached_property
    def _curve(self) -> Float64[np.ndarray, "position 3"]:
        side = self._side
        temporal = side.temporal.astype(np.float64)
        mean = temporal[side.temporal_counts >= side.minimum_count].mean(axis=0)
        curve: Float64[np.ndarray, "position 3"] = (temporal - mean) @ self.temporal_axes.T
        return curve

    @cached_property
    def _candidates(self) -> Int[np.ndarray, "candidate"]:
        """Tokens seen often enough, ascending."""
        side = self._side
        return np.flatnonzero((side.input_counts >= side.minimum_count) & side.input_driven.any(axis=1))

    @cached_property
    def _directions(self) -> Float32[np.ndarray, "candidate key"]:
        """Their input-driven components at length 1."""
        components = self._side.input_driven[self._candidates].astype(np.float32)
        lengths = np.linalg.norm(components, axis=1, keepdims=True)
        directions: Float32[np.ndarray, "candidate key"] = components / lengths
        return directions
