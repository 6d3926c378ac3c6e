"""What becomes of attention when it is interfered with: terms left out of its scores, tokens masked, rows given.

Axes: ``source`` source tokens with end of sentence, ``beam`` hypotheses of one sentence at one step, ``key``; ``[3 3]``
is the encoder's component, then the decoder's, in the order of ``bundle.decomposition.COMPONENTS``. Arithmetic is
float64, and rounded to float32 once, at the end.

The order is fixed: scores lose the terms that are left out, attention to masked tokens becomes 0, the softmax is taken,
and a row that is given takes the place of whatever came out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from bundle.decomposition import COMPONENTS, Components, softmax, split
from bundle.tables import ComponentTables


@dataclass(frozen=True, eq=False)
class AttentionChange:
    """How to interfere with the attention of one sentence.

    Attributes:
        left_out: Terms that scores lose.
        masked: Tokens that get no attention; never all of them.
        rows: Rows that are given, by the step they are for; each sums to 1.
        every_row: A row for the steps that ``rows`` does not name.
        tables: What splits scores into terms; needed where one is left out.
    """

    left_out: Bool[np.ndarray, "3 3"]
    masked: Bool[np.ndarray, "source"]
    rows: Mapping[int, Float64[np.ndarray, "source"]] = field(default_factory=dict)
    every_row: Float64[np.ndarray, "source"] | None = None
    tables: ComponentTables | None = None

    def __post_init__(self) -> None:
        """Check that attention has somewhere to go, and that terms can be told apart.

        Raises:
            ValueError: Every token is masked, or a term is left out and there are no tables.
        """
        if self.masked.all():
            raise ValueError("every source token is masked; leave at least the end of sentence")
        if self.left_out.any() and self.tables is None:
            raise ValueError("a term is to be left out, and there are no component tables to tell it from the others")


class ChangedAttention:
    """A change at work on the sentence whose keys are known."""

    def __init__(
        self, change: AttentionChange, keys: Float[np.ndarray, "source key"], source_ids: Sequence[int]
    ) -> None:
        self._change = change
        self._tables = change.tables if change.left_out.any() else None
        if self._tables is not None:
            encoder = _stacked(split(keys, np.asarray(source_ids, np.int64), self._tables.encoder))
            # what each component of a query must not be multiplied with
            self._lost_keys = np.einsum("ed,esk->dsk", change.left_out.astype(np.float64), encoder)

    def weights(
        self,
        scores: Float32[np.ndarray, "beam source"],
        queries: Float[np.ndarray, "beam key"],
        step: int,
        token_ids: Int[np.ndarray, "beam"],
    ) -> Float32[np.ndarray, "beam source"] | None:
        """Return the weights to use at ``step``; None where the model's own are to stay.

        Args:
            scores: The model's own, before softmax.
            queries: Those that made the scores.
            step: Tokens that each hypothesis has emitted so far.
            token_ids: The token that indexes the decoder's components of each hypothesis (docs/decomposition.md eq. 4).
        """
        row = self._change.rows.get(step, self._change.every_row)
        if row is not None:
            return np.repeat(row[None].astype(np.float32), len(scores), axis=0)
        if self._tables is None and not self._change.masked.any():
            return None
        changed = scores.astype(np.float64)
        if self._tables is not None:
            places = np.full(len(queries), step)
            decoder = _stacked(split(queries, token_ids, self._tables.decoder, places))
            changed -= np.einsum("dbk,dsk->bs", decoder, self._lost_keys)
        changed[:, self._change.masked] = -np.inf
        return softmax(changed).astype(np.float32)


def _stacked(components: Components) -> Float64[np.ndarray, "3 time key"]:
    return np.stack([getattr(components, name) for name in COMPONENTS])
