"""The reasons of an attention matrix: its scores split into nine terms by position, by token and by the rest.

Axes: ``target`` counts emitted tokens and ``source`` source tokens, end of sentence included; ``time`` is either;
``key`` is the key space, in which a score is one dot product. In ``[3 3 ...]`` the first axis is the encoder's
component, the second the decoder's, in the order of ``COMPONENTS``. All arithmetic is float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from bundle.errors import TableMismatch
from bundle.tables import ComponentTables, SideTables

COMPONENTS = ("temporal", "input_driven", "delta")
RECONSTRUCTION_ALERT = 1e-4  # relative; float32 scores stay near 1e-6
_NOISE = 1e-12  # a row whose scores vary less than this, relative to their size, is constant


class DecompositionWarning(StrEnum):
    """What a reader of a decomposition must know about it; the values travel on the wire."""

    UNSEEN_SOURCE_TOKEN = "unseen_source_token"
    UNSEEN_TARGET_TOKEN = "unseen_target_token"
    SOURCE_BEYOND_TABLE = "source_beyond_table"
    TARGET_BEYOND_TABLE = "target_beyond_table"
    CONSTANT_SCORES = "constant_scores"
    RECONSTRUCTION_ERROR = "reconstruction_error"


@dataclass(frozen=True)
class Components:
    """States of one sentence split in three that add up to them.

    Attributes:
        temporal: What the position explains.
        input_driven: What the token explains beyond its position.
        delta: The rest.
        unseen: The token was seen fewer times than the tables' minimum; its ``input_driven`` is 0.
        beyond_table: The position is past the table or under-counted; ``temporal`` is the last well-counted one.
        token_ids: The token that indexes each state.
        reconstruction_error: Largest absolute gap between a state and the sum of its parts, relative to the largest
            state value.
    """

    temporal: Float64[np.ndarray, "time key"]
    input_driven: Float64[np.ndarray, "time key"]
    delta: Float64[np.ndarray, "time key"]
    unseen: Bool[np.ndarray, "time"]
    beyond_table: Bool[np.ndarray, "time"]
    token_ids: Int[np.ndarray, "time"]
    reconstruction_error: float


@dataclass(frozen=True)
class AttentionRecord:
    """What a model said about one sentence pair: the input of a decomposition.

    Attributes:
        scores: Before softmax, as the model computed them.
        queries: The decoder's side of each score.
        keys: The encoder's side of each score.
        source_ids: Source tokens, end of sentence included.
        target_ids: Emitted tokens, end of sentence included if emitted.
    """

    scores: Float[np.ndarray, "target source"]
    queries: Float[np.ndarray, "target key"]
    keys: Float[np.ndarray, "source key"]
    source_ids: Sequence[int]
    target_ids: Sequence[int]

    def __post_init__(self) -> None:
        """Check that the parts belong together.

        Raises:
            TableMismatch: They have different lengths, or there is nothing to explain.
        """
        sides = (len(self.target_ids), len(self.queries)), (len(self.source_ids), len(self.keys))
        if any({*lengths} != {length} or not length for lengths, length in zip(sides, self.scores.shape, strict=True)):
            raise TableMismatch(
                f"scores are {self.scores.shape}; there are {sides[0]} target tokens and queries, and {sides[1]} "
                "source tokens and keys. All must agree, and none may be 0"
            )


@dataclass(frozen=True)
class Decomposition:
    """Why the attention of one sentence pair has the shape it has; a description, not a cause.

    Attributes:
        scores: The model's own scores.
        terms: Nine matrices that sum to the scores.
        reconstruction_error: Largest absolute gap between the scores and the sum of the terms, relative to the largest
            score (absolute when every score is 0).
        shares: Softmax-aware share of each term; signed, sums to 1 (docs/decomposition.md eq. 13).
        row_shares: The same for each target row; 1/9 each in a row of constant scores, which has no shape to explain.
        constant_rows: Which rows those are.
        subset_distances: Total variation, averaged over rows, between the true attention and attention rebuilt from a
            subset of terms, by the name of the subset (docs/decomposition.md eq. 15).
        encoder: Components of the keys.
        decoder: Components of the queries.
        warnings: What to know before reading it.
    """

    scores: Float64[np.ndarray, "target source"]
    terms: Float64[np.ndarray, "3 3 target source"]
    reconstruction_error: float
    shares: Float64[np.ndarray, "3 3"]
    row_shares: Float64[np.ndarray, "3 3 target"]
    constant_rows: Bool[np.ndarray, "target"]
    subset_distances: dict[str, float]
    encoder: Components
    decoder: Components
    warnings: tuple[DecompositionWarning, ...]


def conditioning_tokens(target_ids: Sequence[int], offset: int, bos_id: int) -> Int[np.ndarray, "target"]:
    """Return the token that indexes the decoder's components at each step: the one emitted ``offset`` steps before.

    Before the first token stands ``bos_id``.

    Example:
        >>> conditioning_tokens([7, 8, 9], offset=1, bos_id=2).tolist()
        [2, 7, 8]

    Source: docs/decomposition.md eq. 4.
    """
    emitted = [bos_id] * offset + [int(token_id) for token_id in target_ids]
    return np.array(emitted[: len(target_ids)], dtype=np.int64)


def split(
    states: Float[np.ndarray, "time key"],
    token_ids: Int[np.ndarray, "time"],
    side: SideTables,
    positions: Int[np.ndarray, "time"] | None = None,
) -> Components:
    """Return the temporal, input-driven and delta components of ``states``.

    The three add up to ``states`` within rounding; ``reconstruction_error`` says how closely.

    Args:
        states: Attention keys or queries of one sentence.
        token_ids: The token that indexes each of them.
        side: Tables fitted on the same model.
        positions: Where each of them stands; None counts from 0.

    Raises:
        TableMismatch: The tables have another key size or vocabulary.

    Source: Aitken et al. 2021 (arXiv 2110.15253); docs/decomposition.md eq. 3, 8 and 9.
    """
    if states.shape[1] != side.temporal.shape[1]:
        raise TableMismatch(f"states have {states.shape[1]} values; the tables were fitted on {side.temporal.shape[1]}")
    vocabulary = len(side.input_counts)
    if token_ids.size and not 0 <= token_ids.min() <= token_ids.max() < vocabulary:
        raise TableMismatch(
            f"token ids reach from {token_ids.min()} to {token_ids.max()}; the tables hold 0 to {vocabulary - 1}"
        )
    exact = states.astype(np.float64)
    positions = np.arange(len(exact)) if positions is None else positions
    inside = np.minimum(positions, len(side.temporal) - 1)
    temporal = side.temporal[inside].astype(np.float64)
    input_driven = side.input_driven[token_ids].astype(np.float64)
    delta = exact - temporal - input_driven
    gap = np.abs(exact - (temporal + input_driven + delta)).max(initial=0.0)
    return Components(
        temporal=temporal,
        input_driven=input_driven,
        delta=delta,
        unseen=side.input_counts[token_ids] < side.minimum_count,
        beyond_table=(inside != positions) | (side.temporal_counts[inside] < side.minimum_count),
        token_ids=token_ids,
        reconstruction_error=float(gap / max(np.abs(exact).max(initial=0.0), np.finfo(np.float64).tiny)),
    )


def nine_terms(decoder: Components, encoder: Components) -> Float64[np.ndarray, "3 3 target source"]:
    """Return the dot products of every component of a query with every component of a key.

    They sum to the scores over the two component axes. Source: docs/decomposition.md eq. 10.
    """
    queries = np.stack([getattr(decoder, name) for name in COMPONENTS])
    keys = np.stack([getattr(encoder, name) for name in COMPONENTS])
    terms: Float64[np.ndarray, "3 3 target source"] = np.matmul(queries[None], keys[:, None].swapaxes(2, 3))
    return terms


def decompose(
    record: AttentionRecord, tables: ComponentTables, decoder_token_offset: int, bos_id: int
) -> Decomposition:
    """Return the nine terms of a sentence pair's scores, their shares, and how far each subset is from the truth.

    Raises:
        TableMismatch: The tables do not fit the record.

    Source: docs/decomposition.md eq. 10 to 15.
    """
    emitted = conditioning_tokens(record.target_ids, decoder_token_offset, bos_id)
    encoder = split(record.keys, np.asarray(record.source_ids, dtype=np.int64), tables.encoder)
    decoder = split(record.queries, emitted, tables.decoder)
    terms = nine_terms(decoder, encoder)
    scores = record.scores.astype(np.float64)
    size = float(np.abs(scores).max(initial=0.0))
    reconstruction_error = float(np.abs(scores - terms.sum(axis=(0, 1))).max(initial=0.0)) / (size or 1.0)
    shares, row_shares, constant = _shares(terms)
    flags = {
        DecompositionWarning.UNSEEN_SOURCE_TOKEN: encoder.unseen.any(),
        DecompositionWarning.UNSEEN_TARGET_TOKEN: decoder.unseen.any(),
        DecompositionWarning.SOURCE_BEYOND_TABLE: encoder.beyond_table.any(),
        DecompositionWarning.TARGET_BEYOND_TABLE: decoder.beyond_table.any(),
        DecompositionWarning.CONSTANT_SCORES: constant.any(),
        DecompositionWarning.RECONSTRUCTION_ERROR: reconstruction_error > RECONSTRUCTION_ALERT,
    }
    return Decomposition(
        scores=scores,
        terms=terms,
        reconstruction_error=reconstruction_error,
        shares=shares,
        row_shares=row_shares,
        constant_rows=constant,
        subset_distances=_subset_distances(scores, terms),
        encoder=encoder,
        decoder=decoder,
        warnings=tuple(warning for warning, raised in flags.items() if raised),
    )


def pooled_shares(terms: Float64[np.ndarray, "3 3 target source"]) -> Float64[np.ndarray, "3 3"]:
    """Return the share of each term in the given rows together (docs/decomposition.md eq. 13); they sum to 1."""
    return _shares(terms)[0]


def softmax(scores: Float64[np.ndarray, "*axes source"]) -> Float64[np.ndarray, "*axes source"]:
    """Return the attention weights of scores; every row sums to 1."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _shares(
    terms: Float64[np.ndarray, "3 3 target source"],
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3 3 target"], Bool[np.ndarray, "target"]]:
    """Return pooled shares, shares of each row, and the rows that are constant (docs/decomposition.md eq. 12 to 14)."""
    centred = terms - terms.mean(axis=3, keepdims=True)
    total = centred.sum(axis=(0, 1))
    covariances = (centred * total).sum(axis=3)
    variances = covariances.sum(axis=(0, 1))  # of the total, written as this sum so that shares add up to exactly 1
    size = np.abs(terms).max(axis=(0, 1, 3), initial=0.0)
    constant = (total**2).mean(axis=1) <= (_NOISE * size) ** 2
    covariances[:, :, constant], variances[constant] = 1.0, 9.0
    pooled = constant if constant.all() else ~constant
    shares = covariances[:, :, pooled].sum(axis=2) / variances[pooled].sum()
    return shares, covariances / variances, constant


def _subset_distances(
    scores: Float64[np.ndarray, "target source"], terms: Float64[np.ndarray, "3 3 target source"]
) -> dict[str, float]:
    """Return the mean total variation between the attention and that of each subset of terms."""
    names = ["temporal_temporal"]
    rebuilt: Float64[np.ndarray, "subset target source"] = np.empty((1 + 3 + 9, *scores.shape))  # all at once: it is
    rebuilt[0] = terms[0, 0]  # the calls that take the time, not the numbers
    for index, name in enumerate(COMPONENTS):
        others = [other for other in range(3) if other != index]
        names.append(f"without_{name}")
        rebuilt[1 + index] = terms[np.ix_(others, others)].sum(axis=(0, 1))
    names += [f"without_{encoder}_{decoder}" for encoder in COMPONENTS for decoder in COMPONENTS]
    np.subtract(terms.sum(axis=(0, 1)), terms.reshape(9, *scores.shape), out=rebuilt[4:])
    rebuilt -= rebuilt.max(axis=2, keepdims=True)
    np.exp(rebuilt, out=rebuilt)
    rebuilt /= rebuilt.sum(axis=2, keepdims=True)
    rebuilt -= softmax(scores)
    distances = np.abs(rebuilt, out=rebuilt).sum(axis=2).mean(axis=1) / 2
    return dict(zip(names, distances.tolist(), strict=True))
