"""A real service process takes turns, called over gRPC by as many callers as a turn's batch: BUNDLE THREADS.

Every caller sends its next sentence when the last is answered. The callers share one process, whose work counts
against the service where both share the processors.
"""

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from bundle.tokenizer import Tokenizer
from service.pb import interlinear_pb2 as pb
from tests.benchmarks.race.contender import compete, confine, peak_mib, require_exact
from tests.benchmarks.race.work import BATCHES, SOURCE_TOKENS, TARGET_TOKENS, Taken, Turn
from tests.service.edge import ServiceProcess, service_process

_METHOD = "/interlinear.v1.TranslationService/Translate"
_LONGER = 4  # turns: those who still wait when time is up leave the service idle, which has to weigh little
_WORDS = "house garden water morning letter window winter school friend market village number".split()


def texts(tokenizer: Tokenizer, count: int) -> list[str]:
    """Return texts that the tokenizer makes ``SOURCE_TOKENS`` of, end of sentence included."""
    chosen = random.Random(4)
    words = [word for word in _WORDS if len(tokenizer.encode(word).token_ids) == 1]
    made = [" ".join(chosen.choice(words) for _ in range(SOURCE_TOKENS - 1)) for _ in range(count)]
    lengths = {len(tokenizer.encode(text).token_ids) for text in made}
    if lengths != {SOURCE_TOKENS - 1}:
        raise AssertionError(f"texts of {SOURCE_TOKENS - 1} tokens were wanted, not of {sorted(lengths)}")
    return made


async def take(service: ServiceProcess, sources: list[str], turn: Turn) -> Taken:
    """Let callers call until time is up; replies are read afterwards, so that callers cost little."""
    options = pb.DecodingOptions(beam_size=turn.beam_size, max_target_tokens=TARGET_TOKENS)
    detail = pb.ALIGNMENT_DETAIL_PIECES if turn.alignment else pb.ALIGNMENT_DETAIL_UNSPECIFIED
    requests = [
        pb.TranslateRequest(texts=[text], options=options, alignment=detail).SerializeToString() for text in sources
    ]
    replies: list[bytes] = []
    latencies: list[float] = []

    async def call(channel: grpc.aio.Channel, deadline: float, mine: Iterator[bytes]) -> None:
        translate = channel.unary_unary(_METHOD)
        while (began := time.perf_counter()) < deadline:
            replies.append(await translate(next(mine)))
            latencies.append(time.perf_counter() - began)

    async with grpc.aio.insecure_channel(service.address) as channel:
        await channel.unary_unary(_METHOD)(requests[0])
        began = time.perf_counter()
        deadline = began + max(turn.seconds * _LONGER, 0.05)
        await asyncio.gather(*(call(channel, deadline, _round(requests, caller)) for caller in range(turn.batch)))
        seconds = time.perf_counter() - began
    lengths = [_target_length(reply) for reply in replies]
    require_exact(lengths, len(replies))
    return Taken(sum(lengths), seconds, latencies, peak_mib(service.process.pid))


def _round(requests: list[bytes], first: int) -> Iterator[bytes]:
    while True:
        yield requests[first % len(requests)]
        first += 1


def _target_length(reply: bytes) -> int:
    read = pb.TranslateResponse.FromString(reply)
    return len(read.results[0].translation.hypotheses[0].token_log_probabilities)


def main() -> None:
    """Serve the bundle and take turns."""
    bundle, threads = Path(sys.argv[1]), int(sys.argv[2])
    sources = texts(Tokenizer(bundle / "tokenizer.model"), max(BATCHES))
    everywhere = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    confine(threads)
    with contextlib.ExitStack() as running, asyncio.Runner() as runner:

        def prepared() -> Callable[[Turn], Taken]:
            service = running.enter_context(service_process(bundle, THREADS=str(threads)))
            if everywhere:
                os.sched_setaffinity(0, everywhere)  # the service alone is confined, its callers are not
            return lambda turn: runner.run(take(service, sources, turn))

        compete(prepared)


if __name__ == "__main__":
    main()
