"""What is told of a translation before its search is over, against what the search then finds."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.manifest import SpecialIds
from bundle.search import Beams, SearchOptions, StepOutput, advance, certain_prefix, reorder

SPECIAL = SpecialIds(pad=0, unk=1, bos=2, eos=3)
VOCABULARY = 7


def step(seed: int, peak: float, previous: np.ndarray, prefixes: np.ndarray) -> StepOutput:
    """A random function of what was emitted; the higher ``peak``, the more often one token is nearly certain."""
    batch, beam = previous.shape
    log_probabilities = np.empty((batch, beam, VOCABULARY))
    after = np.concatenate([prefixes, previous[:, :, None].astype(float)], axis=2)
    for row in np.ndindex(batch, beam):
        generator = np.random.default_rng([seed, row[0], *after[row].astype(int)])
        logits = generator.normal(size=VOCABULARY) * generator.exponential(peak)
        log_probabilities[row] = np.round(logits - np.logaddexp.reduce(logits), 1)  # coarse, so that scores tie
    ids = np.argsort(-log_probabilities, axis=2, kind="stable")
    scores = np.take_along_axis(log_probabilities, ids, axis=2)
    return StepOutput(ids, np.minimum(scores, 0.0), {"prefixes": after})


def told(seed: int, peak: float, options: list[SearchOptions]) -> list[tuple[list[tuple[int, ...]], tuple[int, ...]]]:
    """For each sentence of a batch: what was certain after each step but the last, and what the answer is."""
    beams = Beams.start(options, SPECIAL)
    prefixes = np.zeros((len(options), options[0].beam_size, 0))
    certain: list[list[tuple[int, ...]]] = [[] for _ in options]
    answers: dict[int, tuple[int, ...]] = {}
    while len(answers) < len(options):  # who is done stays in the batch, and is not asked again
        output = step(seed, peak, beams.previous_token_ids, prefixes)
        beams, parents, finished = advance(beams, output)
        prefixes = reorder(output.state, parents)["prefixes"]
        for sentence, hypotheses in finished.items():
            answers.setdefault(sentence, hypotheses[0].token_ids)
        for sentence in range(len(options)):
            if sentence not in answers:
                known = certain[sentence][-1] if certain[sentence] else ()
                certain[sentence].append(certain_prefix(beams, sentence, known))
                assert certain[sentence][-1] == certain_prefix(beams, sentence)
    return [(certain[sentence], answers[sentence]) for sentence in range(len(options))]


@pytest.mark.parametrize("beam_size", [1, 2, 4, 16])
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    peak=st.sampled_from([0.5, 2.0, 8.0]),
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=3),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
    prefix=st.lists(st.integers(4, VOCABULARY - 1), max_size=2),
)
def test_what_is_certain_is_always_a_prefix_of_the_answer_and_never_shrinks(
    beam_size: int, seed: int, peak: float, lengths: list[int], length_penalty: float, prefix: list[int]
) -> None:
    options = [
        SearchOptions(
            length,
            beam_size,
            length_penalty=length_penalty,
            forced_prefix=tuple(prefix)[: length - 1],
            banned_token_ids=(SPECIAL.unk,),
        )
        for length in lengths
    ]
    for certain, answer in told(seed, peak, options):
        for earlier, later in itertools.pairwise([(), *certain, answer]):
            assert later[: len(earlier)] == earlier


def test_greedy_search_is_certain_of_every_token_it_has_emitted() -> None:
    for seed in range(50):
        [(certain, answer)] = told(seed, 1.0, [SearchOptions(12, 1)])
        assert certain == [answer[: steps + 1] for steps in range(len(answer) - 1)]


def test_a_hypothesis_that_cannot_win_any_more_holds_nothing_back() -> None:
    """The rival of a good beginning is so unlikely that no ending can save it."""

    def output(ids: list[list[int]], scores: list[list[float]]) -> StepOutput:
        state = {"none": np.zeros((1, 2, 1))}
        return StepOutput(np.array([ids]), np.array([scores]), state)

    beams = Beams.start([SearchOptions(3, 2, length_penalty=0.0)], SPECIAL)
    beams, _, _ = advance(beams, output([[4, 5, 3]] * 2, [[-0.1, -9.0, -20.0]] * 2))
    assert certain_prefix(beams, 0) == ()
    beams, _, _ = advance(beams, output([[6, 3, 4]] * 2, [[-0.2, -3.0, -20.0]] * 2))
    assert certain_prefix(beams, 0) == (4,)  # 4 3 has finished with -3.1; 4 6 leads; 5 6, with -9.2, can win no more


def test_before_the_first_step_nothing_is_certain() -> None:
    beams = Beams.start([SearchOptions(3, 2)], SPECIAL)
    assert certain_prefix(beams, 0) == ()
