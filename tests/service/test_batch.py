from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bundle.search import EncodedBatch, SearchOptions, State, StepOutput, force
from service.batch import Job, RunningBatch, Seat
from service.engine import Engine, Wanted

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


def test_jobs_share_a_batch_only_if_their_steps_are_alike() -> None:
    options = SearchOptions(8, beam_size=4)
    plain = Job((5, EOS), options)
    assert plain.kind == Job((6, 7, EOS), SearchOptions(9, beam_size=4, n_best=2), trace=True).kind
    others = [
        Job((5, EOS), SearchOptions(8, beam_size=2)),
        Job((5, EOS), SearchOptions(8, beam_size=4, forced_prefix=(7,))),
        Job((5, EOS), options, target_ids=(7, EOS)),
    ]
    assert len({plain.kind, *(other.kind for other in others)}) == 4
    assert [job.hypotheses for job in (plain, *others)] == [4, 2, 4, 1]


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
        return engine.step(encoded, previous, state, Wanted(candidates, attention=True, whole_vocabulary=True))

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


def test_a_seat_shows_nothing_of_what_it_holds() -> None:
    assert "5" not in repr(Seat(Job((5, EOS), SearchOptions(8)))).split(" at ")[0]
