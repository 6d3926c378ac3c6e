import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from bundle import tables as component_tables
from bundle.intervention import AttentionChange
from bundle.manifest import TABLES_FILE
from bundle.search import EncodedBatch, StepOutput, search
from bundle.sessions import own_states
from service.admission import Limits, calling
from service.batch import Decoded, Job
from service.decoder_state import Wanted
from service.engine import Engine
from service.errors import DeadlinePassed, Draining, EngineUnready, QueueFull
from service.metrics import Metrics
from service.scheduler import Outcome, Scheduler, together
from tests.service.held_engine import HeldEngine, assert_same, job, scheduling, until
from tests.service.samples import value


def tracing(engine: Engine) -> Callable[..., StepOutput]:
    def step(encoded: EncodedBatch, previous: Any, state: Any, candidates: int) -> StepOutput:
        return engine.step(
            encoded, previous, own_states(state), Wanted(candidates, attention=True, whole_vocabulary=True)
        )

    return step


async def test_the_answer_is_that_of_the_plain_search(engine: Engine, metrics: Metrics) -> None:
    async with scheduling(engine, metrics) as scheduler:
        for seed in range(6):
            wanted = job(seed, trace=True, beam_size=1 + seed % 3)
            outcome = await scheduler.submit(wanted)
            encoded = engine.encode([wanted.source_ids])
            twin = search(tracing(engine), encoded, [wanted.options], engine.manifest.special_ids)[0]
            assert outcome.decoded.hypotheses == twin.hypotheses
            assert outcome.decoded.attention_keys is not None
            length = len(wanted.source_ids)
            np.testing.assert_array_equal(
                outcome.decoded.attention_keys, encoded.encoder_side["attention_keys"][0, :length]
            )
            for trace, expected in zip(outcome.decoded.traces, twin.traces, strict=True):
                np.testing.assert_array_equal(trace.attention_scores, expected.attention_scores)
                np.testing.assert_array_equal(trace.attention_weights, expected.attention_weights)
                np.testing.assert_array_equal(trace.attention_queries, expected.attention_queries)


async def test_a_forced_prefix_starts_every_hypothesis(engine: Engine, metrics: Metrics) -> None:
    wanted = job(3, prefix=(50, 51, 52))
    async with scheduling(engine, metrics) as scheduler:
        outcomes = await asyncio.gather(scheduler.submit(wanted), scheduler.submit(job(3)))
    assert all(hypothesis.token_ids[:3] == (50, 51, 52) for hypothesis in outcomes[0].decoded.hypotheses)
    assert outcomes[0].decoded.hypotheses != outcomes[1].decoded.hypotheses


POOL = 40  # sentences


@pytest.fixture(scope="module")
def alone(tiny_bundle: Path) -> dict[tuple[int, int], Decoded]:
    """What becomes of every sentence of the pool, with beam size 1 and 4, when nothing else runs."""
    metrics = Metrics.on(CollectorRegistry())
    engine = Engine(tiny_bundle, "cpu", 1, metrics)

    async def run() -> dict[tuple[int, int], Decoded]:
        async with scheduling(engine, metrics) as scheduler:
            wanted = [(seed, beam_size) for seed in range(POOL) for beam_size in (1, 4)]
            jobs = [job(seed, beam_size=beam_size, trace=True) for seed, beam_size in wanted]
            return {each: (await scheduler.submit(it)).decoded for each, it in zip(wanted, jobs, strict=True)}

    return asyncio.run(run())


@settings(
    max_examples=50,  # some 1,250 sentences
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a failure depends on timing: it cannot be shrunk
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sentences=st.lists(
        st.tuples(st.integers(0, POOL - 1), st.sampled_from([1, 4]), st.booleans()), min_size=10, max_size=40
    ),
    room=st.sampled_from([16, 40, 128]),
    encode_tokens=st.sampled_from([16, 200, 2048]),
    lanes=st.sampled_from([1, 2, 3]),
    pauses=st.randoms(use_true_random=False),
)
def test_what_a_sentence_is_batched_with_changes_no_bit(
    engine: Engine,
    alone: dict[tuple[int, int], Decoded],
    sentences: list[tuple[int, int, bool]],
    room: int,
    encode_tokens: int,
    lanes: int,
    pauses: random.Random,
) -> None:
    jobs = [job(seed, beam_size=beam_size, trace=trace) for seed, beam_size, trace in sentences]

    async def together() -> list[Decoded]:
        limits = Limits(batch_hypotheses=room, encode_tokens=encode_tokens, lanes=lanes)
        async with scheduling(engine, Metrics.on(CollectorRegistry()), limits) as scheduler:

            async def arrive(each: Job) -> Decoded:
                await asyncio.sleep(pauses.choice([0, 0, 0.001, 0.004]))
                return (await scheduler.submit(each)).decoded

            return await asyncio.gather(*map(arrive, jobs))

    for (seed, beam_size, trace), mixed in zip(sentences, asyncio.run(together()), strict=True):
        expected = alone[seed, beam_size]
        assert_same(mixed, expected if trace else replace(expected, traces=()))


@pytest.fixture(scope="module")
def changed_alone(tiny_bundle: Path) -> dict[int, tuple[Job, Decoded]]:
    """Jobs with and without a change of attention, searched and given; what becomes of each when nothing else runs."""
    metrics = Metrics.on(CollectorRegistry())
    engine = Engine(tiny_bundle, "cpu", 1, metrics)
    tables = component_tables.read(tiny_bundle / TABLES_FILE)

    def changed(seed: int) -> Job:
        plain = job(seed, trace=True, beam_size=1 + 3 * (seed % 2))
        generator, length = np.random.default_rng(seed), len(plain.source_ids)
        masked = (generator.random(length) < 0.3) & (np.arange(length) < length - 1)
        given = {int(step): np.eye(length)[generator.integers(length)] for step in generator.integers(0, 6, 2)}
        change = AttentionChange(generator.random((3, 3)) < 0.3, masked, given, tables=tables)
        target = tuple(generator.integers(4, 120, 5).tolist()) if seed % 3 == 0 else ()
        return replace(plain, target_ids=target, change=change if seed % 5 else None)

    async def run() -> dict[int, tuple[Job, Decoded]]:
        async with scheduling(engine, metrics) as scheduler:
            jobs = [changed(seed) for seed in range(30)]
            return {seed: (it, (await scheduler.submit(it)).decoded) for seed, it in enumerate(jobs)}

    return asyncio.run(run())


@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seeds=st.lists(st.integers(0, 29), min_size=10, max_size=30), pauses=st.randoms(use_true_random=False))
def test_what_a_changed_sentence_is_batched_with_changes_no_bit(
    engine: Engine, changed_alone: dict[int, tuple[Job, Decoded]], seeds: list[int], pauses: random.Random
) -> None:
    async def together() -> list[Decoded]:
        async with scheduling(engine, Metrics.on(CollectorRegistry())) as scheduler:

            async def arrive(each: Job) -> Decoded:
                await asyncio.sleep(pauses.choice([0, 0, 0.001, 0.004]))
                return (await scheduler.submit(each)).decoded

            return await asyncio.gather(*(arrive(changed_alone[seed][0]) for seed in seeds))

    for seed, mixed in zip(seeds, asyncio.run(together()), strict=True):
        assert_same(mixed, changed_alone[seed][1])


async def test_sentences_join_a_batch_that_is_already_running(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics) as scheduler:
        first = asyncio.create_task(scheduler.submit(job(1)))
        await held.reached()
        second = asyncio.create_task(scheduler.submit(job(2)))
        await asyncio.sleep(0.01)
        held.gate.set()
        outcomes = await asyncio.gather(first, second)
    assert held.rows[0] == 1 and 2 in held.rows
    assert [outcome.decoded.batch_size for outcome in outcomes] == [2, 2]
    assert outcomes[1].queue_seconds > 0.005


async def test_the_loop_stays_free_while_a_step_runs(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics) as scheduler:
        task = asyncio.create_task(scheduler.submit(job(1)))
        await held.reached()
        async with asyncio.timeout(1):
            for _ in range(100):
                await asyncio.sleep(0)
        assert not task.done()
        held.gate.set()
        await task


async def test_a_lane_goes_on_while_another_is_held_up(held: HeldEngine, metrics: Metrics) -> None:
    held.hold_at = 1
    async with scheduling(held, metrics, Limits(lanes=2)) as scheduler:
        stuck = asyncio.create_task(scheduler.submit(job(1)))
        await until(lambda: not held.gate.is_set())
        held.faulty = ""  # the other lane's calls pass
        for seed in range(4):
            assert (await scheduler.submit(job(seed))).decoded.batch_size == 1
        assert not stuck.done()
        held.gate.set()
        await stuck


async def test_sentences_that_come_at_once_are_shared_out_evenly(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics, Limits(lanes=2)) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit(job(seed, beam_size=1))) for seed in range(33)]
        await held.reached()
        await held.reached()
        held.gate.set()
        await asyncio.gather(*tasks)
    first = held.rows[:2]
    assert sum(first) <= 33 and max(held.rows) <= 17


async def test_one_sentence_is_not_behind_all_of_a_call_of_many(held: HeldEngine, metrics: Metrics) -> None:
    finished: list[str] = []
    async with scheduling(held, metrics, Limits(batch_hypotheses=16)) as scheduler:

        async def run(name: str, seed: int) -> None:
            await scheduler.submit(job(seed))
            finished.append(name)

        async def call_of_many() -> None:
            calling.set(object())
            await together(run("many", seed) for seed in range(60))

        held.gate.clear()
        many = asyncio.create_task(call_of_many())
        await held.reached()
        one = asyncio.create_task(run("one", 5))
        await asyncio.sleep(0.01)
        held.gate.set()
        await asyncio.gather(many, one)
    assert finished.index("one") < 20, "after those who had a seat, and one turn"


async def test_a_full_queue_is_refused_at_once_and_says_when_to_come_back(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics, Limits(queue_capacity=3, batch_hypotheses=16)) as scheduler:
        seated = [asyncio.create_task(scheduler.submit(job(seed))) for seed in range(3)]
        await held.reached()
        seated += [asyncio.create_task(scheduler.submit(job(seed))) for seed in range(3, 7)]
        await asyncio.sleep(0.01)
        waiting = value(metrics, "queue_depth")
        refused = [seed for seed, task in enumerate(seated) if task.done()]
        with pytest.raises(QueueFull, match="3 sentences wait already") as caught:
            await scheduler.submit(job(8))
        assert 0.1 <= caught.value.retry_after_seconds <= 30
        held.gate.set()
        outcomes = await asyncio.gather(*seated, return_exceptions=True)
    assert waiting == 3
    assert [seed for seed, outcome in enumerate(outcomes) if isinstance(outcome, QueueFull)] == refused
    assert value(metrics, "queue_rejections_total", reason="queue_full") == 1 + len(refused)


async def test_a_job_that_follows_another_is_taken_by_a_full_queue(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics, Limits(queue_capacity=1)) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit(job(1)))]
        await held.reached()
        tasks += [asyncio.create_task(scheduler.submit(job(2)))]
        tasks += [asyncio.create_task(scheduler.submit(replace(job(seed), follows=True))) for seed in (3, 4)]
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFull, match="3 sentences wait already"):
            await scheduler.submit(job(5))
        held.gate.set()
        assert len(await asyncio.gather(*tasks)) == 4


async def test_where_one_answer_fails_its_error_is_raised_and_the_others_stop(
    held: HeldEngine, metrics: Metrics
) -> None:
    held.gate.clear()
    async with scheduling(held, metrics) as scheduler:
        with pytest.raises(DeadlinePassed):
            await together(scheduler.submit(job(seed), deadline) for seed, deadline in ((1, None), (2, 0.0), (3, None)))
        assert value(metrics, "queue_depth") == 0
        cancelled = sum(value(metrics, "cancellations_total", where=where) for where in ("queue", "decode"))
        assert cancelled == 2
        held.gate.set()


async def test_no_more_hypotheses_run_than_there_is_room_for(held: HeldEngine, metrics: Metrics) -> None:
    async with scheduling(held, metrics, Limits(batch_hypotheses=16)) as scheduler:
        await asyncio.gather(*(scheduler.submit(job(seed)) for seed in range(12)))
    assert max(held.rows) == 4


async def test_a_large_beam_that_waits_is_not_overtaken_for_ever(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics, Limits(batch_hypotheses=16)) as scheduler:
        finished: list[int] = []

        async def run(seed: int, beam_size: int) -> None:
            await scheduler.submit(job(seed, beam_size=beam_size))
            finished.append(beam_size)

        tasks = [asyncio.create_task(run(1, 1))]
        await held.reached()
        tasks += [asyncio.create_task(run(2, 16)), *(asyncio.create_task(run(seed, 1)) for seed in range(3, 9))]
        await asyncio.sleep(0.01)
        held.gate.set()
        await asyncio.gather(*tasks)
    assert finished.index(16) == 1


async def test_a_dropped_caller_costs_no_further_step(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics) as scheduler:
        task = asyncio.create_task(scheduler.submit(job(1)))
        await held.reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.gate.set()
        other = await scheduler.submit(job(2))
    assert other.decoded.batch_size == 1
    assert value(metrics, "cancellations_total", where="decode") == 1
    assert value(metrics, "cancelled_steps_saved_total") == job(1).most_steps
    assert value(metrics, "running_sentences") == 0


async def test_a_dropped_caller_who_waits_gives_up_his_place_in_the_queue(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics, Limits(queue_capacity=1)) as scheduler:
        seated = asyncio.create_task(scheduler.submit(job(1)))
        await held.reached()
        waiting = asyncio.create_task(scheduler.submit(job(2)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        successor = asyncio.create_task(scheduler.submit(job(3)))
        await asyncio.sleep(0.01)
        held.gate.set()
        await asyncio.gather(seated, successor)
    assert value(metrics, "cancellations_total", where="queue") == 1


async def test_a_deadline_is_answered_on_time_though_a_step_is_stuck(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    loop = asyncio.get_running_loop()
    async with scheduling(held, metrics) as scheduler:
        began = loop.time()
        with pytest.raises(DeadlinePassed, match="after 0 decoding steps"):
            await scheduler.submit(job(1), deadline=began + 0.05)
        assert loop.time() - began < 1
        held.gate.set()
    assert value(metrics, "deadline_drops_total", where="decode") == 1
    assert len(held.rows) == 1


async def test_a_deadline_that_has_passed_is_refused_before_any_work(held: HeldEngine, metrics: Metrics) -> None:
    async with scheduling(held, metrics) as scheduler:
        with pytest.raises(DeadlinePassed, match="nothing was done"):
            await scheduler.submit(job(1), deadline=asyncio.get_running_loop().time() - 1)
    assert held.rows == []


async def test_closing_tells_those_who_still_wait(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    scheduler = Scheduler(held, Limits(batch_hypotheses=16), metrics)
    tasks = [asyncio.create_task(scheduler.submit(job(seed))) for seed in range(9)]
    await held.reached()
    closing = asyncio.create_task(scheduler.close())
    await asyncio.sleep(0.01)
    held.gate.set()
    await closing
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, Draining) for outcome in outcomes)
    assert len(held.rows) == 1
    with pytest.raises(Draining, match="takes nothing new"):
        await scheduler.submit(job(99))


class LeavingEngine(Engine):
    """The real engine; once told to, the caller of a sentence leaves while the worker is about to step it."""

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self.leave: Callable[[], None] | None = None
        super().__init__(folder, "cpu", 1, metrics)

    def encode(self, sources: Any) -> Any:
        encoded = super().encode(sources)
        if self.leave:
            self.leave()
        return encoded


async def test_a_caller_who_leaves_just_before_his_first_step_harms_nobody(tiny_bundle: Path, metrics: Metrics) -> None:
    engine = LeavingEngine(tiny_bundle, metrics)
    loop = asyncio.get_running_loop()
    async with scheduling(engine, metrics) as scheduler:
        leaving = asyncio.create_task(scheduler.submit(job(1, beam_size=1)))
        staying = asyncio.create_task(scheduler.submit(job(2)))

        def leave() -> None:
            gone = threading.Event()
            loop.call_soon_threadsafe(leaving.cancel)
            loop.call_soon_threadsafe(lambda: loop.call_soon(gone.set))
            assert gone.wait(timeout=20)

        engine.leave = leave
        outcomes = await asyncio.gather(leaving, staying, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert isinstance(outcomes[1], Outcome)


async def test_a_failing_engine_is_reported_and_the_next_sentence_is_served(held: HeldEngine, metrics: Metrics) -> None:
    async with scheduling(held, metrics) as scheduler:
        failure = RuntimeError("out of memory")
        held.failures = iter([failure])
        with structlog.testing.capture_logs() as logs:
            outcomes = await asyncio.gather(*(scheduler.submit(job(seed)) for seed in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, EngineUnready) for outcome in outcomes)
        [log] = logs
        assert (log["event"], log["graph"], log["exc_info"]) == ("the engine failed", "decoder_step", failure)
        assert (await scheduler.submit(job(1))).decoded.hypotheses


async def test_a_failing_step_fails_those_of_its_batch_alone(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics) as scheduler:
        failing = [asyncio.create_task(scheduler.submit(job(seed, beam_size=1))) for seed in range(3)]
        others = [asyncio.create_task(scheduler.submit(job(seed, beam_size=4))) for seed in range(3)]
        await held.reached()  # the batch that is encoded first makes the first step
        held.failures = iter([RuntimeError("no more memory")])
        held.gate.set()
        failed = await asyncio.gather(*failing, return_exceptions=True)
        answered = await asyncio.gather(*others)
        assert all(isinstance(outcome, EngineUnready) for outcome in failed)
        assert [outcome.decoded.batch_size for outcome in answered] == [3, 3, 3]
        assert scheduler.health == "serving"
    assert value(metrics, "engine_rebuilds_total", reason="failing") == 0


async def test_thousands_of_arrivals_are_all_answered_or_refused(engine: Engine, metrics: Metrics) -> None:
    async with scheduling(engine, metrics, Limits(queue_capacity=64)) as scheduler:
        tasks = [asyncio.create_task(scheduler.submit(job(seed, beam_size=1))) for seed in range(2000)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    answered = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(answered) >= 64
    assert all(isinstance(outcome, QueueFull) for outcome in outcomes if isinstance(outcome, BaseException))


async def test_steps_batches_and_time_outside_the_runtime_are_metered(engine: Engine, metrics: Metrics) -> None:
    warming = value(metrics, "session_run_duration_seconds_sum", graph="decoder_step")
    async with scheduling(engine, metrics) as scheduler:
        outcome = await scheduler.submit(job(1))
    steps = value(metrics, "batch_executions_total", graph="decoder_step")
    assert steps >= len(outcome.decoded.hypotheses[0].token_ids)
    assert value(metrics, "batch_size_count") == value(metrics, "decode_step_duration_seconds_count") == steps
    assert value(metrics, "batch_executions_total", graph="encoder") == 1
    inside = value(metrics, "session_run_duration_seconds_sum", graph="decoder_step") - warming
    outside = value(metrics, "decode_step_overhead_seconds_total")
    assert outside > 0
    assert outside + inside == pytest.approx(value(metrics, "decode_step_duration_seconds_sum"))
