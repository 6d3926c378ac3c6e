import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from bundle.search import EncodedBatch, StepOutput
from service import watchdog
from service.admission import Limits
from service.engine import Engine
from service.errors import BundleRefused, EngineUnready
from service.metrics import Metrics
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from service.scheduler import Scheduler
from service.watchdog import Health
from service.worker import left_behind
from tests.service.edge import ADDRESSES, ROOT
from tests.service.held_engine import HeldEngine, job, scheduling, until
from tests.service.samples import value

IMPATIENT = Limits(watchdog_seconds=0.2)

pytestmark = pytest.mark.usefixtures("logs")


async def test_a_stuck_engine_is_replaced_and_who_waited_is_told_at_once(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    seen: list[tuple[Health, float]] = []
    async with scheduling(held, metrics, replace(IMPATIENT, batch_hypotheses=16)) as scheduler:
        scheduler.observe(lambda health: seen.append((health, value(metrics, "engine_healthy"))))
        tasks = [asyncio.create_task(scheduler.submit(job(seed))) for seed in range(9)]
        await held.reached()
        assert value(metrics, "engine_healthy") == 1
        began = time.perf_counter()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert 0.15 < time.perf_counter() - began < 2
        assert all(isinstance(outcome, EngineUnready) for outcome in outcomes)
        assert scheduler.health == "rebuilding"
        with pytest.raises(EngineUnready, match="is being loaded anew; try again"):
            await scheduler.submit(job(1))
        assert (
            value(metrics, "queue_depth") == value(metrics, "queue_tokens") == value(metrics, "running_sentences") == 0
        )
        await until(lambda: scheduler.health == "serving")
        assert (await scheduler.submit(job(1))).decoded.hypotheses
    assert seen == [("rebuilding", 0), ("serving", 1)]
    assert value(metrics, "engine_rebuilds_total", reason="stuck") == 1


async def test_a_lane_that_hangs_is_found_though_another_goes_on(held: HeldEngine, metrics: Metrics) -> None:
    held.hold_at = 1
    async with scheduling(held, metrics, replace(IMPATIENT, lanes=2)) as scheduler:
        stuck = asyncio.create_task(scheduler.submit(job(1)))
        await until(lambda: not held.gate.is_set())
        held.faulty = ""  # the other lane's calls pass
        answered = 0
        with pytest.raises(EngineUnready):
            while answered < 10_000:
                await scheduler.submit(job(2))
                answered += 1
        with pytest.raises(EngineUnready):
            await stuck
        assert answered > 1
        await until(lambda: scheduler.health == "serving")
        assert (await scheduler.submit(job(1))).decoded.hypotheses
    assert value(metrics, "engine_rebuilds_total", reason="stuck") == 1


async def test_a_lane_that_rests_is_not_stuck(tiny_bundle: Path, metrics: Metrics) -> None:
    """One caller keeps one lane at work for longer than a call may take; the others have nothing to do."""
    async with scheduling(Engine(tiny_bundle, "cpu", 1, metrics), metrics, replace(IMPATIENT, lanes=3)) as scheduler:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.6:
            await scheduler.submit(job(2))
        assert scheduler.health == "serving"


@pytest.mark.parametrize("graph", ["encoder", "decoder_step"])
async def test_an_engine_that_fails_three_times_in_a_row_is_replaced(
    tiny_bundle: Path, metrics: Metrics, graph: str
) -> None:
    """One call of the other graph succeeds in between, which must not count."""
    engine = HeldEngine(tiny_bundle, metrics, graph)
    engine.failures = itertools.repeat(RuntimeError("CUDA error 700"))
    async with scheduling(engine, metrics, IMPATIENT) as scheduler:
        for _ in range(3):
            assert scheduler.health == "serving"
            with pytest.raises(EngineUnready):
                await scheduler.submit(job(1))
        await until(lambda: scheduler.health == "serving")
        assert (await scheduler.submit(job(1))).decoded.hypotheses
    assert value(metrics, "engine_rebuilds_total", reason="failing") == 1


async def test_an_engine_that_fails_now_and_then_is_kept(held: HeldEngine, metrics: Metrics) -> None:
    async with scheduling(held, metrics, IMPATIENT) as scheduler:
        for _ in range(4):
            held.failures = iter([RuntimeError("no more memory")] * 2)
            for _ in range(2):
                with pytest.raises(EngineUnready):
                    await scheduler.submit(job(1))
            assert (await scheduler.submit(job(1))).decoded.hypotheses
        assert scheduler.health == "serving"
    assert value(metrics, "engine_rebuilds_total", reason="failing") == 0


async def test_a_thread_that_wakes_up_after_it_was_given_up_changes_nothing(
    held: HeldEngine, metrics: Metrics, logs: list[MutableMapping[str, Any]]
) -> None:
    held.gate.clear()
    async with scheduling(held, metrics, IMPATIENT) as scheduler:
        doomed = asyncio.create_task(scheduler.submit(job(1)))
        await held.reached()
        stuck = next(thread for thread in threading.enumerate() if thread.name == "interlinear-engine")
        with pytest.raises(EngineUnready):
            await doomed
        await until(lambda: scheduler.health == "serving")
        expected = (await scheduler.submit(job(2))).decoded.hypotheses
        steps = value(metrics, "batch_executions_total", graph="decoder_step")
        logs.clear()
        held.gate.set()
        await asyncio.to_thread(stuck.join, 20)
        assert not stuck.is_alive()
        assert value(metrics, "batch_executions_total", graph="decoder_step") == steps
        assert value(metrics, "running_sentences") == 0
        assert logs == []
        assert (await scheduler.submit(job(2))).decoded.hypotheses == expected
    assert value(metrics, "engine_rebuilds_total", reason="stuck") == 1


async def test_an_engine_that_is_slow_but_moves_is_kept(tiny_bundle: Path, metrics: Metrics) -> None:
    class Slow(Engine):
        def step(self, encoded: EncodedBatch, *arguments: Any) -> StepOutput:
            time.sleep(0.03)
            return super().step(encoded, *arguments)

    async with scheduling(Slow(tiny_bundle, "cpu", 1, metrics), metrics, Limits(watchdog_seconds=0.15)) as scheduler:
        began = time.perf_counter()
        await asyncio.gather(*(scheduler.submit(job(seed)) for seed in range(4)))
        assert time.perf_counter() - began > 0.3
        assert scheduler.health == "serving"


async def test_a_loop_that_was_held_up_takes_nobody_for_stuck(held: HeldEngine, metrics: Metrics) -> None:
    """So with a process that was stopped and goes on, whose clocks have gone on too."""
    held.gate.clear()
    async with scheduling(held, metrics, Limits(watchdog_seconds=0.4)) as scheduler:
        task = asyncio.create_task(scheduler.submit(job(1)))
        await held.reached()
        time.sleep(1.0)  # noqa: ASYNC251 — that is the fault
        await asyncio.sleep(0.1)
        assert scheduler.health == "serving"
        held.gate.set()
        assert (await task).decoded.hypotheses


async def test_an_engine_is_found_stuck_though_every_caller_leaves_sooner(held: HeldEngine, metrics: Metrics) -> None:
    held.gate.clear()
    async with scheduling(held, metrics, IMPATIENT) as scheduler:
        loop, left = asyncio.get_running_loop(), 0
        async with asyncio.timeout(20):
            while scheduler.health == "serving":
                with pytest.raises(Exception, match="deadline|did not answer"):
                    await scheduler.submit(job(1), deadline=loop.time() + 0.02)
                left += 1
        assert left > 5


async def test_an_idle_engine_is_not_looked_at(held: HeldEngine, metrics: Metrics) -> None:
    async with scheduling(held, metrics, Limits(watchdog_seconds=0.05)) as scheduler:
        await scheduler.submit(job(1))
        await asyncio.sleep(0.3)
        assert scheduler.health == "serving"
        assert scheduler._watchdog._next_look is None
        assert (await scheduler.submit(job(1))).decoded.hypotheses


class Hopeless(HeldEngine):
    """Fails always, and so does all that is loaded in its place."""

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        super().__init__(folder, metrics)
        self.failures = itertools.repeat(RuntimeError("the GPU has fallen off the bus"))

    def reloaded(self) -> Engine:
        bundle, _, _, metrics = self._made_of
        return Hopeless(bundle.folder, metrics)


async def test_after_three_rebuilds_in_five_minutes_the_process_is_to_end(tiny_bundle: Path, metrics: Metrics) -> None:
    seen: list[Health] = []
    async with scheduling(Hopeless(tiny_bundle, metrics), metrics, IMPATIENT) as scheduler:
        scheduler.observe(seen.append)
        while scheduler.health != "failed":
            with pytest.raises(EngineUnready):
                await scheduler.submit(job(1))
            await until(lambda: scheduler.health != "rebuilding")
        with pytest.raises(EngineUnready, match="this process is about to end"):
            await scheduler.submit(job(1))
    assert seen == ["rebuilding", "serving"] * 3 + ["rebuilding", "failed"]
    assert value(metrics, "engine_rebuilds_total", reason="failing") == 3
    assert value(metrics, "engine_healthy") == 0


async def test_rebuilds_of_long_ago_do_not_count(
    held: HeldEngine, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "WITHIN_SECONDS", 0.0)
    async with scheduling(held, metrics, IMPATIENT) as scheduler:
        for _ in range(6):
            scheduler._watchdog._give_up("failing")
            await until(lambda: scheduler.health == "serving")
    assert value(metrics, "engine_rebuilds_total", reason="failing") == 6


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts at loading and closing follow each other quickly."""
    for name, seconds in (("_PAUSE_SECONDS", 0.05), ("_LOAD_SECONDS", 5.0), ("_LAST_STEP_SECONDS", 0.1)):
        monkeypatch.setattr(watchdog, name, seconds)


async def test_what_becomes_of_the_folder_meanwhile_does_not_matter(
    tiny_bundle: Path, tmp_path: Path, metrics: Metrics
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    engine = HeldEngine(folder, metrics)
    engine.gate.clear()
    shutil.rmtree(folder)
    async with scheduling(engine, metrics, IMPATIENT) as scheduler:
        with pytest.raises(EngineUnready):
            await scheduler.submit(job(1))
        await until(lambda: scheduler.health == "serving")
        assert (await scheduler.submit(job(1))).decoded.hypotheses


@pytest.mark.usefixtures("hasty")
async def test_what_cannot_be_loaded_is_tried_three_times_before_the_process_is_to_end(
    held: HeldEngine, metrics: Metrics, logs: list[MutableMapping[str, Any]]
) -> None:
    bundle, *others = held._made_of
    damaged = replace(bundle, files={name: content[:-1] + b"?" for name, content in bundle.files.items()})
    held._made_of = (damaged, *others)  # type: ignore[assignment]
    async with scheduling(held, metrics, IMPATIENT) as scheduler:
        scheduler._watchdog._give_up("stuck")
        await until(lambda: scheduler.health == "failed")
    refusals = [log["exc_info"] for log in logs if log["event"] == "the engine could not be loaded anew"]
    assert len(refusals) == 3 and all("was damaged in this process's memory" in str(refusal) for refusal in refusals)


@pytest.mark.usefixtures("hasty")
async def test_loading_that_fails_for_a_while_is_tried_again(tiny_bundle: Path, metrics: Metrics) -> None:
    class LoadedLater(HeldEngine):
        attempts = 0

        def reloaded(self) -> Engine:
            LoadedLater.attempts += 1
            if LoadedLater.attempts < 3:
                raise BundleRefused("the device has no memory left")
            return super().reloaded()

    async with scheduling(LoadedLater(tiny_bundle, metrics), metrics, IMPATIENT) as scheduler:
        scheduler._watchdog._give_up("stuck")
        await until(lambda: scheduler.health == "serving")
        assert (await scheduler.submit(job(1))).decoded.hypotheses
    assert value(metrics, "engine_rebuilds_total", reason="stuck") == 3


async def test_the_loop_stays_free_while_an_engine_is_loaded(tiny_bundle: Path, metrics: Metrics) -> None:
    free = threading.Event()

    class LoadedSlowly(HeldEngine):
        def reloaded(self) -> Engine:
            assert free.wait(timeout=20), "the loop had no turn"
            return super().reloaded()

    async with scheduling(LoadedSlowly(tiny_bundle, metrics), metrics, IMPATIENT) as scheduler:
        scheduler._watchdog._give_up("failing")
        await asyncio.sleep(0.05)
        free.set()
        await until(lambda: scheduler.health == "serving")


@pytest.mark.usefixtures("hasty")
async def test_loading_that_hangs_is_given_up_too(
    tiny_bundle: Path, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_LOAD_SECONDS", 0.1)
    released = threading.Event()

    class NeverLoaded(HeldEngine):
        def reloaded(self) -> Engine:
            assert released.wait(60)
            return super().reloaded()

    async with scheduling(NeverLoaded(tiny_bundle, metrics), metrics, IMPATIENT) as scheduler:
        scheduler._watchdog._give_up("stuck")
        await until(lambda: scheduler.health == "failed")
        released.set()


@pytest.mark.usefixtures("hasty")
async def test_closing_does_not_wait_for_a_thread_that_hangs(
    held: HeldEngine, metrics: Metrics, logs: list[MutableMapping[str, Any]]
) -> None:
    held.gate.clear()
    scheduler = Scheduler(held, Limits(), metrics)
    task = asyncio.create_task(scheduler.submit(job(1)))
    await held.reached()
    await scheduler.close()
    assert logs[0]["event"] == "a thread that hangs is left behind"
    assert left_behind()
    await asyncio.gather(task, return_exceptions=True)
    held.gate.set()
    await until(lambda: not left_behind())


async def test_closing_ends_a_rebuild(held: HeldEngine, metrics: Metrics) -> None:
    scheduler = Scheduler(held, Limits(), metrics)
    scheduler._watchdog._give_up("failing")
    await scheduler.close()
    assert scheduler.health == "rebuilding"
    await until(lambda: not left_behind())


ENDLESS = """
import onnx, onnxruntime
import numpy as np
from onnx import TensorProto, helper

def endless_session():
    scalar, vector = ([], [1])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["goes_on"]), helper.make_node("Identity", ["x"], ["y"])], "body",
        [helper.make_tensor_value_info("turn", TensorProto.INT64, []),
         helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "go", "x0"], ["out"], body=body)], "endless",
        [helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

ENDLESS_INPUTS = {"go": np.array(True), "x0": np.zeros(1, np.float32)}
"""


async def test_a_call_of_onnx_runtime_that_never_ends_is_ended_where_that_is_possible(
    tiny_bundle: Path, metrics: Metrics
) -> None:
    """A loop inside a graph goes from node to node, so it can be ended; a kernel that hangs cannot."""
    made: dict[str, Any] = {}
    exec(ENDLESS, made)
    session = made["endless_session"]()

    class Endless(Engine):
        def step(self, encoded: EncodedBatch, *arguments: Any) -> StepOutput:
            session.run(None, made["ENDLESS_INPUTS"], self._run_options)
            raise AssertionError("it ended")

    engine = Engine(tiny_bundle, "cpu", 1, metrics)
    engine.__class__ = Endless
    async with scheduling(engine, metrics, IMPATIENT) as scheduler:
        with pytest.raises(EngineUnready):
            await scheduler.submit(job(1))
        await until(lambda: scheduler.health == "serving")
        await until(lambda: sum(thread.name == "interlinear-engine" for thread in threading.enumerate()) == 1)
        assert (await scheduler.submit(job(1))).decoded.hypotheses


HANGING_SERVICE = (
    ENDLESS
    + """
import sys
from service import engine
from service.__main__ import main

session, step = endless_session(), engine.Engine.step

def hanging_step(*arguments):
    if arguments[1].source_lengths.max() == 1:  # it warms up, or is tried
        return step(*arguments)
    session.run(None, ENDLESS_INPUTS)  # without run options there is no way to end it

engine.Engine.step = hanging_step
sys.exit(main())
"""
)


@contextmanager
def hanging_service(bundle: Path, **settings: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a service whose steps hang inside ONNX Runtime for ever; yield its process and where it speaks gRPC."""
    given = {name.upper(): "127.0.0.1:0" for name in ADDRESSES} | {"BUNDLE": str(bundle), "THREADS": "1"}
    environment = os.environ | {f"INTERLINEAR_{name}": value for name, value in (given | settings).items()}
    command = [sys.executable, "-c", HANGING_SERVICE]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if '"serving"' in line)
            yield process, json.loads(line)["grpc_address"]
        finally:
            process.kill()


def status_of_a_call(address: str) -> grpc.StatusCode:
    """Ask for a translation that will never be made; return how that ended."""
    with grpc.insecure_channel(address) as channel:
        try:
            pb_grpc.TranslationServiceStub(channel).Translate(pb.TranslateRequest(texts=["The garden is small."]))
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    raise AssertionError("it was answered")


def test_a_process_whose_engines_hang_one_after_another_ends_with_code_3(tiny_bundle: Path) -> None:
    with hanging_service(tiny_bundle, WATCHDOG_SECONDS="0.3", DRAIN_SECONDS="1") as (process, address):
        with ThreadPoolExecutor(1) as calls:
            while process.poll() is None:
                code = calls.submit(status_of_a_call, address).result(timeout=60)
                assert code is grpc.StatusCode.UNAVAILABLE
                time.sleep(0.05)
        assert process.wait(timeout=60) == 3
        assert process.stderr is not None
        said = process.stderr.read()
    assert said.count("the engine is given up") == 4
    assert "Traceback" not in said and "terminate called" not in said


def test_a_process_whose_engine_hangs_still_drains_and_ends_with_code_2(tiny_bundle: Path) -> None:
    with hanging_service(tiny_bundle, DRAIN_DELAY_SECONDS="0", DRAIN_SECONDS="0.5") as (process, address):
        with ThreadPoolExecutor(1) as calls:
            call = calls.submit(status_of_a_call, address)
            time.sleep(0.5)
            process.terminate()
            assert call.result(timeout=60) is grpc.StatusCode.UNAVAILABLE
        began = time.perf_counter()
        assert process.wait(timeout=60) == 2
        assert time.perf_counter() - began < 15
        assert process.stderr is not None
        said = process.stderr.read()
    assert "a thread that hangs is left behind" in said and "terminate called" not in said
