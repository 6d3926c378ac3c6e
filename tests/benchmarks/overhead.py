"""What gRPC costs over the engine that stands behind it, and alignments over translations; in turns, within one run.

The engine's own pace is that of a scheduler in this process, called with the same sentences by as many callers. The
service has a process of its own, on the same processors as its callers, whose work so counts against it.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import grpc
from prometheus_client import CollectorRegistry

from service.batch import Job
from service.metrics import Metrics
from service.models.loading import loaded
from service.models.served_model import ServedModel
from service.pb import interlinear_pb2 as pb
from service.settings import read_settings
from service.translation import TranslationOptions

_METHOD = "/interlinear.v1.TranslationService/Translate"
_ROUNDS = 5

Ask = Callable[[int], Awaitable[int]]
"""Has the sentence of a number translated, and returns how many tokens came of it."""


def report(address: str, texts: Sequence[str], callers: int) -> list[str]:
    """Return what the service at ``address`` costs, for one caller and for ``callers`` at once, in lines."""
    return asyncio.run(_report(address, texts, callers))


async def _report(address: str, texts: Sequence[str], callers: int) -> list[str]:
    async with (
        loaded(read_settings(), Metrics.on(CollectorRegistry())) as model,
        grpc.aio.insecure_channel(address) as channel,
    ):
        aligned = [pb.TranslateRequest(texts=[text], alignment=pb.ALIGNMENT_DETAIL_PIECES) for text in texts]
        ways = {
            "engine": _of_engine(model, [await _job(model, text) for text in texts]),
            "gRPC": _over_grpc(channel, [pb.TranslateRequest(texts=[text]) for text in texts]),
            "aligned": _over_grpc(channel, aligned),
        }
        for ask in ways.values():  # uncounted: everything is warm afterwards
            await _tokens_per_second(ask, len(texts), callers)
        return [*await _for_one_caller(ways, len(texts)), *await _for_many(ways, len(texts), callers)]


async def _for_one_caller(ways: dict[str, Ask], count: int) -> list[str]:
    """Return what one caller waits for; a sentence goes every way before the next one does."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(count):
        for name, ask in ways.items():
            began = time.perf_counter()
            await ask(number)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: f"{statistics.median(values) * 1e3:.2f} ms" for name, values in seconds.items()}
    added = statistics.median(map(float.__sub__, seconds["gRPC"], seconds["engine"])) * 1e3
    return [
        f"One caller, {count} sentences, each every way in turn, p50: engine {medians['engine']}, "
        f"gRPC {medians['gRPC']}, {added:+.2f} ms a sentence",
        f"with alignment {medians['aligned']}, {_more(seconds['aligned'], seconds['gRPC']):+.1%} a sentence",
    ]


async def _for_many(ways: dict[str, Ask], count: int, callers: int) -> list[str]:
    """Return what is done for many callers, each of whom sends a sentence when the last is answered."""
    paces: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, ask in ways.items():
            paces[name].append(await _tokens_per_second(ask, count, callers))
    medians = {name: f"{statistics.median(values):,.0f}" for name, values in paces.items()}
    return [
        f"{callers} callers, {_ROUNDS} rounds in turns, target tokens/s: engine {medians['engine']}, "
        f"gRPC {medians['gRPC']}, {1 + _more(paces['gRPC'], paces['engine']):.0%} of the engine's",
        f"with alignment {medians['aligned']}, {_more(paces['gRPC'], paces['aligned']):+.1%} time a token",
    ]


async def _tokens_per_second(ask: Ask, count: int, callers: int) -> float:
    pending = iter(range(count))

    async def call() -> int:
        return sum([await ask(number) for number in pending])

    began = time.perf_counter()
    tokens = sum(await asyncio.gather(*(call() for _ in range(callers))))
    return tokens / (time.perf_counter() - began)


async def _job(model: ServedModel, text: str) -> Job:
    """Return what the service would have its engine do for ``text``, without alignment."""
    return replace((await model.translator.prepare(text, None, TranslationOptions())).job, trace=False)


def _of_engine(model: ServedModel, jobs: Sequence[Job]) -> Ask:
    async def ask(number: int) -> int:
        outcome = await model.scheduler.submit(jobs[number])
        return len(outcome.decoded.hypotheses[0].token_ids)

    return ask


def _over_grpc(channel: grpc.aio.Channel, requests: Sequence[pb.TranslateRequest]) -> Ask:
    """Return a way that costs the callers little: replies stay bytes, and are read once each, to count their tokens."""
    call = channel.unary_unary(_METHOD)
    payloads = [request.SerializeToString() for request in requests]
    tokens: dict[int, int] = {}

    async def ask(number: int) -> int:
        reply = await call(payloads[number])
        if number not in tokens:
            hypothesis = pb.TranslateResponse.FromString(reply).results[0].translation.hypotheses[0]
            tokens[number] = len(hypothesis.token_log_probabilities)
        return tokens[number]

    return ask


def _more(these: Sequence[float], those: Sequence[float]) -> float:
    """Return by which share each of ``these`` is more than its counterpart, the median."""
    return statistics.median(map(float.__truediv__, these, those)) - 1.0
