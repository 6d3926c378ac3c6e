"""The vectorised search against a brute-force twin, on random models over tiny vocabularies with many equal scores."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import InvalidSearchOptions
from bundle.manifest import SpecialIds
from bundle.search import (
    ALL_CANDIDATES,
    Beams,
    EncodedBatch,
    Hypothesis,
    SearchOptions,
    SearchResult,
    State,
    StepOutput,
    advance,
    force,
    max_target_tokens,
    reorder,
    search,
)

SPECIAL = SpecialIds(pad=0, unk=1, bos=2, eos=3)
SOURCE, KEY = 5, 3


@dataclass(frozen=True)
class RandomModel:
    """A step whose answer is a random function of (sentence, everything emitted so far), coarse so that scores tie."""

    vocabulary: int
    grain: float = 0.5
    full: bool = False

    def log_probabilities(self, sentence: int, prefix: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([sentence, *prefix])
        return -np.round(rng.exponential(1.5, self.vocabulary) / self.grain) * self.grain

    def attention(self, sentence: int, prefix: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([7, sentence, *prefix]).normal(size=SOURCE)

    def encoded(self, sentences: list[int], longest: int = 12) -> EncodedBatch:
        """The state is the prefix itself: -1 where nothing was emitted yet."""
        return EncodedBatch(
            source_lengths=np.array([2 + sentence % (SOURCE - 1) for sentence in sentences], dtype=np.int64),
            encoder_side={"sentence": np.array(sentences)},
            initial_state={"prefix": np.full((len(sentences), longest), -1.0)},
        )

    def __call__(self, encoded: EncodedBatch, previous: np.ndarray, state: State, candidates: int) -> StepOutput:
        batch, beam = previous.shape
        after = state["prefix"].copy()
        log_probabilities = np.zeros((batch, beam, self.vocabulary))
        attention = np.zeros((batch, beam, SOURCE))
        for b in range(batch):
            for row in range(beam):
                emitted = [int(t) for t in state["prefix"][b, row] if t >= 0]
                after[b, row, len(emitted)] = previous[b, row]
                prefix = (*emitted, int(previous[b, row]))
                log_probabilities[b, row] = self.log_probabilities(int(encoded.encoder_side["sentence"][b]), prefix)
                attention[b, row] = self.attention(int(encoded.encoder_side["sentence"][b]), prefix)
        k = (
            beam + 13 if self.full and candidates == ALL_CANDIDATES else candidates
        )  # end of sentence, 4 bans, 8 blocked
        ids = np.argsort(-log_probabilities, axis=2, kind="stable")[:, :, :k]
        return StepOutput(
            candidate_token_ids=ids,
            candidate_log_probabilities=np.take_along_axis(log_probabilities, ids, axis=2),
            state={"prefix": after},
            attention_scores=attention,
            attention_weights=np.exp(attention),
            attention_query=attention[:, :, :KEY],
            log_probabilities=log_probabilities if self.full else None,
        )


def brute_force(model: RandomModel, sentence: int, o: SearchOptions) -> list[tuple[tuple[int, ...], float]]:
    """The rules of ``bundle.beams`` without the bound, in the plainest words."""
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    finished: list[tuple[tuple[int, ...], float]] = []
    for step in range(o.max_target_tokens):
        candidates = []
        for row, (tokens, score) in enumerate(live):
            for token, log_probability in enumerate(model.log_probabilities(sentence, (SPECIAL.bos, *tokens))):
                forced = o.forced_prefix[step] if step < len(o.forced_prefix) else token
                banned = () if step < len(o.forced_prefix) else (*o.banned_token_ids, *repeating(tokens, o))
                if token == forced and token not in (SPECIAL.pad, SPECIAL.bos, *banned):
                    candidates.append((-(score + log_probability), row, token, (*tokens, token)))
        candidates.sort()
        first = [(tokens, -cost) for cost, _, token, tokens in candidates[: o.beam_size] if token == SPECIAL.eos]
        live = [(tokens, -cost) for cost, _, token, tokens in candidates if token != SPECIAL.eos][: o.beam_size]
        finished += first + (live if step + 1 == o.max_target_tokens else [])
        if len(finished) >= o.beam_size:
            break
    ranked = sorted(finished, key=lambda item: -item[1] / len(item[0]) ** o.length_penalty)
    return ranked[: o.n_best]


def repeating(tokens: tuple[int, ...], o: SearchOptions) -> set[int]:
    """The tokens after which ``tokens`` would hold a run of ``no_repeat_ngram_size`` twice, by listing every run."""
    size = o.no_repeat_ngram_size
    runs = {tokens[first : first + size] for first in range(len(tokens) - size + 1)} if size else set()
    return {run[-1] for run in runs if (*tokens, run[-1])[-size:] == run}


def some_options(data: st.DataObject, vocabulary: int, beam_size: int | None = None) -> SearchOptions:
    return SearchOptions(**data.draw(option_values(vocabulary, beam_size)))


@st.composite
def option_values(draw: st.DrawFn, vocabulary: int, beam_size: int | None) -> dict[str, Any]:
    beam_size = beam_size or draw(st.integers(1, 6))
    longest = draw(st.integers(1, 8))
    ordinary = [SPECIAL.unk, *range(4, vocabulary)]
    prefix = draw(st.lists(st.sampled_from(ordinary), max_size=min(3, longest - 1)))
    banned = draw(st.lists(st.sampled_from([*ordinary, SPECIAL.eos]), max_size=2))
    return dict(
        max_target_tokens=longest,
        beam_size=beam_size,
        n_best=draw(st.integers(1, beam_size)),
        length_penalty=draw(st.sampled_from([0.0, 0.6, 1.0, 2.0])),
        forced_prefix=tuple(prefix),
        banned_token_ids=tuple(banned),
        no_repeat_ngram_size=draw(st.sampled_from([0, 0, 1, 2, 3, 16])),
    )


def answers(result: SearchResult) -> list[tuple[tuple[int, ...], float]]:
    return [(h.token_ids, h.log_probability) for h in result.hypotheses]


def same(found: list[tuple[tuple[int, ...], float]], expected: list[tuple[tuple[int, ...], float]]) -> None:
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-9)


@given(st.data(), st.integers(0, 10_000), st.integers(5, 9), st.sampled_from([0.5, 1e-9]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_search_equals_its_brute_force_twin(
    data: st.DataObject, sentence: int, vocabulary: int, grain: float, full: bool
) -> None:
    model = RandomModel(vocabulary, grain, full)
    options = some_options(data, vocabulary)
    [result] = search(model, model.encoded([sentence]), [options], SPECIAL)
    same(answers(result), brute_force(model, sentence, options))


@given(st.data(), st.integers(1, 6), st.integers(5, 8))
@settings(max_examples=60, deadline=None)
def test_a_sentence_alone_equals_itself_inside_a_batch_of_other_options(
    data: st.DataObject, beam_size: int, vocabulary: int
) -> None:
    model = RandomModel(vocabulary)
    sentences = data.draw(st.lists(st.integers(0, 999), min_size=1, max_size=6))
    options = [some_options(data, vocabulary, beam_size) for _ in sentences]
    together = search(model, model.encoded(sentences), options, SPECIAL)
    for sentence, option, found in zip(sentences, options, together, strict=True):
        [alone] = search(model, model.encoded([sentence]), [option], SPECIAL)
        assert found.hypotheses == alone.hypotheses
        for mine, other in zip(found.traces, alone.traces, strict=True):
            np.testing.assert_array_equal(mine.attention_scores, other.attention_scores)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0]))
@settings(max_examples=100, deadline=None)
def test_beam_size_one_equals_greedy(sentence: int, length_penalty: float) -> None:
    model = RandomModel(8)
    greedy: list[int] = []
    while len(greedy) < 9 and SPECIAL.eos not in greedy:
        log_probabilities = model.log_probabilities(sentence, (SPECIAL.bos, *greedy))
        log_probabilities[[SPECIAL.pad, SPECIAL.bos]] = -np.inf
        greedy.append(int(np.argmax(log_probabilities)))
    options = SearchOptions(max_target_tokens=9, beam_size=1, length_penalty=length_penalty)
    [result] = search(model, model.encoded([sentence]), [options], SPECIAL)
    assert result.hypotheses[0].token_ids == tuple(greedy)
    assert result.hypotheses[0].finish_reason == ("eos" if greedy[-1] == SPECIAL.eos else "max_length")


@given(st.data(), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_every_hypothesis_keeps_its_promises(data: st.DataObject, sentence: int) -> None:
    model = RandomModel(7)
    options = some_options(data, 7)
    [result] = search(model, model.encoded([sentence]), [options], SPECIAL)
    scores = [h.normalized_score for h in result.hypotheses]
    assert scores == sorted(scores, reverse=True)
    assert len({h.token_ids for h in result.hypotheses}) == len(result.hypotheses) <= options.n_best
    for hypothesis, trace in zip(result.hypotheses, result.traces, strict=True):
        tokens = hypothesis.token_ids
        assert tokens[: len(options.forced_prefix)] == options.forced_prefix
        free = tokens[len(options.forced_prefix) :]
        assert not {SPECIAL.pad, SPECIAL.bos, *options.banned_token_ids} & set(free)
        assert SPECIAL.eos not in tokens[:-1]
        for place in range(len(options.forced_prefix), len(tokens)):
            assert tokens[place] not in repeating(tokens[:place], options)
        assert (tokens[-1] == SPECIAL.eos) == (hypothesis.finish_reason == "eos")
        assert len(tokens) <= options.max_target_tokens
        if hypothesis.finish_reason == "max_length":
            assert len(tokens) == options.max_target_tokens
        assert sum(hypothesis.token_log_probabilities) == pytest.approx(hypothesis.log_probability, abs=1e-9)
        normalized = hypothesis.log_probability / len(tokens) ** options.length_penalty
        assert hypothesis.normalized_score == pytest.approx(normalized, abs=1e-9)
        source_length = 2 + sentence % (SOURCE - 1)
        expected = [model.attention(sentence, (SPECIAL.bos, *tokens[:i])) for i in range(len(tokens))]
        np.testing.assert_array_equal(trace.attention_scores, np.stack(expected)[:, :source_length])
        np.testing.assert_array_equal(trace.attention_queries, np.stack(expected)[:, :KEY])


def assert_remembers_what_was_emitted(beams: Beams, prefixes: np.ndarray) -> None:
    for steps_back in (1, 2, 3):
        emitted = beams.emitted(steps_back)
        for place in np.ndindex(emitted.shape):
            read = [*prefixes[place][prefixes[place] >= 0], beams.previous_token_ids[place]]  # bos is the first
            assert emitted[place] == read[max(len(read) - steps_back, 0)]


def drive(model: RandomModel, arrivals: list[tuple[int, int, SearchOptions]]) -> dict[int, list[Hypothesis]]:
    """Continuous batching in small: sentences join at their own time and leave when done."""
    answers: dict[int, list[Hypothesis]] = {}
    waiting = sorted(arrivals, key=lambda arrival: arrival[0])
    running: list[int] = []
    time, beams = 0, None
    state: np.ndarray = np.zeros(0)
    while waiting or running:
        while waiting and waiting[0][0] <= time:
            _, sentence, options = waiting.pop(0)
            new = Beams.start([options], SPECIAL)
            first = np.full((1, options.beam_size, 12), -1.0)
            beams = new if beams is None or not running else beams.join(new)
            state = first if not running else np.concatenate([state, first])
            running.append(sentence)
        if running:
            assert beams is not None
            assert_remembers_what_was_emitted(beams, state)
            output = model(model.encoded(running), beams.previous_token_ids, {"prefix": state}, beams.candidates)
            beams, parents, finished = advance(beams, output)
            state = reorder(output.state, parents)["prefix"]
            answers.update({running[row]: hypotheses for row, hypotheses in finished.items()})
            going = [row for row in range(len(running)) if row not in finished]
            beams, state, running = beams.keep(going), state[going], [running[row] for row in going]
        time += 1
    return answers


@given(st.data(), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_joining_and_leaving_a_running_batch_changes_nothing(data: st.DataObject, beam_size: int) -> None:
    model = RandomModel(7)
    sentences = data.draw(st.lists(st.integers(0, 999), min_size=1, max_size=6, unique=True))
    arrivals = [(data.draw(st.integers(0, 6)), s, some_options(data, 7, beam_size)) for s in sentences]
    found = drive(model, arrivals)
    for _, sentence, options in arrivals:
        [alone] = search(model, model.encoded([sentence]), [options], SPECIAL)
        assert tuple(found[sentence]) == alone.hypotheses


def test_advancing_leaves_the_given_beams_as_they_were() -> None:
    model = RandomModel(7)
    beams = Beams.start([SearchOptions(max_target_tokens=9)] * 2, SPECIAL)
    state = {"prefix": np.full((2, 4, 12), -1.0)}
    output = model(model.encoded([1, 2]), beams.previous_token_ids, state, beams.candidates)
    once, _, _ = advance(beams, output)
    twice, _, _ = advance(beams, output)
    np.testing.assert_array_equal(once.scores, twice.scores)
    assert beams.steps.tolist() == [0, 0] and once.steps.tolist() == [1, 1]


def test_a_step_is_asked_for_every_token_only_while_a_prefix_lasts() -> None:
    asked: list[int] = []

    def listening(encoded: EncodedBatch, previous: np.ndarray, state: State, candidates: int) -> StepOutput:
        asked.append(candidates)
        return RandomModel(7)(encoded, previous, state, candidates)

    options = SearchOptions(max_target_tokens=5, forced_prefix=(4, 5), banned_token_ids=(6,))
    search(listening, RandomModel(7).encoded([3]), [options], SPECIAL)
    assert asked[:3] == [ALL_CANDIDATES, ALL_CANDIDATES, 4 + 1 + 3]  # bans: token 6, padding, beginning of sentence


def test_a_forced_token_outside_the_vocabulary_ends_the_sentence_without_an_answer() -> None:
    for full in (False, True):
        model = RandomModel(7, full=full)
        options = [SearchOptions(max_target_tokens=5, forced_prefix=(99,)), SearchOptions(max_target_tokens=5)]
        lost, fine = search(model, model.encoded([3, 4]), options, SPECIAL)
        assert lost.hypotheses == ()
        assert fine.hypotheses


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=50, deadline=None)
def test_forcing_the_found_target_gives_its_own_scores_and_attention(sentence: int, full: bool) -> None:
    model = RandomModel(8, full=full)
    options = [SearchOptions(max_target_tokens=9, length_penalty=0.6), SearchOptions(max_target_tokens=4)]
    encoded = model.encoded([sentence, sentence + 1])
    found = search(model, encoded, options, SPECIAL)
    forced = force(model, encoded, [r.hypotheses[0].token_ids for r in found], SPECIAL, length_penalty=0.6)
    for mine, theirs in zip(forced, found, strict=True):
        path = (0,) * len(mine.hypotheses[0].token_ids)
        assert mine.hypotheses[0].token_log_probabilities == theirs.hypotheses[0].token_log_probabilities
        assert mine.hypotheses[0].finish_reason == theirs.hypotheses[0].finish_reason
        assert mine.hypotheses[0].beam_path == path
        np.testing.assert_array_equal(mine.traces[0].attention_scores, theirs.traces[0].attention_scores)
    assert forced[0].hypotheses[0].normalized_score == pytest.approx(found[0].hypotheses[0].normalized_score)


def test_the_bound_stops_a_search_that_cannot_change_its_answer() -> None:
    """One certain translation: after it has finished, its rivals are not followed to the end."""
    calls: list[int] = []

    def certain(encoded: EncodedBatch, previous: np.ndarray, state: State, candidates: int) -> StepOutput:
        calls.append(candidates)
        log_probabilities = np.full((*previous.shape, 6), -40.0)
        log_probabilities[:, :, 3 if len(calls) == 2 else 4] = -1e-9
        ids = np.argsort(-log_probabilities, axis=2, kind="stable")
        return StepOutput(ids, np.take_along_axis(log_probabilities, ids, axis=2), state)

    encoded = EncodedBatch(np.array([2]), {}, {"prefix": np.zeros((1, 1))})
    [result] = search(certain, encoded, [SearchOptions(max_target_tokens=50)], SPECIAL)
    assert result.hypotheses[0].token_ids == (4, 3)
    assert len(calls) == 2
    assert result.traces[0].attention_scores is None


def test_the_bound_waits_for_a_hypothesis_that_length_can_still_lift() -> None:
    """Ending at once scores -0.6; a start at -1.6 goes on for nothing and ends as -1.6 / 4."""
    certain = {(2,): {3: -0.6, 4: -1.6}, (2, 4): {5: 0.0}, (2, 4, 5): {6: 0.0}, (2, 4, 5, 6): {3: 0.0}}

    @dataclass(frozen=True)
    class LateWinner(RandomModel):
        def log_probabilities(self, sentence: int, prefix: tuple[int, ...]) -> np.ndarray:
            found = np.full(self.vocabulary, -50.0)
            for token, log_probability in certain.get(prefix, {}).items():
                found[token] = log_probability
            return found

    options = SearchOptions(max_target_tokens=8)
    [result] = search(LateWinner(7), LateWinner(7).encoded([0]), [options], SPECIAL)
    assert result.hypotheses[0].token_ids == (4, 5, 6, 3)
    assert result.hypotheses[0].normalized_score == pytest.approx(-0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_size": 0}, r"beam_size is 0; it must lie in \[1, 16\]"),
        ({"beam_size": 17}, "beam_size is 17"),
        ({"n_best": 5}, r"n_best is 5; it must lie in \[1, beam_size = 4\]"),
        ({"length_penalty": math.nan}, "length_penalty is nan"),
        ({"length_penalty": -0.1}, "length_penalty is -0.1"),
        ({"max_target_tokens": 0}, "max_target_tokens is 0"),
        ({"forced_prefix": (4,) * 9}, "forced_prefix has 9 tokens"),
        ({"banned_token_ids": (-1,)}, r"\[-1\] are negative"),
        ({"no_repeat_ngram_size": 17}, r"no_repeat_ngram_size is 17; it must lie in \[0, 16\]"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1"),
        ({"beam_size": 0, "length_penalty": 9.0}, "beam_size is 0.*length_penalty is 9.0"),
    ],
)
def test_impossible_options_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSearchOptions, match=message):
        replace(SearchOptions(max_target_tokens=9), **changes)  # type: ignore[arg-type]  # the wrong types are the test


def test_a_batch_of_different_beam_sizes_or_special_prefixes_is_refused() -> None:
    two, four = (SearchOptions(max_target_tokens=9, beam_size=size) for size in (2, 4))
    with pytest.raises(InvalidSearchOptions, match=r"beam sizes are \[2, 4\]"):
        Beams.start([two, four], SPECIAL)
    with pytest.raises(InvalidSearchOptions, match="cannot share a batch"):
        Beams.start([two], SPECIAL).join(Beams.start([four], SPECIAL))
    with pytest.raises(InvalidSearchOptions, match=r"special token ids \[3\]"):
        Beams.start([replace(two, forced_prefix=(4, SPECIAL.eos))], SPECIAL)
    with pytest.raises(InvalidSearchOptions, match="2 options for 1 sentences"):
        search(RandomModel(7), RandomModel(7).encoded([1]), [two, two], SPECIAL)
    with pytest.raises(InvalidSearchOptions, match="empty"):
        force(RandomModel(7), RandomModel(7).encoded([1]), [[]], SPECIAL)


def test_no_sentence_gives_no_result() -> None:
    assert search(RandomModel(7), RandomModel(7).encoded([]), [], SPECIAL) == []


def test_the_longest_target_is_relative_to_the_source_and_absolute() -> None:
    assert max_target_tokens(7, absolute=256) == 24
    assert max_target_tokens(7, absolute=20) == 20
    assert max_target_tokens(3, absolute=256, ratio=1.5, constant=4) == math.ceil(4.5) + 4
