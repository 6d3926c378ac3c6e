"""Measures a bundle on a GPU against the processor and against torch on the same card, and prints Markdown.

    python -m tests.benchmarks.gpu --float32 BUNDLE --float16 BUNDLE --text FILE

Whether the tokens are those of the processor; whether a sentence's answer depends on its neighbors; target tokens a
second of a running batch that is filled up as sentences leave, with and without steps recorded as CUDA graphs; latency
of one sentence; torch's own loop over the same model, in float16, with a greedy or beam search that never leaves the
card. Both bundles hold the same weights; torch's are random, which changes nothing in its speed.
"""

import argparse
import asyncio
import itertools
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import torch
from prometheus_client import CollectorRegistry

from bundle.search import Beams, Hypothesis, SearchOptions, advance
from bundle.step import max_target_tokens
from bundle.tokenizer import Tokenizer
from service.admission import Limits
from service.batch import Job
from service.decoder_state import Wanted
from service.engine import Engine
from service.metrics import Metrics
from service.runtime import cuda_options
from service.scheduler import Scheduler
from training.models.interface import Encoded, TranslationModel
from training.models.registry import build_model

BATCHES = (1, 8, 32, 128, 512)
BEAM_SIZES = (1, 4)
_FEWEST_SENTENCES, _ROUNDS = 48, 3  # of a row: this many, and so many batches at least


@dataclass(frozen=True)
class Row:
    """One row of the table: how something was run, and what came of it. Latencies are seconds a sentence."""

    what: str
    batch: int
    beam_size: int
    tokens_per_second: float
    median: float = float("nan")
    percentile_99: float = float("nan")
    outside: float = float("nan")

    def markdown(self) -> str:
        """Return the row."""
        latency = "–" if self.batch > 1 else f"{self.median * 1e3:.2f}"
        tail = "–" if self.batch > 1 else f"{self.percentile_99 * 1e3:.2f}"
        outside = "–" if np.isnan(self.outside) else f"{self.outside:.0%}"
        return (
            f"| {self.what} | {self.batch} | {self.beam_size} | {self.tokens_per_second:,.0f} | {latency} | {tail} "
            f"| {outside} |"
        )


class Decoding:
    """An engine that decodes sentences in a running batch, as the service does but for queue and callers."""

    def __init__(self, bundle: Path, device: str) -> None:
        """Load ``bundle``."""
        self.metrics = Metrics.on(CollectorRegistry())
        self.engine = Engine(bundle, device, 0, self.metrics)
        self.manifest = self.engine.manifest

    def decode(
        self, sources: Sequence[Sequence[int]], batch: int, beam_size: int, attention: bool = False
    ) -> list[Hypothesis]:
        """Return the best hypothesis of each source; as many as ``batch`` are under way."""
        state = self.engine.decoder_state(beam_size)
        waiting, places = iter(enumerate(sources)), list[int]()
        beams: Beams | None = None
        found: dict[int, Hypothesis] = {}
        while len(found) < len(sources):
            joining = list(itertools.islice(waiting, batch - len(places)))
            if joining:
                state.join(self.engine.encode([source for _, source in joining]))
                options = [SearchOptions(self._most_tokens(source), beam_size) for _, source in joining]
                started = Beams.start(options, self.manifest.special_ids)
                beams = started if beams is None or not places else beams.join(started)
                places += [place for place, _ in joining]
            assert beams is not None
            output = state.step(beams.previous_token_ids, Wanted(beams.width, attention=attention), None)
            beams, parents, finished = advance(beams, output)
            state.reorder(parents)
            if finished:
                found |= {places[row]: hypotheses[0] for row, hypotheses in finished.items()}
                rows = [row for row in range(len(places)) if row not in finished]
                places = [places[row] for row in rows]
                beams = beams.keep(rows)
                state.keep(rows)
        return [found[place] for place in range(len(sources))]

    def row(self, what: str, sources: Sequence[Sequence[int]], batch: int, beam_size: int) -> Row:
        """Measure decoding ``sources``, after one pass that is not measured."""
        if batch == 1:
            self.decode(sources, batch, beam_size)
            return self._one_by_one(what, sources, beam_size)
        asyncio.run(self._scheduled(sources, batch, beam_size))
        started = time.perf_counter()
        tokens = asyncio.run(self._scheduled(sources, batch, beam_size))
        return Row(what, batch, beam_size, tokens / (time.perf_counter() - started))

    async def _scheduled(self, sources: Sequence[Sequence[int]], batch: int, beam_size: int) -> int:
        """Let the service's scheduler decode ``sources``, at most ``batch`` at a time; return the answers' tokens."""
        limits = Limits(
            queue_capacity=len(sources),
            batch_hypotheses=batch * beam_size,
            step_tokens=1 << 30,
            encode_tokens=1 << 20,
            encode_beside=1024,
            queue_tokens=1 << 30,
        )
        scheduler = Scheduler(self.engine, limits, self.metrics)
        jobs = [Job(tuple(source), SearchOptions(self._most_tokens(source), beam_size)) for source in sources]
        outcomes = await asyncio.gather(*(scheduler.submit(job) for job in jobs))
        await scheduler.close()
        return sum(len(outcome.decoded.hypotheses[0].token_ids) for outcome in outcomes)

    def _one_by_one(self, what: str, sources: Sequence[Sequence[int]], beam_size: int) -> Row:
        latencies, tokens, inside = [], 0, self.engine.runtime_seconds
        for source in sources:
            started = time.perf_counter()
            tokens += len(self.decode([source], 1, beam_size)[0].token_ids)
            latencies.append(time.perf_counter() - started)
        percentiles = statistics.quantiles(latencies, n=100)
        outside = 1 - (self.engine.runtime_seconds - inside) / sum(latencies)
        return Row(what, 1, beam_size, tokens / sum(latencies), percentiles[49], percentiles[98], outside)

    def _most_tokens(self, source: Sequence[int]) -> int:
        return max_target_tokens(len(source), self.manifest.limits.max_target_tokens)


class TorchDecoding:
    """torch's loop in float16: all of it on the card, a fixed number of steps, no answer ever looked at."""

    def __init__(self, sizes: dict[str, int], recorded: bool) -> None:
        """Make a model of random weights; ``recorded``: its steps are CUDA graphs."""
        torch.manual_seed(0)
        config = {"architecture": "aed", **{name: size for name, size in sizes.items() if name != "vocabulary"}}
        self._model: TranslationModel = build_model(config, sizes["vocabulary"]).cuda().half().eval()
        vars(self._model)["_emission"] = lambda *_: None  # which only explanations ask for
        self._recorded = recorded

    @torch.inference_mode()
    def row(self, what: str, lengths: Sequence[int], steps: int, beam_size: int) -> Row:
        """Measure a batch of sources of these lengths, each decoded for ``steps`` tokens."""
        batch = len(lengths)
        source_lengths = torch.tensor(lengths, device="cuda")
        source_ids = torch.randint(4, 1000, (batch, max(lengths)), device="cuda")
        encoded = self._model.encode(source_ids, source_lengths)
        state = {name: tensor[:, None].repeat(1, beam_size, 1) for name, tensor in encoded.initial_state.items()}
        buffers = Buffers(torch.full((batch, beam_size), 2, device="cuda"), torch.zeros(batch, beam_size).cuda(), state)
        run = self._recording(buffers, encoded) if self._recorded else lambda: self._step(buffers, encoded)
        seconds = []
        for _ in range(20 if batch == 1 else 4):
            torch.cuda.synchronize()
            started = time.perf_counter()
            again = self._model.encode(source_ids, source_lengths)
            for name, tensor in again.encoder_side.items():
                encoded.encoder_side[name].copy_(tensor)
            for name, tensor in again.initial_state.items():
                buffers.state[name].copy_(tensor[:, None].expand(-1, beam_size, -1))
            for _ in range(steps):
                run()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        seconds = seconds[1:]
        median = statistics.median(seconds)
        return Row(what, batch, beam_size, batch * steps / median, median, max(seconds))

    def _step(self, buffers: "Buffers", encoded: Encoded) -> None:
        stepped = self._model.step(buffers.tokens, buffers.state, encoded)
        batch, beam_size = buffers.tokens.shape
        best, tokens = stepped.log_probabilities.float().topk(beam_size + 1)
        totals, places = (buffers.scores[:, :, None] + best).flatten(1).topk(beam_size)
        buffers.scores.copy_(totals)
        buffers.tokens.copy_(tokens.flatten(1).gather(1, places))
        parents = (places // (beam_size + 1))[:, :, None]
        for name, tensor in stepped.state.items():
            buffers.state[name].copy_(tensor.gather(1, parents.expand(-1, -1, tensor.shape[2])))

    def _recording(self, buffers: "Buffers", encoded: Encoded) -> Callable[[], None]:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._step(buffers, encoded)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(buffers, encoded)
        return lambda: graph.replay()


@dataclass(frozen=True)
class Buffers:
    """What torch's loop goes on from, at addresses that stay."""

    tokens: torch.Tensor
    scores: torch.Tensor
    state: dict[str, torch.Tensor]


def same(ours: Sequence[Hypothesis], theirs: Sequence[Hypothesis]) -> str:
    """Return the share of equal token sequences, and how far their log-probabilities are from each other."""
    equal = [one.token_ids == other.token_ids for one, other in zip(ours, theirs, strict=True)]
    gaps = [abs(one.log_probability - other.log_probability) for one, other in zip(ours, theirs, strict=True)]
    among = max((gap for gap, alike in zip(gaps, equal, strict=True) if alike), default=float("nan"))
    return f"{sum(equal)} of {len(equal)} | {among:.2g}"


def identity(paths: dict[str, Path], device: str, sources: Sequence[Sequence[int]]) -> None:
    """Print whether a device answers what the processor answers, and whether neighbors matter there."""
    print("\n| bundle | beam | compared | same tokens | largest difference of a log-probability (nats) |")
    print("|---|---|---|---|---|")
    exact = Decoding(paths["float32"], "cpu")
    expected = {beam: exact.decode(sources, 32, beam) for beam in BEAM_SIZES}
    for name, path in paths.items():
        here = Decoding(path, device)
        for beam in BEAM_SIZES:
            batched = here.decode(sources, 64, beam)
            print(f"| {name} | {beam} | {device}, with float32 on cpu | {same(batched, expected[beam])} |", flush=True)
            alone = [here.decode([source], 1, beam)[0] for source in sources[:64]]
            print(f"| {name} | {beam} | alone, with a batch of 64 | {same(alone, batched[:64])} |", flush=True)


def speed(paths: dict[str, Path], device: str, sources: Sequence[Sequence[int]], batches: Sequence[int]) -> float:
    """Print the table of speed and return the tokens of a mean answer."""
    print("\n| | batch | beam | target tokens/s | p50 ms | p99 ms | outside the runtime |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    cases = [(name, path, True) for name, path in paths.items()] + [("float16, not recorded", paths["float16"], False)]
    for name, path, recorded in cases:
        options = cuda_options if recorded else lambda number, captures: cuda_options(number, captures=False)
        with mock.patch("service.engine.cuda_options", options):
            decoding = Decoding(path, device)
        for batch, beam_size in itertools.product(batches, BEAM_SIZES):
            many = max(_FEWEST_SENTENCES, _ROUNDS * batch)
            some = list(itertools.islice(itertools.cycle(sources), many))
            print(decoding.row(name, some, batch, beam_size).markdown(), flush=True)
    answers = decoding.decode(sources[:64], 64, 1)
    print(f"\nmean answer: {statistics.mean(len(answer.token_ids) for answer in answers):.1f} tokens")
    return statistics.mean(len(answer.token_ids) for answer in answers)


def rival(sizes: dict[str, int], sources: Sequence[Sequence[int]], steps: int, batches: Sequence[int]) -> None:
    """Print torch's rows; every sentence takes ``steps`` steps, so nothing is lost on those that leave early."""
    for name, recorded in (("torch float16", False), ("torch float16, recorded", True)):
        decoding = TorchDecoding(sizes, recorded)
        for batch, beam_size in itertools.product(batches, BEAM_SIZES):
            lengths = [len(source) for source in itertools.islice(itertools.cycle(sources), batch)]
            row = decoding.row(name, sorted(lengths, reverse=True), steps, beam_size)
            print(replace(row, what=name).markdown(), flush=True)


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--float32", type=Path, required=True, help="the bundle in float32")
    parser.add_argument("--float16", type=Path, required=True, help="the same in float16")
    parser.add_argument("--text", type=Path, required=True, help="a sentence a line")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--sentences", type=int, default=256, help="that identity is checked on (256)")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--only", choices=("identity", "speed", "torch"))
    arguments = parser.parse_args()
    paths = {"float32": arguments.float32, "float16": arguments.float16}
    tokenizer = Tokenizer(arguments.float32 / "tokenizer.model")
    texts = arguments.text.read_text(encoding="utf-8").splitlines()
    sources = [[*tokenizer.encode(text).token_ids, tokenizer.eos_id] for text in texts]
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    print(
        f"{card}, Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}, torch "
        f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}"
    )
    steps = 20
    if arguments.only in (None, "identity"):
        identity(paths, arguments.device, sources[: arguments.sentences])
    if arguments.only in (None, "speed"):
        steps = round(speed(paths, arguments.device, sources, arguments.batches))
        if arguments.device != "cpu":
            command = ["nvidia-smi", "--query-compute-apps=used_memory", "--format=csv,noheader"]
            used = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            print(f"memory of the card in use: {used}")
    if arguments.only in (None, "torch") and torch.cuda.is_available():
        sizes = Engine(arguments.float32, "cpu", 1, Metrics.on(CollectorRegistry())).manifest.sizes
        rival(sizes, sources, steps, arguments.batches)


if __name__ == "__main__":
    main()
