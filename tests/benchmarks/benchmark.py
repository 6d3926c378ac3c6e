"""Measures training and serving on this machine, in one run, and prints one table: `make bench`.

Training: what tests/benchmarks/training_speed.py measures, beside Joey NMT where `make race` has installed it. Serving:
latency and target tokens a second of the embedded bundle behind a real server process, for several numbers of
concurrent callers (each sends its next sentence when the last is answered), beam sizes, and with or without alignment.
Then, in turns: the engine alone beside it over gRPC, and what an alignment and a whole explanation cost over a
translation.
"""

import argparse
import asyncio
import gzip
import itertools
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from rich.console import Console
from rich.table import Table

from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.benchmarks import overhead
from tests.benchmarks.training_speed import RECIPE, Task, report

RIVAL = Path(".venv/race/bin/python")
BUNDLE = Path("service/bundles/en-fr")
TEXTS = (Path("../shared/data/tatoeba-en-fr/dev.tsv.gz"), Path("../shared/data/europarl-en-fr/dev.tsv.gz"))
CALLERS = (1, 8, 32)
BEAM_SIZES = (1, 4)


@dataclass(frozen=True)
class Measured:
    """One row of the serving table. Latencies are seconds, from sending a sentence to its answer."""

    median: float
    percentile_99: float
    tokens_per_second: float
    sentences_per_second: float
    outside_share: float


@dataclass(frozen=True)
class Service:
    """A running service: where it is called and measured, its process, and the seconds from start to ready."""

    grpc_address: str
    admin_http_address: str
    process_id: int
    startup_seconds: float


@contextmanager
def served() -> Iterator[Service]:
    """Run the service on free ports."""
    names = ("GRPC_ADDRESS", "ADMIN_HTTP_ADDRESS", "HTTP_ADDRESS", "ADMIN_GRPC_ADDRESS")
    addresses = {f"INTERLINEAR_{name}": f"127.0.0.1:{_free_port()}" for name in names}
    grpc_address, admin_http_address, *_ = addresses.values()
    environment = os.environ | addresses
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "service"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            with grpc.insecure_channel(grpc_address) as channel:
                grpc.channel_ready_future(channel).result(timeout=30)
            yield Service(grpc_address, admin_http_address, process.pid, time.perf_counter() - started)
        finally:
            process.terminate()


async def serve_callers(service: Service, texts: list[str], callers: int, request: pb.TranslateRequest) -> Measured:
    """Return what ``callers`` concurrent callers see who together send every text once."""
    before = _scraped(service.admin_http_address)
    latencies: list[float] = []
    tokens = 0
    pending = iter(texts)

    async def call(stub: pb_grpc.TranslationServiceStub) -> None:
        nonlocal tokens
        for text in pending:
            one = pb.TranslateRequest()
            one.CopyFrom(request)
            one.texts.append(text)
            started = time.perf_counter()
            reply = await stub.Translate(one)
            latencies.append(time.perf_counter() - started)
            tokens += len(reply.results[0].translation.hypotheses[0].token_log_probabilities)

    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        started = time.perf_counter()
        await asyncio.gather(*(call(pb_grpc.TranslationServiceStub(channel)) for _ in range(callers)))
        seconds = time.perf_counter() - started
    after = _scraped(service.admin_http_address)
    steps, outside = (
        after[name] - before.get(name, 0.0)
        for name in ("interlinear_decode_step_duration_seconds_sum", "interlinear_decode_step_overhead_seconds_total")
    )
    percentiles = statistics.quantiles(latencies, n=100)
    return Measured(percentiles[49], percentiles[98], tokens / seconds, len(texts) / seconds, outside / steps)


async def serving_table(service: Service, texts: list[str]) -> Table:
    """Return the table over callers, beam sizes and alignment."""
    table = Table(title=f"Serving {BUNDLE}, {len(texts)} sentences a row")
    for heading in ("callers", "beam", "alignment", "p50 ms", "p99 ms", "tokens/s", "sentences/s", "outside ORT"):
        table.add_column(heading, justify="right")
    alignments = (pb.ALIGNMENT_DETAIL_UNSPECIFIED, pb.ALIGNMENT_DETAIL_PIECES)
    await serve_callers(service, texts[:64], 8, pb.TranslateRequest())  # caches and threads warm up uncounted
    for callers, beam_size, alignment in itertools.product(CALLERS, BEAM_SIZES, alignments):
        request = pb.TranslateRequest(options=pb.DecodingOptions(beam_size=beam_size), alignment=alignment)
        row = await serve_callers(service, texts, callers, request)
        table.add_row(
            str(callers),
            str(beam_size),
            "yes" if alignment else "no",
            f"{row.median * 1e3:.1f}",
            f"{row.percentile_99 * 1e3:.1f}",
            f"{row.tokens_per_second:,.0f}",
            f"{row.sentences_per_second:,.1f}",
            f"{row.outside_share:.0%}",
        )
    return table


def explanation_cost(service: Service, texts: list[str]) -> str:
    """Return what explaining costs over translating, measured in turns on sentences of about 20 × 20 tokens."""
    seconds: dict[str, list[float]] = {"translate": [], "explain": []}
    with grpc.insecure_channel(service.grpc_address) as channel:
        translator, explainer = pb_grpc.TranslationServiceStub(channel), pb_grpc.ExplanationServiceStub(channel)
        calls: dict[str, Callable[[str], object]] = {
            "translate": lambda text: translator.Translate(pb.TranslateRequest(texts=[text])),
            "explain": lambda text: explainer.Explain(pb.ExplainRequest(text=text)),
        }
        sizes = {text: explainer.Explain(pb.ExplainRequest(text=text)).attention_scores for text in texts}
        chosen = [text for text in texts if all(18 <= n <= 22 for n in (sizes[text].rows, sizes[text].columns))]
        for text in chosen * 5:
            for name, call in calls.items():
                started = time.perf_counter()
                call(text)
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
    more = statistics.median(b / a for a, b in zip(seconds["translate"], seconds["explain"], strict=True)) - 1
    return (
        f"Explain, every default view, {len(chosen)} sentences of 18 to 22 tokens on both sides, five times in turns "
        f"with Translate: p50 {medians['explain']:.1f} ms against {medians['translate']:.1f} ms, {more:+.0%} a sentence"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=200, help="sentences a row, half of each text (default 200)")
    parser.add_argument("--training-steps", type=int, default=60, help="0 leaves training out (default 60)")
    arguments = parser.parse_args()
    console = Console(width=110)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    console.print(
        f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {commit.stdout.strip()}"
    )
    if arguments.training_steps:
        task = Task(RECIPE, pairs=20_000, steps=arguments.training_steps)
        print("\n".join(report(task, RIVAL if RIVAL.exists() else None)))
    half = arguments.sentences // 2
    texts = [text for pair in zip(*(_sources(file, half) for file in TEXTS), strict=True) for text in pair]
    with served() as service:
        table = asyncio.run(serving_table(service, texts))
        beside_engine = overhead.report(service.grpc_address, texts, CALLERS[-1])
        explained = explanation_cost(service, [text for file in TEXTS for text in _sources(file, 300)])
        memory = _peak_memory_mib(service.process_id)
    console.print(f"Service: ready {service.startup_seconds:.2f} s after its start; at most {memory:.0f} MiB of memory")
    console.print(table)
    console.print("\n".join([*beside_engine, explained]))


def _sources(file: Path, count: int) -> list[str]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [line.split("\t")[0] for line in itertools.islice(lines, count)]


def _scraped(address: str) -> dict[str, float]:
    """Return every unlabeled-or-summed sample of the service's metrics by name."""
    totals: dict[str, float] = {}
    with urllib.request.urlopen(f"http://{address}/metrics") as reply:
        for line in reply.read().decode().splitlines():
            if not line.startswith("#"):
                name, value = line.split("{")[0].split(" ")[0], line.rsplit(" ", 1)[1]
                totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def _peak_memory_mib(process_id: int) -> float:
    """Return the largest resident size a process has had (Linux)."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    peak = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert peak is not None  # every Linux tells it
    return int(peak[1]) / 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*: (.*)", text)
    return found.group(1) if found else platform.machine()


if __name__ == "__main__":
    main()
