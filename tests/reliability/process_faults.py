"""Faults of callers, of the engine and of the process: who vanishes, what breaks, what is stopped, killed or frozen."""

import asyncio
import contextlib
import functools
import random
import signal
import time
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.reliability.faulty import ORDER_VARIABLE
from tests.reliability.load import PATHS, Manner
from tests.reliability.process import Service
from tests.reliability.stage import Found, Scene, Stage, staged, until

_WATCHDOG_SECONDS = 1.0
_CLOCKS = (3600, -3600, -86_400, 315_360_000, 0)  # seconds
_CLOCK_SECONDS = 20.0  # until the service has noticed
_CLOCK_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)
_FROZEN_SECONDS = 5.0
_POLL_SECONDS = 0.02
_LONGEST_CALL_SECONDS = 30.0


async def clients_vanish(scene: Scene) -> Found:
    """Half of the callers break their connection at some moment; the others must not notice."""

    def manner(chance: random.Random, method: str) -> Manner:
        transport: Literal["grpc", "http"] = chance.choice(("grpc", "http")) if method in PATHS else "grpc"
        return Manner(transport, chance.choice(("wait", "leave")), chance.uniform(0.001, 0.5))

    async with staged(scene, _service(scene), manner) as stage:
        async with stage.under_load():
            await asyncio.sleep(5.0)
        idle = await until(lambda: not stage.service.metrics().total("interlinear_requests_in_flight"))
    left = sum(noted.verdict == "gone" for noted in stage.noted)
    return Found("client vanishes", left, stage, idle, "recovery: until nothing was in flight")


async def engine_raises(scene: Scene) -> Found:
    """ONNX Runtime fails now and then, then again and again: the engine is loaded anew."""
    async with _on_faulty_runtime(scene) as stage:
        async with stage.under_load():
            # Five in a row are three of one of the two graphs at least.
            for order in ("raise 1", "raise 1", "raise 5"):
                await _ordered(stage, order)
                await asyncio.sleep(1.0)
        rebuilt = stage.service.metrics().total("interlinear_engine_rebuilds_total", reason="failing")
    missed = () if rebuilt else ("the engine was not loaded anew",)
    return Found("engine raises", 7, stage, stage.recovery_seconds(), f"loaded anew {rebuilt:.0f} times", missed)


async def engine_hangs(scene: Scene) -> Found:
    """A call of ONNX Runtime never returns: the watchdog gives its thread up and loads the engine anew."""
    async with _on_faulty_runtime(scene) as stage:
        async with stage.under_load():
            await _ordered(stage, "hang 1")
            unready = await asyncio.to_thread(_seconds_not_serving, stage.service)
        rebuilt = stage.service.metrics().total("interlinear_engine_rebuilds_total", reason="stuck")
    missed = () if rebuilt else ("the engine was not loaded anew",)
    remark = f"watchdog at {_WATCHDOG_SECONDS:g} s; health said NOT_SERVING for {unready:.1f} s"
    return Found("engine hangs", 1, stage, stage.recovery_seconds(), remark, missed)


async def engine_lost(scene: Scene) -> Found:
    """ONNX Runtime does not come back: the process ends with exit code 3, and its supervisor starts it anew."""
    async with _on_faulty_runtime(scene) as stage:
        async with stage.under_load():
            await _ordered(stage, "raise 1000000")
            await until(lambda: stage.service.events("draining"))
            leaving = time.perf_counter()
            code = await asyncio.to_thread(stage.service.ended)
            await asyncio.to_thread(stage.service.start)
            stage.away(leaving)
    missed = () if code == 3 else (f"exit code {code}",)
    return Found("engine does not come back", 1, stage, stage.recovery_seconds(), f"exit code {code}", missed)


async def terminated(scene: Scene) -> Found:
    """SIGTERM: everything accepted is answered, the exit code is 0, and another process takes over."""
    async with staged(scene, _service(scene)) as stage:
        async with stage.under_load():
            stage.service.process.terminate()
            await until(lambda: stage.service.events("draining"))
            leaving = time.perf_counter()
            code = await asyncio.to_thread(stage.service.ended)
            ended = time.perf_counter()
            await asyncio.to_thread(stage.service.start)
            stage.away(leaving)
    given_up = [event["abandoned"] for event in stage.service.events("stopped") if event["abandoned"]]
    missed = (*(() if code == 0 else (f"exit code {code}",)), *(("calls given up",) if given_up else ()))
    remark = f"gone after {ended - stage.began:.1f} s, exit code {code}"
    return Found("SIGTERM, started again", 1, stage, stage.recovery_seconds(), remark, missed)


async def killed(scene: Scene) -> Found:
    """SIGKILL: what was in flight is lost, as it must be; the next process answers as if nothing had been."""
    starts, kills = [], []
    async with staged(scene, _service(scene)) as stage:
        async with stage.under_load():
            for _ in range(3):
                kills.append(time.perf_counter())
                await asyncio.to_thread(stage.service.kill)
                starts.append(await asyncio.to_thread(stage.service.start))
                stage.away(kills[-1] - _LONGEST_CALL_SECONDS)
                await asyncio.sleep(2.0)
    lost = sum(
        stage.found_nobody(noted) and any(noted.started < at < noted.ended for at in kills) for noted in stage.noted
    )
    remark = f"recovery: from start to ready; {lost} calls were in flight and lost"
    return Found("SIGKILL, started again", 3, stage, max(starts), remark)


async def frozen(scene: Scene) -> Found:
    """The process stands still for a while, as a virtual machine that is moved; nobody is taken for stuck."""
    async with staged(scene, _service(scene, WATCHDOG_SECONDS=str(_WATCHDOG_SECONDS))) as stage:
        async with stage.under_load():
            stage.service.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(_FROZEN_SECONDS)
            stage.service.process.send_signal(signal.SIGCONT)
        rebuilt = stage.service.metrics().total("interlinear_engine_rebuilds_total")
    missed = ("the engine was loaded anew",) if rebuilt else ()
    return Found(f"process stopped for {_FROZEN_SECONDS:g} s", 1, stage, stage.recovery_seconds(), "", missed)


async def clock_jumps(scene: Scene) -> Found:
    """The clock of the machine jumps while calls with a deadline are under way; libfaketime moves it."""
    library = next((path for path in _CLOCK_LIBRARIES if Path(path).exists()), None)
    clock = scene.folder / "clock"
    clock.write_text("+0")
    service = _service(scene)
    if library is not None:
        service.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",  # seconds: to look at the file at every call would cost more than the calls
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # nor does a machine's, when its clock is set
        }
    missed = []
    async with staged(scene, service, lambda chance, method: Manner("grpc", "deadline", 60.0)) as stage:
        async with stage.under_load():
            for offset in _CLOCKS:
                clock.write_text(f"{offset:+d}")
                try:
                    await until(functools.partial(_has_jumped, service, offset), _CLOCK_SECONDS)
                except TimeoutError:
                    missed.append(f"not done: the clock did not jump by {offset} s; is libfaketime installed?")
                await asyncio.sleep(1.0)
    remark = "an hour on and back, a day back, ten years on, and right again"
    return Found("clock jumps", len(_CLOCKS), stage, stage.recovery_seconds(), remark, tuple(missed))


def _has_jumped(service: Service, offset: int) -> bool:
    """Return whether the service thinks it is so many seconds later than it is, give or take a minute."""
    with urllib.request.urlopen(f"http://{service.http_address}/healthz", timeout=30) as reply:
        says = parsedate_to_datetime(reply.headers["date"]).timestamp()
    return abs(says - time.time() - offset) < 60


def _service(scene: Scene, **settings: str) -> Service:
    return Service({"BUNDLE": str(scene.bundle), **settings}, scene.folder / "log")


def _on_faulty_runtime(scene: Scene) -> "contextlib.AbstractAsyncContextManager[Stage]":
    service = _service(scene, WATCHDOG_SECONDS=str(_WATCHDOG_SECONDS))
    service.module = "tests.reliability.faulty"
    service.environment = {ORDER_VARIABLE: str(_order_file(scene))}
    return staged(scene, service)


def _order_file(scene: Scene) -> Path:
    return scene.folder / "order"


async def _ordered(stage: Stage, order: str) -> None:
    """Give an order to the runtime, and wait until it is taken."""
    written = _order_file(stage.scene).with_suffix(".new")
    written.write_text(order)
    written.rename(_order_file(stage.scene))
    await until(lambda: not _order_file(stage.scene).exists())


def _seconds_not_serving(service: Service) -> float:
    """Return how long health checks say NOT_SERVING before an engine has been loaded anew and a while after."""
    seconds, end = 0.0, time.perf_counter() + 4 * _WATCHDOG_SECONDS
    with grpc.insecure_channel(service.address) as channel:
        checks = health_pb2_grpc.HealthStub(channel)
        while (now := time.perf_counter()) < end:
            serving = checks.Check(health_pb2.HealthCheckRequest(), timeout=5).status
            time.sleep(_POLL_SECONDS)
            if serving != health_pb2.HealthCheckResponse.SERVING:
                seconds += time.perf_counter() - now
    return seconds
