from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import tables as component_tables
from bundle.decomposition import conditioning_tokens, nine_terms, softmax, split
from bundle.intervention import AttentionChange
from bundle.manifest import TABLES_FILE
from bundle.search import EncodedBatch, SearchOptions, State, StepOutput, force
from bundle.sessions import own_states
from bundle.tables import ComponentTables
from service.batch import Decoded, Job, RunningBatch, Seat
from service.decoder_state import Wanted
from service.engine import Engine

EOS = 3


def seat(length: int, *, trace: bool = False, steps: int = 6, first: int = 4) -> Seat:
    source_ids = (*(first + index % 50 for index in range(length - 1)), EOS)
    return Seat(Job(source_ids, SearchOptions(steps, beam_size=2), trace))


def lasting(engine: Engine, length: int) -> Seat:
    """A seat that takes more than four steps."""
    for first in range(4, 60):
        if (trial := joined(engine, seat(length, steps=30, first=first))) and not any(trial.step() for _ in range(4)):
            return seat(length, steps=30, first=first)
    raise AssertionError("the model ends every sentence early; give it another seed")


def joined(engine: Engine, *seats: Seat) -> RunningBatch[Seat]:
    batch: RunningBatch[Seat] = RunningBatch(engine)
    batch.join(seats, engine.encode([each.job.source_ids for each in seats]))
    return batch


def changing(
    length: int,
    *,
    masked: tuple[int, ...] = (),
    left_out: tuple[tuple[int, int], ...] = (),
    rows: dict[int, np.ndarray] | None = None,
    tables: ComponentTables | None = None,
) -> AttentionChange:
    """A change for a source of ``length`` tokens; nothing, by default."""
    terms, columns = np.zeros((3, 3), bool), np.zeros(length, bool)
    columns[list(masked)] = True
    for term in left_out:
        terms[term] = True
    return AttentionChange(terms, columns, rows or {}, tables=tables)


def finished(engine: Engine, *jobs: Job) -> list[Decoded]:
    seats = [Seat(job) for job in jobs]
    batch = joined(engine, *seats)
    while batch.seats:
        batch.step()
    return [each.decoded for each in seats if each.decoded is not None]


def test_jobs_share_a_batch_only_if_their_steps_are_alike() -> None:
    options = SearchOptions(8, beam_size=4)
    plain = Job((5, EOS), options)
    assert plain.kind == Job((6, 7, EOS), SearchOptions(9, beam_size=4, n_best=2), trace=True).kind
    others = [
        Job((5, EOS), SearchOptions(8, beam_size=2)),
        Job((5, EOS), SearchOptions(8, beam_size=4, forced_prefix=(7,))),
        Job((5, EOS), options, target_ids=(7, EOS)),
        Job((5, EOS), options, change=changing(2)),
        Job((5, EOS), options, target_ids=(7, EOS), change=changing(2)),
    ]
    assert len({plain.kind, *(other.kind for other in others)}) == 6
    assert [job.hypotheses for job in (plain, *others)] == [4, 2, 4, 1, 4, 1]


def test_the_source_axis_grows_and_shrinks_with_those_who_are_there(engine: Engine) -> None:
    short, long, other = lasting(engine, 5), lasting(engine, 40), lasting(engine, 3)
    batch = joined(engine, short)
    batch.step()
    assert batch.padding_ratio == pytest.approx(1 - 5 / 16)
    batch.join([long], engine.encode([long.job.source_ids]))
    batch.step()
    assert batch.padding_ratio == pytest.approx(1 - 45 / 96)
    long.abandoned = True
    batch.join([other], engine.encode([other.job.source_ids]))
    batch.step()
    assert batch.padding_ratio == pytest.approx(1 - 8 / 32)


def test_the_source_axis_shrinks_when_the_long_sentence_leaves_and_nobody_joins(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns: list[int] = []
    step = engine.step

    def watched(encoded: EncodedBatch, *arguments: Any) -> StepOutput:
        columns.append(encoded.encoder_side["attention_keys"].shape[1])
        return step(encoded, *arguments)

    short, long = lasting(engine, 5), lasting(engine, 40)
    monkeypatch.setattr(engine, "step", watched)
    batch = joined(engine, short, long)
    batch.step()
    long.abandoned = True
    batch.step()
    assert columns == [48, 16]
    assert batch.padding_ratio == pytest.approx(1 - 5 / 16)


def test_a_batch_whose_last_seat_is_given_up_makes_no_step(engine: Engine) -> None:
    seats = [seat(5), seat(7)]
    batch = joined(engine, *seats)
    batch.step()
    assert batch.size == 2
    for each in seats:
        each.abandoned = True
    assert batch.step() == []
    assert (batch.size, [each.steps for each in seats]) == (0, [1, 1])
    late = seat(4)
    batch.join([late], engine.encode([late.job.source_ids]))
    batch.step()
    assert (batch.size, late.steps) == (1, 1)


class Leaving(Seat):
    """A seat whose caller leaves right after it was found taken."""

    asked = 0

    @property
    def free(self) -> bool:
        self.asked += 1
        return self.asked > 1


def test_a_step_asks_once_who_takes_part(engine: Engine) -> None:
    leaving = Leaving(seat(5).job)
    batch: RunningBatch[Seat] = joined(engine, leaving)
    batch.step()
    assert (leaving.asked, leaving.steps, batch.size) == (1, 1, 1)


def test_a_finished_seat_takes_part_in_no_further_step(engine: Engine) -> None:
    brief, patient = seat(5, steps=1), lasting(engine, 6)
    batch = joined(engine, brief, patient)
    assert batch.step() == [brief]
    assert batch.seats == [patient]
    batch.step()
    assert (brief.steps, patient.steps) == (1, 2)
    assert brief.decoded is not None and brief.decoded.batch_size == 2


def test_attention_is_kept_only_for_those_who_asked(engine: Engine) -> None:
    asked, silent = seat(7, trace=True), seat(7)
    batch = joined(engine, asked, silent)
    while batch.seats:
        batch.step()
    assert asked.decoded is not None and silent.decoded is not None
    assert silent.decoded.traces == () and silent.decoded.attention_keys is None
    assert asked.decoded.hypotheses == silent.decoded.hypotheses
    trace, keys = asked.decoded.traces[0], asked.decoded.attention_keys
    assert trace.attention_scores is not None and trace.attention_queries is not None and keys is not None
    assert trace.attention_scores.shape == (len(asked.decoded.hypotheses[0].token_ids), 7)
    np.testing.assert_allclose(trace.attention_scores, trace.attention_queries @ keys.T, rtol=1e-4, atol=1e-5)


def test_given_targets_are_scored_together_as_the_plain_driver_scores_each(engine: Engine) -> None:
    targets = [(17, 9, 40, 9, EOS), (9, EOS), (8, 8, EOS)]
    seats = [
        Seat(replace(seat(length).job, trace=True, target_ids=target))
        for length, target in zip((4, 30, 9), targets, strict=True)
    ]
    batch = joined(engine, *seats)
    while batch.seats:
        batch.step()

    def step(encoded: EncodedBatch, previous: np.ndarray, state: State, candidates: int) -> StepOutput:
        return engine.step(
            encoded, previous, own_states(state), Wanted(candidates, attention=True, whole_vocabulary=True)
        )

    for each, target in zip(seats, targets, strict=True):
        assert each.decoded is not None
        encoded = engine.encode([each.job.source_ids])
        twin = force(step, encoded, [target], engine.manifest.special_ids)[0]
        assert each.decoded.hypotheses == twin.hypotheses
        np.testing.assert_array_equal(each.decoded.traces[0].attention_scores, twin.traces[0].attention_scores)


def test_our_own_translation_given_back_as_a_target_has_the_same_probability(engine: Engine) -> None:
    searched = seat(9, steps=30)
    batch = joined(engine, searched, *(seat(length, steps=30) for length in (3, 5, 8)))
    while batch.seats:
        batch.step()
    assert searched.decoded is not None
    own = searched.decoded.hypotheses[0]
    assert own.finish_reason == "eos"
    given = Seat(replace(searched.job, target_ids=own.token_ids))
    batch = joined(engine, given)
    while batch.seats:
        batch.step()
    assert given.decoded is not None
    again = given.decoded.hypotheses[0]
    np.testing.assert_allclose(again.token_log_probabilities, own.token_log_probabilities, atol=1e-4)


def test_a_target_without_an_end_is_scored_as_one_that_was_cut(engine: Engine) -> None:
    job = replace(seat(9).job, options=SearchOptions(6, beam_size=2, length_penalty=0.5), target_ids=(17, 9))
    (cut,) = finished(engine, job)[0].hypotheses
    assert cut.finish_reason == "max_length"
    assert cut.normalized_score == pytest.approx(cut.log_probability / 2**0.5)
    (whole,) = finished(engine, replace(job, target_ids=(17, 9, EOS)))[0].hypotheses
    assert whole.finish_reason == "eos"
    assert whole.token_log_probabilities[:2] == cut.token_log_probabilities


@pytest.mark.parametrize("target_ids", [(), (17, 9, 40, EOS)])
def test_a_change_of_nothing_changes_no_bit(engine: Engine, target_ids: tuple[int, ...]) -> None:
    plain = replace(lasting(engine, 20).job, trace=True, target_ids=target_ids)
    without, with_it = finished(engine, plain)[0], finished(engine, replace(plain, change=changing(20)))[0]
    assert with_it.hypotheses == without.hypotheses
    np.testing.assert_array_equal(with_it.traces[0].attention_weights, without.traces[0].attention_weights)
    np.testing.assert_array_equal(with_it.traces[0].attention_scores, without.traces[0].attention_scores)


@pytest.mark.parametrize("target_ids", [(), (17, 9, 40, 22, 31, EOS)])
def test_the_weights_of_a_trace_are_those_that_were_used(
    engine: Engine, tiny_bundle: Path, target_ids: tuple[int, ...]
) -> None:
    tables = component_tables.read(tiny_bundle / TABLES_FILE)
    special, offset = engine.manifest.special_ids, engine.manifest.decoder_token_offset
    left_out, given = ((0, 0), (1, 2), (2, 1)), np.eye(20)[7]
    change = changing(20, masked=(2, 11), left_out=left_out, rows={1: given}, tables=tables)
    options = SearchOptions(30, beam_size=4, n_best=4)
    job = replace(lasting(engine, 20).job, options=options, trace=True, target_ids=target_ids, change=change)
    decoded = finished(engine, job)[0]
    assert max(len(hypothesis.token_ids) for hypothesis in decoded.hypotheses) > 3
    keys = decoded.attention_keys
    assert keys is not None
    encoder = split(keys, np.array(job.source_ids), tables.encoder)
    for hypothesis, trace in zip(decoded.hypotheses, decoded.traces, strict=True):
        scores, weights, queries = trace.attention_scores, trace.attention_weights, trace.attention_queries
        assert scores is not None and weights is not None and queries is not None
        np.testing.assert_allclose(scores, queries @ keys.T, atol=1e-5)  # the model's own
        read = conditioning_tokens(hypothesis.token_ids, offset, special.bos)
        terms = nine_terms(split(queries, read, tables.decoder), encoder)
        changed = scores - sum(terms[term] for term in left_out)
        changed[:, [2, 11]] = -np.inf
        expected = softmax(changed)
        if len(expected) > 1:
            expected[1] = given
        np.testing.assert_allclose(weights, expected, atol=1e-6)
        assert not weights[0, [2, 11]].any()


def test_what_is_emitted_follows_the_weights_that_were_given(engine: Engine) -> None:
    job = replace(seat(9).job, trace=True, target_ids=(17, 9, 40, EOS))
    rows = {step: np.eye(9)[step + 1] for step in (0, 2)}
    plain, changed = finished(engine, job)[0], finished(engine, replace(job, change=changing(9, rows=rows)))[0]
    before, after = (each.hypotheses[0].token_log_probabilities for each in (plain, changed))
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False, True]


def test_a_plain_step_asks_the_engine_for_nothing_more(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "attend", None)  # calling it would be a TypeError
    assert finished(engine, seat(9, trace=True).job, replace(seat(9).job, trace=False))


def test_a_seat_shows_nothing_of_what_it_holds() -> None:
    assert "5" not in repr(Seat(Job((5, EOS), SearchOptions(8)))).split(" at ")[0]


def test_whoever_a_failing_step_had_finished_already_is_among_those_it_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seats = [seat(5, steps=1), seat(7, steps=1)]
    batch = joined(engine, *seats)
    finish = Seat.finish

    def failing(self: Seat, *arguments: Any) -> None:
        if self is seats[1]:
            raise MemoryError
        finish(self, *arguments)

    monkeypatch.setattr(Seat, "finish", failing)
    with pytest.raises(MemoryError):
        batch.step()
    assert batch.taken == seats and batch.seats == seats[1:]
