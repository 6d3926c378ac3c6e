"""What there is to see of an explanation's components: curves, lengths and nearest tokens, spelled out.

It is worked out only for who asks for it. Axes: ``time`` counts the tokens of one side, end of sentence included.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from bundle.components import ComponentViews
from bundle.decomposition import Components, Decomposition
from bundle.tables import ComponentTables
from bundle.tokenizer import Tokenizer


@dataclass(frozen=True)
class SpelledNeighbor:
    """A token whose input-driven component points nearly the same way as another's.

    Attributes:
        token_id: The token.
        piece: Its spelling in the vocabulary.
        cosine: Of the angle between the two components, -1 to 1.
    """

    token_id: int
    piece: str
    cosine: float


@dataclass(frozen=True)
class SideView:
    """The components of one side's states as a person can take them in.

    Attributes:
        temporal_curve: Temporal components along the axes in which those of the tables vary most.
        norms: Euclidean lengths of the temporal, input-driven and delta components.
        tokens: Token that indexes each state, and its spelling.
        neighbors: Of each of them, nearest first; none for one that the tables have not seen often enough.
    """

    temporal_curve: Float64[np.ndarray, "time 3"]
    norms: Float64[np.ndarray, "3 time"]
    tokens: tuple[tuple[int, str], ...]
    neighbors: tuple[tuple[SpelledNeighbor, ...], ...]


class ComponentReader:
    """Reads the components of one bundle's explanations; ``tables`` are None when the bundle has none."""

    def __init__(self, tables: ComponentTables | None, tokenizer: Tokenizer) -> None:
        self._sides = None if tables is None else (ComponentViews(tables.encoder), ComponentViews(tables.decoder))
        self._tokenizer = tokenizer

    def read(self, decomposition: Decomposition) -> tuple[SideView, SideView]:
        """Return what there is to see of the encoder's components and of the decoder's."""
        assert self._sides is not None, "without tables nothing was decomposed"
        encoder, decoder = self._sides
        return self._side(decomposition.encoder, encoder), self._side(decomposition.decoder, decoder)

    def _side(self, components: Components, views: ComponentViews) -> SideView:
        token_ids = components.token_ids.tolist()
        parts = np.stack([components.temporal, components.input_driven, components.delta])
        return SideView(
            temporal_curve=views.temporal_curve(len(token_ids)),
            norms=np.linalg.norm(parts, axis=2),
            tokens=tuple((token_id, self._tokenizer.piece(token_id)) for token_id in token_ids),
            neighbors=tuple(
                tuple(
                    SpelledNeighbor(neighbor.token_id, self._tokenizer.piece(neighbor.token_id), neighbor.cosine)
                    for neighbor in views.nearest_tokens(token_id)
                )
                for token_id in token_ids
            ),
        )
