"""Faults while many callers are being served: nobody gets a wrong answer or none, and afterwards all is as before.

Answers are compared to the bit with those of an engine that nobody disturbed.
"""

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bundle import manifest as manifests
from bundle import tables as component_tables
from bundle.manifest import TABLES_FILE
from bundle.tokenizer import Tokenizer
from service.admission import Limits
from service.batch import Decoded, Job
from service.contrast import Comparer, Question
from service.engine import Engine
from service.errors import DeadlinePassed, DeadlineTooShort, EngineUnready, QueueFull, ServiceError
from service.metrics import Metrics
from service.models.loading import loaded
from service.scheduler import Scheduler
from service.settings import read_settings
from service.translation import TranslationOptions
from service.translator import Translator
from service.what_if import Intervention, WhatIf
from tests.service.held_engine import HeldEngine, assert_same, job, scheduling, until
from tests.service.samples import value
from tests.tiny_bundle import SENTENCES, TinyBundle

POOL = 40  # sentences
CALLERS = 60
LIMITS = Limits(batch_hypotheses=40, watchdog_seconds=0.3)

pytestmark = pytest.mark.usefixtures("logs")

Undisturbed = dict[int, tuple[Job, Decoded]]


@pytest.fixture(scope="module")
def undisturbed(tiny_bundle: Path) -> Undisturbed:
    """Jobs of all kinds, and what becomes of each where nothing goes wrong and nothing else runs."""
    metrics = Metrics.on(CollectorRegistry())
    engine = Engine(tiny_bundle, "cpu", 1, metrics)

    def made(seed: int) -> Job:
        plain = job(seed, beam_size=(1, 4)[seed % 2], trace=seed % 3 == 0, prefix=(50, 51) if seed % 5 == 0 else ())
        return replace(plain, target_ids=(60, 61, 62, 3)) if seed % 7 == 0 else plain

    async def run() -> Undisturbed:
        async with scheduling(engine, metrics) as scheduler:
            jobs = [made(seed) for seed in range(POOL)]
            return {seed: (it, (await scheduler.submit(it)).decoded) for seed, it in enumerate(jobs)}

    return asyncio.run(run())


class Load:
    """Callers who ask one thing after another until they are told to stop; some leave, some have little time.

    Attributes:
        ended: How their calls ended, by name.
    """

    def __init__(self, scheduler: Scheduler, undisturbed: Undisturbed) -> None:
        self.ended: Counter[str] = Counter()
        self._scheduler = scheduler
        self._undisturbed = undisturbed
        self._stopping = False
        self._tasks = [asyncio.create_task(self._caller(seed)) for seed in range(CALLERS)]

    async def stop(self) -> None:
        """Return when every caller has had his last answer."""
        self._stopping = True
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)

    async def _caller(self, seed: int) -> None:
        generator = random.Random(seed)
        while not self._stopping:
            await self._call(generator)
            await asyncio.sleep(0.002)  # some are refused at once

    async def _call(self, generator: random.Random) -> None:
        wanted, expected = self._undisturbed[generator.randrange(POOL)]
        manner = generator.choice(["waits", "waits", "leaves", "has little time"])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + generator.uniform(0, 0.1) if manner == "has little time" else None
        call = asyncio.create_task(self._scheduler.submit(wanted, deadline))
        if manner == "leaves":
            loop.call_later(generator.uniform(0, 0.05), call.cancel)
        try:
            outcome = await call
        except asyncio.CancelledError:
            assert manner == "leaves"
            self.ended["left"] += 1
        except (EngineUnready, DeadlinePassed, QueueFull) as error:
            assert manner == "has little time" or not isinstance(error, DeadlinePassed)
            self.ended[type(error).__name__] += 1
        else:
            assert_same(outcome.decoded, expected)
            self.ended["answered"] += 1


async def assert_as_before(scheduler: Scheduler, metrics: Metrics, undisturbed: Undisturbed) -> None:
    """Nothing is left of what went before, and every job is answered as if there had been no fault."""
    await until(lambda: scheduler.health == "serving")
    for name in ("queue_depth", "queue_tokens", "running_sentences"):
        await until(lambda name=name: value(metrics, name) == 0)  # type: ignore[misc]
    assert not scheduler._open
    outcomes = await asyncio.gather(*(scheduler.submit(wanted) for wanted, _ in undisturbed.values()))
    for outcome, (_, expected) in zip(outcomes, undisturbed.values(), strict=True):
        assert_same(outcome.decoded, expected)


@pytest.mark.parametrize("graph", ["encoder", "decoder_step"])
@pytest.mark.parametrize("fault", ["raises once", "raises always", "hangs", "hangs and wakes"])
async def test_whatever_the_engine_does_nobody_waits_for_ever_or_gets_a_wrong_answer(
    tiny_bundle: Path, metrics: Metrics, undisturbed: Undisturbed, graph: str, fault: str
) -> None:
    engine = HeldEngine(tiny_bundle, metrics, graph)
    async with scheduling(engine, metrics, LIMITS) as scheduler:
        load = Load(scheduler, undisturbed)
        await until(lambda: load.ended["answered"] >= 30)
        answered = load.ended["answered"]
        if fault == "raises once":
            engine.failures = iter([RuntimeError("no more memory")])
        elif fault == "raises always":
            engine.failures = itertools.repeat(RuntimeError("no more memory"))
        else:
            engine.gate.clear()
        await until(lambda: load.ended["EngineUnready"] > 0)
        rebuilt = fault != "raises once"
        if rebuilt:
            await until(
                lambda: sum(value(metrics, "engine_rebuilds_total", reason=why) for why in ("stuck", "failing")) > 0
            )
        await until(lambda: scheduler.health == "serving")
        if fault == "hangs and wakes":
            engine.gate.set()
        await until(lambda: load.ended["answered"] >= answered + 30)
        await load.stop()
        await assert_as_before(scheduler, metrics, undisturbed)
    assert load.ended["left"] and load.ended["DeadlinePassed"]
    reason = "failing" if fault == "raises always" else "stuck"
    assert value(metrics, "engine_rebuilds_total", reason=reason) == int(rebuilt)


async def test_an_engine_that_hangs_again_and_again_is_replaced_each_time(
    tiny_bundle: Path, metrics: Metrics, undisturbed: Undisturbed
) -> None:
    released = threading.Event()

    class HangsLater(HeldEngine):
        """Makes 50 calls, and hangs; so does what is loaded in its place, twice."""

        left = 2

        def _pass(self, graph: str, rows: int) -> None:
            super()._pass(graph, rows)
            if self.calls >= 50 and self.faulty:
                released.wait(60)

        def reloaded(self) -> Engine:
            HangsLater.left -= 1
            bundle, _, _, metrics = self._made_of
            return HangsLater(bundle.folder, metrics) if HangsLater.left else super().reloaded()

    async with scheduling(HangsLater(tiny_bundle, metrics), metrics, LIMITS) as scheduler:
        load = Load(scheduler, undisturbed)
        await until(lambda: value(metrics, "engine_rebuilds_total", reason="stuck") == 2)
        released.set()
        await until(lambda: scheduler.health == "serving")
        await load.stop()
        await assert_as_before(scheduler, metrics, undisturbed)
    assert load.ended["answered"] and load.ended["EngineUnready"]


async def test_the_clock_on_the_wall_may_jump(
    tiny_bundle: Path, metrics: Metrics, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([0.0, 1e9, -1e9, 3600.0])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * (real() + next(jumps))))
    async with scheduling(HeldEngine(tiny_bundle, metrics), metrics, LIMITS) as scheduler:
        load = Load(scheduler, undisturbed)
        await until(lambda: load.ended["answered"] >= 100)
        outcome = await scheduler.submit(undisturbed[1][0])
        assert 0 <= outcome.queue_seconds < 30 and 0 < outcome.encode_seconds < 30 and 0 < outcome.decode_seconds < 30
        await load.stop()
        await assert_as_before(scheduler, metrics, undisturbed)
    assert not load.ended["EngineUnready"]


@pytest.mark.parametrize("ending", ["leaves", "deadline"])
@pytest.mark.parametrize("stage", ["in the queue", "at the encoder", "at the first step", "between steps"])
async def test_a_caller_may_go_at_any_stage_and_costs_no_further_step(
    tiny_bundle: Path, metrics: Metrics, undisturbed: Undisturbed, stage: str, ending: str
) -> None:
    engine = HeldEngine(tiny_bundle, metrics, "encoder" if stage == "at the encoder" else "decoder_step")
    loop = asyncio.get_running_loop()
    going, _ = undisturbed[1]
    async with scheduling(engine, metrics, Limits(batch_hypotheses=16)) as scheduler:
        neighbors = []
        if stage == "in the queue":
            engine.gate.clear()
            neighbors = [asyncio.create_task(scheduler.submit(undisturbed[seed][0])) for seed in (3, 9, 11, 13)]
            await engine.reached()
        else:
            engine.hold_at = 4 if stage == "between steps" else 1
        began = loop.time()
        call = asyncio.create_task(scheduler.submit(going, began + 0.15 if ending == "deadline" else None))
        await until(lambda: value(metrics, "queue_depth") == 1 if neighbors else not engine.gate.is_set())
        if ending == "leaves":
            call.cancel()
        with pytest.raises((asyncio.CancelledError, DeadlinePassed)):
            await call
        assert loop.time() - began < 5
        queued = bool(neighbors)
        assert value(metrics, "queue_depth") == 0, "the place in the queue is free at once"
        name = "deadline_drops_total" if ending == "deadline" else "cancellations_total"
        assert value(metrics, name, where="queue" if queued else "decode") == 1
        made = 3 if stage == "between steps" else 0
        assert value(metrics, "cancelled_steps_saved_total") == going.most_steps - made
        rows = len(engine.rows)
        engine.gate.set()
        await asyncio.gather(*neighbors)
        await until(lambda: scheduler._watchdog.worker.queue.idle)
        assert neighbors or len(engine.rows) == rows, "but the call that was being made"
        await assert_as_before(scheduler, metrics, undisturbed)


async def test_a_deadline_is_refused_at_once_where_the_queue_is_too_long_for_it(
    tiny_bundle: Path, metrics: Metrics, undisturbed: Undisturbed
) -> None:
    engine = HeldEngine(tiny_bundle, metrics)
    loop = asyncio.get_running_loop()
    async with scheduling(engine, metrics, Limits(batch_hypotheses=16, queue_capacity=1000)) as scheduler:
        wanted = undisturbed[3][0]
        engine.hold_at = 200
        tasks = [asyncio.create_task(scheduler.submit(wanted)) for _ in range(300)]
        await until(lambda: not engine.gate.is_set())
        with pytest.raises(DeadlineTooShort, match="wait already, this one would for some .* nothing was started"):
            await scheduler.submit(wanted, loop.time() + 0.001)
        ample = asyncio.create_task(scheduler.submit(wanted, loop.time() + 60))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(ample, *tasks)
        await until(lambda: value(metrics, "queue_depth") == 0)
        await scheduler.submit(wanted, loop.time() + 5)
    assert value(metrics, "queue_rejections_total", reason="deadline") == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("use_case", ["what if", "contrast", "alternatives"])
async def test_all_sentences_of_a_call_leave_with_its_caller(
    tiny_bundle: Path, metrics: Metrics, use_case: str, share: float
) -> None:
    """Those that follow others too, whether they wait or have a seat; after that share of the call's steps."""
    engine = HeldEngine(tiny_bundle, metrics)
    tables = component_tables.read(tiny_bundle / TABLES_FILE)
    async with scheduling(engine, metrics, Limits(batch_hypotheses=16, queue_capacity=1)) as scheduler:
        translator = Translator(scheduler, Tokenizer(tiny_bundle / "tokenizer.model"), engine.manifest, metrics)
        options = TranslationOptions(alignment=True)
        question = Question(SENTENCES[6], None, options, 0)
        what_if, comparer = WhatIf(translator, tables, metrics), Comparer(translator, tables, metrics)
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "what if": lambda: what_if.answer(SENTENCES[6], options, Intervention(masked_source_words=(0,))),
            "contrast": lambda: comparer.contrast(question, "maison"),
            "alternatives": lambda: comparer.alternatives(question, 5),
        }
        await calls[use_case]()
        steps = len(engine.rows)
        engine.hold_at = steps + 1 + int(share * steps)
        task = asyncio.create_task(calls[use_case]())
        await until(lambda: not engine.gate.is_set())
        await asyncio.sleep(0.02)  # who follows has come to the queue by now
        sentences = len(scheduler._open)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sentences >= 1 and not scheduler._open
        assert value(metrics, "queue_depth") == 0
        assert sum(value(metrics, "cancellations_total", where=where) for where in ("queue", "decode")) == sentences
        assert value(metrics, "cancelled_steps_saved_total") > 0
        calls_before = engine.calls
        engine.gate.set()
        await until(lambda: scheduler._watchdog.worker.queue.idle)
        assert engine.calls <= calls_before + 1, "but the call that was being made"


async def test_the_reverse_pass_of_an_alignment_leaves_with_its_caller(tmp_path: Path) -> None:
    forward = TinyBundle(with_posterior=True).write(tmp_path / "forward")
    backward = TinyBundle(hidden=16, with_tables=False, with_posterior=True).write(tmp_path / "backward")
    manifest = manifests.read(backward)
    manifests.write(backward, replace(manifest, bundle_id="back", source_language="fr", target_language="en"))
    metrics = Metrics.on(CollectorRegistry())
    settings = read_settings(bundle=forward, reverse_bundle=backward, threads=1)
    async with loaded(settings, metrics) as model:
        reverse = model.translator._aligner._reverse
        engine = HeldEngine(backward, metrics)
        engine.gate.clear()
        async with scheduling(engine, metrics, LIMITS) as scheduler:
            assert isinstance(reverse, Translator)
            reverse._scheduler = scheduler
            options = TranslationOptions(alignment=True, alignment_method="union")
            task = asyncio.create_task(model.translator.translate(SENTENCES[6], options))
            await engine.reached()
            assert len(scheduler._open) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not scheduler._open
            engine.gate.set()
            await until(lambda: len(engine.rows) == 1 and scheduler._watchdog.worker.queue.idle)


async def test_errors_of_the_engine_name_no_text(
    tiny_bundle: Path, metrics: Metrics, logs: list[MutableMapping[str, Any]]
) -> None:
    engine = HeldEngine(tiny_bundle, metrics)
    engine.failures = itertools.repeat(RuntimeError("no more memory"))
    async with scheduling(engine, metrics, LIMITS) as scheduler:
        translator = Translator(scheduler, Tokenizer(tiny_bundle / "tokenizer.model"), engine.manifest, metrics)
        told = ""
        for _ in range(4):
            with pytest.raises(ServiceError) as caught:
                await translator.translate("house Zanzibar", TranslationOptions())
            told += str(caught.value)
    assert "Zanzibar" not in told + str(logs)
