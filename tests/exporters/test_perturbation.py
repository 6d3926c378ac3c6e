import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.sessions import padded
from bundle.step import GivenAttention
from exporters.forcing import Forced, force
from exporters.perturbation import Translated, Variants, random_rotation, replay, rotated_attention, variants
from exporters.runtime import OnnxModel
from tests.exporters.conftest import Exported
from tests.exporters.text import random_sources
from training.evaluation import SPECIAL_IDS

ROTATION = random_rotation(16, seed=3)


def translated(model: OnnxModel, lengths: list[int], seed: int) -> list[Translated]:
    sources = random_sources(40, lengths, seed)
    targets = random_sources(40, [2 + length % 7 for length in lengths], seed + 1)
    return [Translated(*parts) for parts in zip(sources, targets, force(model, sources, targets), strict=True)]


def changed(sentence: Translated, seed: int = 0) -> dict[tuple[str, ...], np.ndarray]:
    rotated = rotated_attention(sentence.attention, ROTATION)
    return variants(sentence, rotated, np.random.default_rng(seed))


def attended(length: int, seed: int) -> Translated:
    """Return a sentence with made-up attention, none of it 0."""
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(length), 5).astype(np.float32) + 1e-6
    queries, keys = (generator.normal(size=(rows, 16)).astype(np.float32) for rows in (5, length))
    forced = Forced(np.zeros(5, np.int64), np.log(weights), weights / weights.sum(axis=1, keepdims=True), queries, keys)
    return Translated([0] * length, [0] * 5, forced)


@given(length=st.integers(2, 12), seed=st.integers(0, 99))
def test_every_variant_is_attention_or_does_not_exist(length: int, seed: int) -> None:
    sentence = attended(length, seed)
    own = sentence.attention.weights.astype(np.float64)
    for path, weights in changed(sentence, seed).items():
        assert weights.shape == own.shape
        if path[0] == "counterfactual":
            np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
            continue
        _, place, _, count = path
        if length <= int(count):
            assert not weights.any(), path  # nothing would be left
            continue
        taken = weights == 0
        assert (taken.sum(axis=1) == int(count)).all()
        assert place == "any_position" or not taken[:, -1].any()
        for row, mine, gone in zip(weights, own, taken, strict=True):
            np.testing.assert_allclose(row[~gone], mine[~gone] / mine[~gone].sum())


def test_deletions_take_the_positions_that_their_order_names() -> None:
    sentence = attended(9, seed=1)
    own, found = sentence.attention.weights, changed(sentence)
    rotated = rotated_attention(sentence.attention, ROTATION)
    np.testing.assert_allclose(rotated.sum(axis=1), 1.0)
    for step in range(len(own)):
        gone = {path: set(np.flatnonzero(weights[step] == 0)) for path, weights in found.items()}
        assert gone["deletion", "any_position", "top", "2"] == set(np.argsort(own[step])[-2:])
        assert gone["deletion", "any_position", "least", "3"] == set(np.argsort(own[step])[:3])
        assert gone["deletion", "end_of_sentence_kept", "top", "1"] == {np.argmax(own[step, :-1])}
        assert gone["deletion", "any_position", "randomized_parameters", "1"] == {np.argmax(rotated[step])}
        assert gone["counterfactual", "zero_max"] == {np.argmax(own[step])}
        np.testing.assert_allclose(sorted(found["counterfactual", "permuted"][step]), sorted(own[step]))
    np.testing.assert_allclose(found["counterfactual", "uniform"], 1 / 9)


def test_random_orders_follow_the_seed() -> None:
    sentence, path = attended(12, seed=1), ("deletion", "any_position", "random", "3")
    assert np.array_equal(changed(sentence, 4)[path], changed(sentence, 4)[path])
    assert not np.array_equal(changed(sentence, 4)[path], changed(sentence, 5)[path])


def test_a_rotation_turns_keys_and_keeps_their_size() -> None:
    np.testing.assert_allclose(ROTATION @ ROTATION.T, np.eye(16), atol=1e-12)
    assert np.array_equal(ROTATION, random_rotation(16, seed=3))
    assert np.abs(ROTATION - np.eye(16)).max() > 0.5


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_giving_a_model_its_own_attention_does_nothing(narrow: Exported, precision: str) -> None:
    model: OnnxModel = getattr(narrow, precision)
    sentences = translated(model, [3, 17, 8], seed=2)
    same: list[Variants] = [{("own",): sentence.attention.weights.astype(np.float64)} for sentence in sentences]
    for outcome, sentence in zip(replay(model, sentences, same), sentences, strict=True):
        np.testing.assert_allclose(outcome.log_probabilities[0], outcome.log_probabilities[1], atol=1e-6)
        assert np.array_equal(outcome.best_token_ids[1], sentence.attention.best_token_ids)
        assert np.abs(outcome.divergences).max() < 1e-6


def twin(model: OnnxModel, sentence: Translated, weights: np.ndarray, step: int) -> tuple[float, int, float]:
    """Return log-probability, best token and divergence of one step, alone and by loops; float64 throughout."""
    encoded = model.encode([sentence.source_ids])
    state = {name: array[:, None] for name, array in encoded.initial_state.items()}
    read = [SPECIAL_IDS.bos, *sentence.target_ids[:-1]]
    for token_id in read[:step]:
        found = model.step(encoded, np.array([[token_id]]), state, model.next_state)
        state = {name: found[f"next_{name}"] for name in model.state_names}
    row = np.zeros((1, 1, padded(len(sentence.source_ids))), np.float32)
    row[0, 0, : len(weights)] = weights
    given = GivenAttention(np.array([[True]]), row)
    own, other = (
        model.step(encoded, np.array([[read[step]]]), state, ["log_probabilities"], attention)["log_probabilities"]
        .ravel()
        .tolist()
        for attention in (None, given)
    )
    divergence = sum(math.exp(one) * (one - two) for one, two in zip(own, other, strict=True))
    return other[sentence.target_ids[step]], other.index(max(other)), divergence


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_batch_of_variants_says_what_one_step_at_a_time_says(narrow: Exported, precision: str) -> None:
    model: OnnxModel = getattr(narrow, precision)
    sentences = translated(model, [2, 5, 21], seed=6)
    every = [changed(sentence) for sentence in sentences]
    moved = 0.0
    for sentence, found, outcome in zip(sentences, every, replay(model, sentences, every), strict=True):
        for row, weights in enumerate(found.values(), start=1):
            for step in np.flatnonzero(weights.any(axis=1)):
                log_probability, best, divergence = twin(model, sentence, weights[step], int(step))
                assert outcome.log_probabilities[row, step] == pytest.approx(log_probability, abs=1e-6)
                assert outcome.best_token_ids[row, step] == best
                assert outcome.divergences[row, step] == pytest.approx(divergence, abs=1e-6)
                moved = max(moved, abs(log_probability - outcome.log_probabilities[0, step]))
    assert moved > 0.01  # the variants do something


def test_a_variant_that_does_not_exist_changes_nothing(narrow: Exported) -> None:
    [sentence] = translated(narrow.int8, [2], seed=3)
    [outcome] = replay(narrow.int8, [sentence], [changed(sentence)])
    row = 1 + list(changed(sentence)).index(("deletion", "any_position", "top", "3"))
    assert np.array_equal(outcome.log_probabilities[row], outcome.log_probabilities[0])
