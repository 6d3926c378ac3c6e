import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.occlusion import THRESHOLDS, Rationale, kendall_tau, occlude, rationale_probabilities
from exporters.perturbation import Translated
from exporters.runtime import OnnxModel
from tests.exporters.conftest import Exported
from tests.exporters.test_perturbation import translated
from training.evaluation import SPECIAL_IDS

VALUES = st.lists(st.integers(0, 5), min_size=2, max_size=7)


def forced_alone(model: OnnxModel, source: list[int], target: list[int]) -> list[float]:
    """Return the log-probability of each token of a target, one sentence and one step at a time."""
    encoded = model.encode([source])
    read = np.array([[SPECIAL_IDS.bos, *target[:-1]]])
    steps = model.forced(encoded, read, ["log_probabilities"])
    return [float(step["log_probabilities"][0, 0, token_id]) for step, token_id in zip(steps, target, strict=True)]


def own_of(model: OnnxModel, sentences: list[Translated]) -> list[np.ndarray]:
    return [np.array(forced_alone(model, list(s.source_ids), list(s.target_ids))) for s in sentences]


def test_occlusion_is_the_sentence_without_one_token(narrow: Exported) -> None:
    model = narrow.int8
    sentences = translated(model, [2, 6, 19], seed=8)
    own = own_of(model, sentences)
    for sentence, before, effect in zip(sentences, own, occlude(model, sentences, own), strict=True):
        source = list(sentence.source_ids)
        assert effect.shape == (len(sentence.target_ids), len(source) - 1)
        for token in range(len(source) - 1):
            without = source[:token] + source[token + 1 :]
            after = forced_alone(model, without, list(sentence.target_ids))
            np.testing.assert_allclose(effect[:, token], np.array(after) - before, atol=1e-6)


def test_rationales_are_taken_out_and_left_alone_by_rank(narrow: Exported) -> None:
    model = narrow.int8
    sentences = translated(model, [2, 12, 30], seed=9)
    generator = np.random.default_rng(1)
    rationales = [
        Rationale(index, position, generator.random(len(sentence.source_ids) - 1))
        for index, sentence in enumerate(sentences)
        for position in (0, len(sentence.target_ids) - 1)
    ]
    without, alone = rationale_probabilities(model, sentences, rationales)
    for row, rationale in enumerate(rationales):
        sentence = sentences[rationale.sentence]
        source, target = list(sentence.source_ids), list(sentence.target_ids)
        ordered = sorted(range(len(source) - 1), key=lambda token: -rationale.importance[token])
        for column, threshold in enumerate(THRESHOLDS):
            taken = set(ordered[: math.ceil(threshold * len(ordered))])
            assert taken
            for found, kept in (
                (without, [i for i in range(len(source) - 1) if i not in taken]),
                (alone, sorted(taken)),
            ):
                left = [source[token] for token in kept] + [source[-1]]
                expected = math.exp(forced_alone(model, left, target)[rationale.position])
                assert found[row, column] == pytest.approx(expected, abs=1e-6)


@given(VALUES, st.data())
def test_kendall_tau_counts_pairs(one: list[int], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.integers(0, 5), min_size=len(one), max_size=len(one)))
    pairs = [(i, j) for i in range(len(one)) for j in range(i)]
    score = sum(np.sign(one[i] - one[j]) * np.sign(other[i] - other[j]) for i, j in pairs)
    untied = [sum(values[i] != values[j] for i, j in pairs) for values in (one, other)]
    found = kendall_tau(np.array([one, one], float), np.array([other, one], float))
    if untied[0] and untied[1]:
        assert found[0] == pytest.approx(score / math.sqrt(untied[0] * untied[1]))
    else:
        assert np.isnan(found[0])
    assert np.isnan(found[1]) if not untied[0] else found[1] == pytest.approx(1)
