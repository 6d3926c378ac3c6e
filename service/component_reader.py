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
        sides = () if tables is None else (tables.encoder, tables.decoder)
        self._sides = tuple(_SideReader(ComponentViews(side), tokenizer) for side in sides)

    def knows(self, decomposition: Decomposition) -> bool:
        """Return whether nothing has to be searched for: ``read`` takes milliseconds for tokens that it never saw."""
        return all(
            side.knows(components)
            for side, components in zip(self._sides, (decomposition.encoder, decomposition.decoder), strict=True)
        )

    def read(self, decomposition: Decomposition) -> tuple[SideView, SideView]:
        """Return what there is to see of the encoder's components and of the decoder's."""
        assert self._sides, "without tables nothing was decomposed"
        encoder, decoder = self._sides
        return encoder.read(decomposition.encoder), decoder.read(decomposition.decoder)


class _SideReader:
    """Reads the components of one side; what is found of a token is kept, as texts repeat their tokens."""

    def __init__(self, views: ComponentViews, tokenizer: Tokenizer) -> None:
        self._views = views
        self._tokenizer = tokenizer
        self._found: dict[int, tuple[str, tuple[SpelledNeighbor, ...]]] = {}

    def knows(self, components: Components) -> bool:
        return self._found.keys() >= set(components.token_ids.tolist())

    def read(self, components: Components) -> SideView:
        token_ids = components.token_ids.tolist()
        parts = np.stack([components.temporal, components.input_driven, components.delta])
        found = [self._token(token_id) for token_id in token_ids]
        return SideView(
            temporal_curve=self._views.temporal_curve(len(token_ids)),
            norms=np.linalg.norm(parts, axis=2),
            tokens=tuple((token_id, piece) for token_id, (piece, _) in zip(token_ids, found, strict=True)),
            neighbors=tuple(neighbors for _, neighbors in found),
        )

    def _token(self, token_id: int) -> tuple[str, tuple[SpelledNeighbor, ...]]:
        """Return how a token is spelled, and its neighbors."""
        if token_id not in self._found:
            spell = self._tokenizer.piece
            neighbors = self._views.nearest_tokens(token_id)
            self._found[token_id] = (
                spell(token_id),
                tuple(SpelledNeighbor(near.token_id, spell(near.token_id), near.cosine) for near in neighbors),
            )
        return self._found[token_id]
