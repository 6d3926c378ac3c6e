"""Component tables: the fitted means that split a state by position and by token, and the sums they are fitted from.

Axes: ``position`` counts time steps from 0; ``vocabulary`` is a token id; ``key`` is the attention's key space. The
encoder's tables describe ``attention_keys`` by source position and source token; the decoder's describe
``attention_query`` by step and by the token ``decoder_token_offset`` steps back (docs/decomposition.md eq. 5 to 9).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16, Float64, Int, Int64, UInt32
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from bundle.decoding import parse
from bundle.errors import TableMismatch

RESOLUTION = 2.0**-20  # values are rounded to multiples of it before they are summed
_MOST_HEADER_BYTES = 1 << 20  # of a file of tables; real ones have 2,000
_EXACT_LIMIT = 2.0**53 * RESOLUTION  # below it every sum of such multiples is a float64, so no addition rounds


@dataclass(frozen=True)
class SideTables:
    """Fitted means of one side, with the number of states behind each.

    Attributes:
        temporal: Mean state at a position; an under-counted position repeats the last well-counted one before it.
        temporal_counts: States seen at each position.
        input_driven: Mean of (state - temporal) over the occurrences of a token; 0 where under-counted.
        input_counts: Occurrences of each token.
        minimum_count: Fewer states than this make no mean.
    """

    temporal: Float16[np.ndarray, "position key"]
    temporal_counts: UInt32[np.ndarray, "position"]
    input_driven: Float16[np.ndarray, "vocabulary key"]
    input_counts: UInt32[np.ndarray, "vocabulary"]
    minimum_count: int


@dataclass(frozen=True)
class ComponentTables:
    """The tables of both sides and where they come from.

    Attributes:
        encoder: Means of attention keys.
        decoder: Means of attention queries.
        id: Name of this fit.
        corpus: What text it was fitted on.
        sentences: How many sentences of it.
    """

    encoder: SideTables
    decoder: SideTables
    id: str
    corpus: str
    sentences: int

    @property
    def minimum_count(self) -> int:
        """Fewer states than this make no mean, on either side."""
        return self.encoder.minimum_count

    @property
    def digest(self) -> str:
        """The SHA-256 of everything above, in hex."""
        content = hashlib.sha256(_provenance(self).encode())
        for name, array in sorted(_arrays(self).items()):
            content.update(f"{name} {array.dtype.str} {array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()


class Sums:
    """Mergeable sums over the states of one side: any sharding of a corpus, in any order, merges to the same bytes.

    Every value is rounded to a multiple of 2**-20 first. Sums of such multiples below 2**33 are float64 numbers
    themselves, so no addition rounds and order cannot matter (docs/decomposition.md eq. 7).

    Attributes:
        position_sums: Sum of the states at each position.
        token_sums: Sum of the states of each token.
        counts: States of each token at each position.
    """

    def __init__(self, positions: int, vocabulary: int, key: int) -> None:
        """Start from nothing, for states of size ``key`` at positions below ``positions``."""
        self.position_sums: Float64[np.ndarray, "position key"] = np.zeros((positions, key))
        self.token_sums: Float64[np.ndarray, "vocabulary key"] = np.zeros((vocabulary, key))
        self.counts: Int64[np.ndarray, "vocabulary position"] = np.zeros((vocabulary, positions), dtype=np.int64)
        self._bound = 0.0  # no sum is larger than this

    def add(
        self,
        states: Float[np.ndarray, "n key"],
        positions: Int[np.ndarray, "n"],
        token_ids: Int[np.ndarray, "n"],
    ) -> None:
        """Add states, each with its position and token; the caller leaves padding out.

        Raises:
            TableMismatch: An index is out of range, a state is not finite, or the sums would stop being exact.
        """
        vocabulary, size = self.counts.shape
        for name, index, limit in (("position", positions, size), ("token id", token_ids, vocabulary)):
            if index.size and not 0 <= index.min() <= index.max() < limit:
                reach = f"{name}s reach from {index.min()} to {index.max()}"
                raise TableMismatch(f"{reach}; the sums hold 0 to {limit - 1}")
        if not np.isfinite(states).all():
            raise TableMismatch("a state is not finite; the model has diverged or the graph is broken")
        rounded = np.round(states.astype(np.float64) / RESOLUTION) * RESOLUTION
        _add_by_index(self.position_sums, positions, rounded)
        _add_by_index(self.token_sums, token_ids, rounded)
        np.add.at(self.counts, (token_ids, positions), 1)
        self._check_exact(len(rounded) * float(np.abs(rounded).max(initial=0.0)))

    def merge(self, other: "Sums") -> None:
        """Add the sums of another shard.

        Raises:
            TableMismatch: The shapes differ, or the sums would stop being exact.
        """
        mine, theirs = (sums.counts.shape + sums.token_sums.shape[1:] for sums in (self, other))
        if mine != theirs:
            raise TableMismatch(f"sums over (vocabulary, positions, key) {mine} and {theirs} cannot be merged")
        self.position_sums += other.position_sums
        self.token_sums += other.token_sums
        self.counts += other.counts
        self._check_exact(other._bound)

    def finish(self, minimum_count: int) -> SideTables:
        """Return the means (docs/decomposition.md eq. 5 and 6), in float16.

        The input-driven mean is taken over (state - temporal) with the temporal table as stored, fallback and rounding
        included: what the reader subtracts is what the fit subtracted.

        Raises:
            TableMismatch: No position has ``minimum_count`` states, or a mean does not fit into float16.
        """
        by_position, by_token = self.counts.sum(axis=0), self.counts.sum(axis=1)
        well_counted = by_position >= minimum_count
        if minimum_count < 1 or not well_counted.any():
            raise TableMismatch(f"no position has minimum_count = {minimum_count} states, which must be positive")
        means = self.position_sums / np.maximum(by_position, 1)[:, None]
        stand_in = np.maximum.accumulate(np.where(well_counted, np.arange(len(means)), 0))
        stand_in = np.maximum(stand_in, np.argmax(well_counted))  # before the first well-counted one: that one
        temporal = _float16(means[stand_in])
        # exact too, whatever order the product adds in: a float16 is a multiple of 2**-24, a count is an integer
        expected = self.counts.astype(np.float64) @ temporal.astype(np.float64)
        input_driven = (self.token_sums - expected) / np.maximum(by_token, 1)[:, None]
        input_driven[by_token < minimum_count] = 0.0
        return SideTables(
            temporal=temporal,
            temporal_counts=by_position.astype(np.uint32),
            input_driven=_float16(input_driven),
            input_counts=by_token.astype(np.uint32),
            minimum_count=minimum_count,
        )

    def _check_exact(self, growth: float) -> None:
        """Refuse sums that may have rounded; the sums themselves are looked at only when a cheap bound asks for it."""
        self._bound += growth
        if self._bound >= _EXACT_LIMIT:
            self._bound = max(float(np.abs(sums).max(initial=0.0)) for sums in (self.position_sums, self.token_sums))
        if self._bound >= _EXACT_LIMIT:
            raise TableMismatch(f"a sum reached {self._bound:.3g}, where float64 stops being exact; fit on less text")


def write(file: Path, tables: ComponentTables) -> None:
    """Write ``tables`` to a safetensors file; equal tables give equal bytes.

    Raises:
        TableMismatch: The sides disagree on the key size or the minimum count.
    """
    sizes = {side.temporal.shape[1] for side in (tables.encoder, tables.decoder)}
    if len(sizes) != 1 or tables.encoder.minimum_count != tables.decoder.minimum_count:
        raise TableMismatch("encoder and decoder tables differ in key size or minimum count; fit them together")
    # One metadata entry only: safetensors writes several in no fixed order.
    _save(file, _arrays(tables), {"interlinear": _provenance(tables, digest=tables.digest)})


def read(content: Path | bytes) -> ComponentTables:
    """Return the tables in a safetensors file, given as a path or as its content.

    Raises:
        TableMismatch: The file is damaged, holds no tables, or its content is not what its digest says.
    """
    file = "the file" if isinstance(content, bytes) else str(content)
    try:
        found = content if isinstance(content, bytes) else content.read_bytes()
        arrays, provenance = load(found), parse(_metadata(found)["interlinear"].encode())
        encoder, decoder = (
            SideTables(
                **{name: arrays[f"{side}_{name}"] for name in _SIDE_ARRAYS}, minimum_count=provenance["minimum_count"]
            )
            for side in ("encoder", "decoder")
        )
        tables = ComponentTables(encoder, decoder, *(provenance[name] for name in ("id", "corpus", "sentences")))
        expected = provenance["digest"]
    except (OSError, SafetensorError) as error:
        raise TableMismatch(f"{file} cannot be read as safetensors: {error}") from error
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise TableMismatch(f"{file} holds no component tables") from error
    _check_shapes(tables)
    if tables.digest != expected:
        raise TableMismatch(f"{file} was changed: its digest is {tables.digest}, not {expected}")
    return tables


_SIDE_ARRAYS = ("temporal", "temporal_counts", "input_driven", "input_counts")


def _arrays(tables: ComponentTables) -> dict[str, np.ndarray]:
    sides = {"encoder": tables.encoder, "decoder": tables.decoder}
    return {f"{side}_{name}": getattr(table, name) for side, table in sides.items() for name in _SIDE_ARRAYS}


def _provenance(tables: ComponentTables, **more: str) -> str:
    known = {name: getattr(tables, name) for name in ("id", "corpus", "sentences", "minimum_count")}
    return json.dumps({**known, **more}, sort_keys=True)


def _save(file: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    # safetensors writes the buffer of a strided view as if it were contiguous
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file, metadata)


def _metadata(content: bytes) -> dict[str, str]:
    """Return the notes in a safetensors file's header, which the library keeps to itself when given bytes.

    Source: https://github.com/huggingface/safetensors#format.
    """
    size = int.from_bytes(content[:8], "little")
    if size > _MOST_HEADER_BYTES:
        raise ValueError(f"a header of {size} bytes")
    metadata: dict[str, str] = parse(content[8 : 8 + size])["__metadata__"]
    return metadata


def _check_shapes(tables: ComponentTables) -> None:
    """Refuse tables whose arrays do not belong together, or hold a number that is none.

    Raises:
        TableMismatch: They do not.
    """
    key = tables.encoder.temporal.shape[-1:]
    for name, side in (("encoder", tables.encoder), ("decoder", tables.decoder)):
        for means, counts in ((side.temporal, side.temporal_counts), (side.input_driven, side.input_counts)):
            fits = means.shape == counts.shape + key and counts.ndim == len(key) == 1 and means.size > 0
            typed = means.dtype == np.float16 and counts.dtype == np.uint32
            if not fits or not typed or not np.isfinite(means).all():
                raise TableMismatch(
                    f"{name} tables are {means.dtype} {means.shape} with counts {counts.dtype} {counts.shape}; they "
                    "must be finite float16 [n key] and uint32 [n], with one key size on both sides"
                )
    if tables.encoder.input_driven.shape != tables.decoder.input_driven.shape:
        shapes = f"{tables.encoder.input_driven.shape} and {tables.decoder.input_driven.shape}"
        raise TableMismatch(f"the two sides have input-driven means {shapes}; they share one vocabulary")


def _add_by_index(
    sums: Float64[np.ndarray, "row key"], index: Int[np.ndarray, "n"], values: Float64[np.ndarray, "n key"]
) -> None:
    """Add each row of ``values`` to the row of ``sums`` it belongs to; ``np.add.at`` takes three times as long."""
    rows, inverse = np.unique(index, return_inverse=True)
    key = values.shape[1]
    cells = inverse[:, None] * key + np.arange(key)
    sums[rows] += np.bincount(cells.ravel(), values.ravel(), minlength=len(rows) * key).reshape(len(rows), key)


def _float16(values: Float64[np.ndarray, "row key"]) -> Float16[np.ndarray, "row key"]:
    if np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
        raise TableMismatch("a mean is too large for float16; scale the attention's key space in the exporter")
    return values.astype(np.float16)
