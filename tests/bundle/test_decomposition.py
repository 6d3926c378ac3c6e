"""The nine terms and what is said of them: identities, a plain restatement of every measure, and the edge cases."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.decomposition import (
    COMPONENTS,
    AttentionRecord,
    DecompositionWarning,
    conditioning_tokens,
    decompose,
    nine_terms,
    softmax,
    split,
)
from bundle.errors import TableMismatch
from bundle.tables import ComponentTables, SideTables

POSITIONS, VOCABULARY, KEY, BOS = 7, 11, 8, 2


def side_tables(rng: np.random.Generator, positions: int = POSITIONS) -> SideTables:
    return SideTables(
        temporal=rng.normal(size=(positions, KEY)).astype(np.float16),
        temporal_counts=np.full(positions, 50, dtype=np.uint32),
        input_driven=rng.normal(size=(VOCABULARY, KEY)).astype(np.float16),
        input_counts=np.full(VOCABULARY, 50, dtype=np.uint32),
        minimum_count=5,
    )


def fitted(seed: int = 0) -> ComponentTables:
    rng = np.random.default_rng(seed)
    return ComponentTables(side_tables(rng), side_tables(rng), "fit-1", "toy corpus", 50)


def record(seed: int, target: int, source: int) -> AttentionRecord:
    """A pair as a float32 runtime would report it: the scores are products of float32 queries and keys."""
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(target, KEY)).astype(np.float32) * 2
    keys = rng.normal(size=(source, KEY)).astype(np.float32)
    ids = rng.integers(0, VOCABULARY, size=target + source).tolist()
    return AttentionRecord(queries @ keys.T, queries, keys, ids[target:], ids[:target])


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 2]))
@settings(max_examples=150, deadline=None)
def test_nine_terms_sum_to_the_scores_and_shares_to_one(seed: int, target: int, source: int, offset: int) -> None:
    given_record = record(seed, target, source)
    found = decompose(given_record, fitted(), offset, BOS)
    np.testing.assert_allclose(found.terms.sum(axis=(0, 1)), given_record.scores, atol=1e-5)
    assert found.reconstruction_error < 1e-5
    assert found.terms.shape == (3, 3, target, source) and found.terms.dtype == np.float64
    assert found.shares.sum() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found.row_shares.sum(axis=(0, 1)), np.ones(target), atol=1e-9)
    assert all(-1e-12 <= distance <= 1 + 1e-12 for distance in found.subset_distances.values())
    for components, states in ((found.encoder, given_record.keys), (found.decoder, given_record.queries)):
        np.testing.assert_allclose(components.temporal + components.input_driven + components.delta, states, atol=1e-12)
        assert components.reconstruction_error < 1e-12


def test_terms_are_the_products_their_places_name() -> None:
    tables, pair = fitted(), record(1, 4, 5)
    encoder = split(pair.keys, np.array(pair.source_ids), tables.encoder)
    decoder = split(pair.queries, conditioning_tokens(pair.target_ids, 1, BOS), tables.decoder)
    terms = nine_terms(decoder, encoder)
    for e, encoder_name in enumerate(COMPONENTS):
        for d, decoder_name in enumerate(COMPONENTS):
            expected = getattr(decoder, decoder_name) @ getattr(encoder, encoder_name).T
            np.testing.assert_allclose(terms[e, d], expected, atol=1e-12)


def test_components_are_looked_up_by_position_and_token() -> None:
    tables, pair = fitted(), record(1, 4, 5)
    encoder = split(pair.keys, np.array(pair.source_ids), tables.encoder)
    np.testing.assert_array_equal(encoder.temporal, tables.encoder.temporal[:5])
    np.testing.assert_array_equal(encoder.input_driven, tables.encoder.input_driven[pair.source_ids])


def test_shares_are_those_of_their_definition() -> None:
    """Papers G5 restated with covariances of numpy, pooled by summing covariances and variances over rows."""
    found = decompose(record(5, 6, 7), fitted(), 1, BOS)
    total = found.terms.sum(axis=(0, 1))
    variance = total.var(axis=1)
    for e in range(3):
        for d in range(3):
            covariance = [np.cov(found.terms[e, d, s], total[s], bias=True)[0, 1] for s in range(6)]
            np.testing.assert_allclose(found.row_shares[e, d], covariance / variance, atol=1e-9)
            assert found.shares[e, d] == pytest.approx(sum(covariance) / variance.sum(), abs=1e-9)


def test_shares_ignore_what_softmax_ignores() -> None:
    """A query shift along which all keys agree adds a constant to each row: no share moves."""
    tables, pair = fitted(), record(5, 6, 7)
    agreed = pair.keys.copy()
    agreed[:, 0] = 1.0
    flat = replace(
        tables,
        encoder=replace(
            tables.encoder, temporal=tables.encoder.temporal.copy(), input_driven=tables.encoder.input_driven.copy()
        ),
    )
    flat.encoder.temporal[:, 0], flat.encoder.input_driven[:, 0] = 0.5, 0.25
    moved = pair.queries.copy()
    moved[:, 0] += 100.0
    one = decompose(replace(pair, keys=agreed, scores=pair.queries @ agreed.T), flat, 1, BOS)
    two = decompose(replace(pair, keys=agreed, queries=moved, scores=moved @ agreed.T), flat, 1, BOS)
    np.testing.assert_allclose(one.shares, two.shares, atol=1e-9)


def test_states_that_are_their_means_have_all_their_share_in_temporal_and_input_driven() -> None:
    tables, pair = fitted(), record(5, 6, 7)
    keys = tables.encoder.temporal[:7].astype(np.float64) + tables.encoder.input_driven[pair.source_ids]
    emitted = conditioning_tokens(pair.target_ids, 1, BOS)
    queries = tables.decoder.temporal[:6].astype(np.float64) + tables.decoder.input_driven[emitted]
    found = decompose(replace(pair, keys=keys, queries=queries, scores=queries @ keys.T), tables, 1, BOS)
    assert found.shares[:2, :2].sum() == pytest.approx(1)
    assert found.subset_distances["without_delta"] == pytest.approx(0, abs=1e-9)
    assert found.warnings == ()


def test_subset_distances_are_total_variation_from_the_true_attention() -> None:
    found = decompose(record(5, 6, 7), fitted(), 1, BOS)
    kept = {"temporal_temporal": [(0, 0)]}
    cells = [(e, d) for e in range(3) for d in range(3)]
    for index, name in enumerate(COMPONENTS):
        kept[f"without_{name}"] = [cell for cell in cells if index not in cell]
    for e, d in cells:
        kept[f"without_{COMPONENTS[e]}_{COMPONENTS[d]}"] = [cell for cell in cells if cell != (e, d)]
    assert set(found.subset_distances) == set(kept) and len(kept) == 13
    truth = softmax(found.scores)
    for name, cells_kept in kept.items():
        rebuilt = softmax(sum((found.terms[cell] for cell in cells_kept), np.zeros((6, 7))))
        rows = [0.5 * sum(abs(truth[s, t] - rebuilt[s, t]) for t in range(7)) for s in range(6)]
        assert found.subset_distances[name] == pytest.approx(np.mean(rows), abs=1e-9)


def test_one_source_token_has_no_shape_to_share_and_says_so() -> None:
    found = decompose(record(3, 4, 1), fitted(), 1, BOS)
    np.testing.assert_allclose(found.shares, np.full((3, 3), 1 / 9))
    assert found.warnings == (DecompositionWarning.CONSTANT_SCORES,)
    assert set(found.subset_distances.values()) == {0.0}


def test_a_row_of_constant_scores_does_not_touch_the_pooled_shares() -> None:
    pair = record(5, 6, 7)
    queries = pair.queries.copy()
    queries[2] = 0
    found = decompose(replace(pair, queries=queries, scores=queries @ pair.keys.T), fitted(), 1, BOS)
    np.testing.assert_allclose(found.row_shares[:, :, 2], np.full((3, 3), 1 / 9))
    assert DecompositionWarning.CONSTANT_SCORES in found.warnings
    assert found.constant_rows.tolist() == [False, False, True, False, False, False]
    others = [0, 1, 3, 4, 5]
    total = found.terms.sum(axis=(0, 1))[others]
    covariances = (found.terms[:, :, others] - found.terms[:, :, others].mean(axis=3, keepdims=True)) * (
        total - total.mean(axis=1, keepdims=True)
    )
    np.testing.assert_allclose(found.shares, covariances.sum(axis=(2, 3)) / (total.var(axis=1) * 7).sum(), atol=1e-9)


def test_an_unseen_token_and_a_position_past_the_table_are_flagged() -> None:
    tables, pair = fitted(), record(5, POSITIONS + 2, POSITIONS + 1)
    source_ids = [4] * (POSITIONS + 1)
    counts = tables.encoder.input_counts.copy()
    counts[4] = 4
    rare = replace(tables, encoder=replace(tables.encoder, input_counts=counts))
    found = decompose(replace(pair, source_ids=source_ids), rare, 1, BOS)
    assert found.encoder.unseen.all() and not found.decoder.unseen.any()
    assert found.encoder.beyond_table.tolist() == [False] * POSITIONS + [True]
    assert found.decoder.beyond_table.tolist() == [False] * POSITIONS + [True] * 2
    np.testing.assert_array_equal(found.decoder.temporal[-1], tables.decoder.temporal[-1])
    assert found.warnings == (
        DecompositionWarning.UNSEEN_SOURCE_TOKEN,
        DecompositionWarning.SOURCE_BEYOND_TABLE,
        DecompositionWarning.TARGET_BEYOND_TABLE,
    )


def test_an_under_counted_position_inside_the_table_is_flagged_too() -> None:
    tables, pair = fitted(), record(5, 3, 4)
    counts = tables.encoder.temporal_counts.copy()
    counts[2] = 1
    found = decompose(pair, replace(tables, encoder=replace(tables.encoder, temporal_counts=counts)), 1, BOS)
    assert found.encoder.beyond_table.tolist() == [False, False, True, False]


def test_scores_that_are_not_the_products_of_query_and_key_raise_the_alarm() -> None:
    pair = record(5, 6, 7)
    wrong = pair.scores + 0.01 * np.abs(pair.scores).max()
    found = decompose(replace(pair, scores=wrong), fitted(), 1, BOS)
    assert found.reconstruction_error == pytest.approx(0.01 / 1.01, rel=0.05)
    assert DecompositionWarning.RECONSTRUCTION_ERROR in found.warnings


@pytest.mark.parametrize(
    ("offset", "expected"), [(0, [7, 8, 9]), (1, [BOS, 7, 8]), (2, [BOS, BOS, 7]), (5, [BOS, BOS, BOS])]
)
def test_the_token_that_conditions_a_step_stands_offset_steps_back(offset: int, expected: list[int]) -> None:
    assert conditioning_tokens([7, 8, 9], offset, BOS).tolist() == expected


def test_tables_of_another_model_are_refused() -> None:
    tables, pair = fitted(), record(5, 3, 4)
    with pytest.raises(TableMismatch, match="states have 4 values; the tables were fitted on 8"):
        split(pair.keys[:, :4], np.array(pair.source_ids), tables.encoder)
    with pytest.raises(TableMismatch, match="token ids reach from 1 to 11; the tables hold 0 to 10"):
        split(pair.keys, np.array([1, 2, 3, 11]), tables.encoder)


def test_a_record_whose_parts_do_not_belong_together_is_refused() -> None:
    pair = record(5, 3, 4)
    with pytest.raises(TableMismatch, match="must agree"):
        replace(pair, source_ids=pair.source_ids[:-1])
    with pytest.raises(TableMismatch, match="none may be 0"):
        AttentionRecord(np.zeros((0, 4)), np.zeros((0, KEY)), np.zeros((4, KEY)), [1, 1, 1, 1], [])
