"""Component tables: exact over any sharding, honest about what was not seen, refused when damaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bundle import tables
from bundle.errors import TableMismatch
from bundle.tables import RESOLUTION, ComponentTables, SideTables, Sums

POSITIONS, VOCABULARY, KEY = 6, 9, 4


def corpus(seed: int, sentences: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """States, positions and tokens of sentences; values from tiny to huge, so that plain sums would round."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(sentences):
        length = int(rng.integers(1, POSITIONS + 1))
        states = rng.normal(size=(length, KEY)) * 10.0 ** rng.integers(-6, 5, size=(length, 1))
        found.append((states, np.arange(length), rng.integers(0, VOCABULARY, length)))
    return found


def summed(shard: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Sums:
    sums = Sums(POSITIONS, VOCABULARY, KEY)
    for states, positions, token_ids in shard:
        sums.add(states, positions, token_ids)
    return sums


def tables_of(sums: Sums, minimum_count: int = 2) -> ComponentTables:
    return ComponentTables(sums.finish(minimum_count), sums.finish(minimum_count), "fit-1", "toy corpus", 40)


@given(st.integers(0, 10_000), st.data())
@settings(
    max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking 40 sentences takes minutes
def test_any_sharding_in_any_order_gives_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    sentences = corpus(seed, 40)
    order = data.draw(st.permutations(range(40)))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, 40), max_size=4))), 40]
    merged = Sums(POSITIONS, VOCABULARY, KEY)
    for start, end in zip(cuts, cuts[1:], strict=False):
        merged.merge(summed([sentences[i] for i in order[start:end]]))
    once = summed(sentences)
    np.testing.assert_array_equal(merged.position_sums, once.position_sums)
    np.testing.assert_array_equal(merged.token_sums, once.token_sums)
    whole = tables_of(once)
    tables.write(folder / "whole.safetensors", whole)
    tables.write(folder / "merged.safetensors", tables_of(merged))
    assert (folder / "whole.safetensors").read_bytes() == (folder / "merged.safetensors").read_bytes()
    assert tables.read(folder / "merged.safetensors").digest == whole.digest


def test_the_means_are_those_of_the_definition() -> None:
    """Equations 5 and 6 restated with a loop over occurrences."""
    sentences = corpus(3, 200)
    side = summed(sentences).finish(minimum_count=1)
    by_position: list[list[np.ndarray]] = [[] for _ in range(POSITIONS)]
    for states, _, _ in sentences:
        for position, state in enumerate(states):
            by_position[position].append(state)
    temporal = np.stack([np.mean(states, axis=0, dtype=np.float64) for states in by_position])
    np.testing.assert_allclose(side.temporal, temporal, rtol=1e-3, atol=1e-6)
    assert side.temporal_counts.tolist() == [len(states) for states in by_position]
    by_token: list[list[np.ndarray]] = [[] for _ in range(VOCABULARY)]
    for states, _, token_ids in sentences:
        for position, (state, token) in enumerate(zip(states, token_ids, strict=True)):
            by_token[token].append(state - side.temporal[position].astype(np.float64))
    input_driven = np.stack([np.mean(rests, axis=0) for rests in by_token])
    np.testing.assert_allclose(side.input_driven, input_driven, rtol=1e-3, atol=1e-6)
    assert side.input_counts.tolist() == [len(rests) for rests in by_token]
    assert side.temporal.dtype == side.input_driven.dtype == np.float16


def test_a_token_seen_too_rarely_has_no_input_driven_component() -> None:
    sums = Sums(POSITIONS, VOCABULARY, KEY)
    sums.add(np.diag([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1]), np.array([5, 5, 6, 5]))
    side = sums.finish(minimum_count=2)
    assert not side.input_driven[6].any() and side.input_counts[6] == 1
    assert side.input_driven[5].any() and side.input_counts[5] == 3 and side.input_counts[0] == 0


def test_an_under_counted_position_repeats_the_last_well_counted_one() -> None:
    sums = Sums(POSITIONS, VOCABULARY, KEY)
    for position, count in enumerate([3, 2, 1, 2, 0, 0]):
        sums.add(np.full((count, KEY), position + 1.0), np.full(count, position), np.zeros(count, dtype=np.int64))
    side = sums.finish(minimum_count=2)
    assert side.temporal[:, 0].tolist() == [1, 2, 2, 4, 4, 4]
    assert side.temporal_counts.tolist() == [3, 2, 1, 2, 0, 0]


def test_sums_that_plain_floats_would_round_are_exact() -> None:
    sums = Sums(1, 1, 1)
    for value in (2.0**30, RESOLUTION, -(2.0**30)):
        sums.add(np.array([[value]]), np.array([0]), np.array([0]))
    assert sums.position_sums[0, 0] == RESOLUTION


def test_states_that_cannot_be_summed_exactly_are_refused() -> None:
    sums = Sums(POSITIONS, VOCABULARY, KEY)
    one = np.array([0])
    with pytest.raises(TableMismatch, match="positions reach from 6 to 6; the sums hold 0 to 5"):
        sums.add(np.ones((1, KEY)), np.array([6]), one)
    with pytest.raises(TableMismatch, match="token ids reach from -1"):
        sums.add(np.ones((1, KEY)), one, np.array([-1]))
    with pytest.raises(TableMismatch, match="not finite"):
        sums.add(np.full((1, KEY), np.nan), one, one)
    with pytest.raises(TableMismatch, match="stops being exact"):
        sums.add(np.full((1, KEY), 2.0**34), one, one)
    with pytest.raises(TableMismatch, match="cannot be merged"):
        sums.merge(Sums(POSITIONS, VOCABULARY, KEY + 1))
    with pytest.raises(TableMismatch, match="minimum_count = 5"):
        summed(corpus(1, 1)).finish(minimum_count=5)


def test_adding_nothing_changes_nothing() -> None:
    sums = summed(corpus(1, 5))
    before = sums.position_sums.copy()
    sums.add(np.zeros((0, KEY)), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    np.testing.assert_array_equal(sums.position_sums, before)


def test_tables_come_back_from_their_file(tmp_path: Path) -> None:
    written = tables_of(summed(corpus(2, 50)))
    tables.write(tmp_path / "tables", written)
    found = tables.read(tmp_path / "tables")
    assert (found.id, found.corpus, found.sentences, found.minimum_count) == ("fit-1", "toy corpus", 40, 2)
    assert found.digest == written.digest
    np.testing.assert_array_equal(found.decoder.input_driven, written.decoder.input_driven)


def test_the_digest_covers_every_value_and_the_origin() -> None:
    whole = tables_of(summed(corpus(2, 50)))
    counts = whole.encoder.temporal_counts.copy()
    counts[0] += 1
    others = [
        replace(whole, corpus="another"),
        replace(whole, sentences=41),
        replace(whole, encoder=replace(whole.encoder, temporal_counts=counts)),
        tables_of(summed(corpus(2, 50)), minimum_count=3),
    ]
    assert len({whole.digest, *(other.digest for other in others)}) == 5


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tables"
    tables.write(file, tables_of(summed(corpus(2, 50))))
    content = file.read_bytes()
    file.write_bytes(content[:-7])
    with pytest.raises(TableMismatch, match="cannot be read"):
        tables.read(file)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TableMismatch, match="was changed"):
        tables.read(file)
    safetensors.numpy.save_file({"something": np.zeros(3)}, file)
    with pytest.raises(TableMismatch, match="holds no component tables"):
        tables.read(file)
    with pytest.raises(TableMismatch, match="cannot be read"):
        tables.read(tmp_path / "absent")


def test_sides_of_different_fits_are_not_written_together(tmp_path: Path) -> None:
    whole = tables_of(summed(corpus(2, 50)))
    mixed = replace(whole, decoder=summed(corpus(2, 50)).finish(1))
    with pytest.raises(TableMismatch, match="differ"):
        tables.write(tmp_path / "tables", mixed)


def test_side_tables_hold_what_the_bundle_stores() -> None:
    side = summed(corpus(2, 50)).finish(1)
    assert isinstance(side, SideTables)
    assert side.temporal_counts.dtype == side.input_counts.dtype == np.dtype(np.uint32)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"temporal": np.full((3, 4), np.nan, np.float16)}, "must be finite float16"),
        ({"temporal": np.zeros((3, 4), np.float32)}, "must be finite float16"),
        ({"temporal": np.zeros((3, 2, 2), np.float16)}, "differ in key size|must be finite float16"),
        ({"temporal_counts": np.zeros(9, np.uint32)}, "must be finite float16"),
        ({"temporal_counts": np.zeros(3, np.int64)}, "must be finite float16"),
        ({"temporal": np.zeros((0, 4), np.float16), "temporal_counts": np.zeros(0, np.uint32)}, "must be finite"),
        ({"input_driven": np.zeros((9, 5), np.float16), "input_counts": np.zeros(9, np.uint32)}, "one key size"),
        ({"input_driven": np.zeros((9, 4), np.float16), "input_counts": np.zeros(9, np.uint32)}, "one vocabulary"),
    ],
)
def test_tables_that_fit_their_digest_and_nothing_else_are_refused(
    tmp_path: Path, change: dict[str, np.ndarray], fault: str
) -> None:
    plain = SideTables(
        np.zeros((3, 4), np.float16), np.zeros(3, np.uint32), np.zeros((8, 4), np.float16), np.zeros(8, np.uint32), 1
    )
    whole = tables.ComponentTables(plain, plain, "id", "corpus", 1)
    tables.write(tmp_path / "tables", whole)
    assert tables.read((tmp_path / "tables").read_bytes()).digest == whole.digest
    with pytest.raises(TableMismatch, match=fault):
        changed = replace(plain, **change)  # type: ignore[arg-type]  # of one dictionary for all types
        tables.write(tmp_path / "tables", replace(whole, encoder=changed))
        tables.read((tmp_path / "tables").read_bytes())


def test_a_header_that_claims_to_be_huge_is_refused() -> None:
    for size in (2**63, 2**20 + 1, 100):
        with pytest.raises(TableMismatch):
            tables.read(size.to_bytes(8, "little") + b"{}")
    with pytest.raises(TableMismatch):
        tables.read(b"")
