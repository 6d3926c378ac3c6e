"""How fast the shipped recipe's model trains here, and how near that is to what the machine can do.

    .venv/dev/bin/python -m tests.benchmarks.training_speed [--rival PYTHON]
    python -m tests.benchmarks.training_speed --recipe training/recipes/en-fr.toml --pairs 300000 --steps 1500

Target tokens a second are those that a real run (`python -m training`) reports of itself, padding not counted. The
share of the peak is the floating-point operations that the model needs for them (``operations``) over those that a
large matrix product of the same type reaches in this process. Beside it, on the same text: a plain PyTorch loop, and
Joey NMT if PYTHON, an interpreter that has it, is given.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.benchmarks.rival_training import joey_speed, plain_speed
from training.config import RunConfig, parse_config
from training.corpus import epoch_batches
from training.models.recurrence import BidirectionalLayer
from training.precision import keep_autocast_type
from training.preparation import PreparedText, prepare_text
from training.progress import Reporter

RECIPE = Path("training/recipes/en-fr.toml")
_WARM_UP, _REPETITIONS = 3, 10


@dataclass(frozen=True)
class Task:
    """What is trained: a recipe's model on the first ``pairs`` of each of its corpora, for so many steps."""

    recipe: Path
    pairs: int
    steps: int
    precision: str | None = None

    def text(self) -> str:
        """Return the run as TOML: one validation at its end, and no aligner, which is not what is measured."""
        text = self.recipe.read_text(encoding="utf-8").partition("\n[guidance]\n")[0]
        text = re.sub(r"(?m)^(source = .*)$", rf"\1\nlimit = {self.pairs}", text)
        if not torch.cuda.is_available():  # as the head of the recipe says
            for key, setting in (("device", '"cpu"'), ("batch_tokens", "2048"), ("learning_rate", "7.0e-4")):
                text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {setting}", text)
        if self.precision:
            text = re.sub(r"(?m)^precision = .*$", f'precision = "{self.precision}"', text)
        for name, value in (("steps", self.steps), ("validate_every", self.steps), ("validation_sentences", 1)):
            text = re.sub(rf"(?m)^{name} = .*\n", "", text) + f"\n{name} = {value}"
        return text


@dataclass(frozen=True)
class Trained:
    """What a run said of itself; the first of several reports, which holds the warm-up, left out."""

    tokens_per_second: float
    data_wait_share: float
    description: str


@dataclass(frozen=True)
class Counted:
    """One epoch: pairs, tokens with marks, tokens with padding, and cells of all attention matrices."""

    pairs: int
    source: int
    target: int
    padded_source: int
    padded_target: int
    cells: int


def trained(task: Task, folder: Path) -> Trained:
    """Train in a process of its own, in ``folder``."""
    (folder / "run.toml").write_text(task.text(), encoding="utf-8")
    command = [sys.executable, "-m", "training", str(folder / "run.toml"), str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(finished.stderr)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    reports = [record for record in records if record["kind"] == "training"]
    kept = reports[1:] or reports
    described = re.search(r"\w+ with [\d.]+ M parameters", finished.stderr)
    return Trained(
        statistics.median(report["target_tokens_per_second"] for report in kept),
        statistics.mean(report["data_wait_share"] for report in kept),
        described.group() if described else "",
    )


def counted(text: PreparedText, config: RunConfig) -> Counted:
    """Return what the batches of the first epoch hold."""
    sums = np.zeros(5, np.int64)
    pairs = 0
    for batch in epoch_batches(text.train, config.schedule.batch_tokens, config.seed, epoch=0):
        sides = np.empty((len(batch), 2), np.int64)
        for index, corpus in enumerate(text.train):
            rows = batch[:, 0] == index
            sides[rows, 0] = np.diff(corpus.source_offsets)[batch[rows, 1]] + 1
            sides[rows, 1] = np.diff(corpus.target_offsets)[batch[rows, 1]] + 1
        longest = len(batch) * sides.max(axis=0)
        sums += [*sides.sum(axis=0), *longest, (sides[:, 0] * sides[:, 1]).sum()]
        pairs += len(batch)
    return Counted(pairs, *(int(value) for value in sums))


def operations(config: RunConfig, vocabulary: int, epoch: Counted) -> float:
    """Return the floating-point operations a target token costs, backward included, padding and dropout left out.

    With V pieces, embedding E, hidden H, key K and inputs x wide (E in the first layer, else H), multiply-adds are:

        a source token    3H(x + H/2) an encoder layer (two readers of H/2), HK for its key
        a target token    3H(x + H) a decoder layer, HK for its query, 2HE for the read-out, EV for the logits
        a pair            H² a decoder layer, for its first state
        source × target   K for the score, H for the context

    A multiply-add is two operations, and backward takes twice what forward does: all times six.
    """
    sizes = config.model
    width, hidden, key = sizes["embedding"], sizes["hidden"], sizes["key"]
    encoder, decoder = sizes["encoder_layers"], sizes["decoder_layers"]
    inputs = [width, *[hidden] * (max(encoder, decoder) - 1)]
    source = sum(3 * hidden * (x + hidden // 2) for x in inputs[:encoder]) + hidden * key
    target = sum(3 * hidden * (x + hidden) for x in inputs[:decoder])
    target += hidden * key + 2 * hidden * width + width * vocabulary
    pair = decoder * hidden**2
    total = source * epoch.source + target * epoch.target + pair * epoch.pairs + (key + hidden) * epoch.cells
    return 6.0 * int(total) / epoch.target


def peak(device: torch.device, dtype: torch.dtype) -> tuple[float, int]:
    """Return the best operations a second of a square matrix product of random numbers, and its size."""
    best = (0.0, 0)
    for size in (4096, 8192, 16384) if device.type == "cuda" else (1024, 2048, 4096):
        first, second = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        milliseconds = _milliseconds(lambda a=first, b=second: a @ b, device, min)  # type: ignore[misc]
        best = max(best, (2 * size**3 / milliseconds * 1e3, size))
    return best


def recurrence(config: RunConfig, device: torch.device) -> list[str]:
    """Return how one layer's forward and backward run on a batch of 25 tokens a sentence, called in several ways."""
    hidden, time_steps = config.model["hidden"], 25
    batch = max(1, config.schedule.batch_tokens // time_steps)
    inputs = torch.randn(batch, time_steps, hidden, device=device, requires_grad=True)
    lengths = torch.full((batch,), time_steps, device=device)
    two = BidirectionalLayer(hidden, hidden).to(device)
    keep_autocast_type(two)
    both = nn.GRU(hidden, hidden // 2, batch_first=True, bidirectional=True).to(device)
    one = nn.GRU(hidden, hidden, batch_first=True).to(device)
    packed = nn.utils.rnn.pack_padded_sequence
    calls: dict[str, tuple[Callable[[], Tensor], torch.dtype]] = {
        "encoder layer as trained, two readers": (lambda: two(inputs, lengths)[0], torch.bfloat16),
        "encoder layer, one bidirectional call": (lambda: both(inputs)[0], torch.bfloat16),
        "encoder layer, one packed call": (lambda: both(packed(inputs, lengths.cpu(), True))[0].data, torch.bfloat16),
        "decoder layer as trained": (lambda: one(inputs)[0], torch.bfloat16),
        "decoder layer, float32": (lambda: one(inputs)[0], torch.float32),
    }
    if device.type == "cuda":
        wide, cast = nn.GRU(hidden, hidden, batch_first=True).to(device, torch.bfloat16), torch.bfloat16
        calls["decoder layer, bfloat16 without autocast"] = (lambda: wide(inputs.to(cast))[0], torch.float32)
    lines = []
    for name, (call, dtype) in calls.items():

        def once(call: Callable[[], Tensor] = call, dtype: torch.dtype = dtype) -> Tensor:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                states = call()
            states.float().sum().backward()  # type: ignore[no-untyped-call]
            return states

        try:
            milliseconds = _milliseconds(once, device, statistics.median)
            lines.append(f"  {name}: {milliseconds:.2f} ms, states in {once().dtype}, {_operators(once)}")
        except RuntimeError as error:
            lines.append(f"  {name}: refused, {str(error).splitlines()[0]}")
    return [f"Recurrence, {batch} × {time_steps} tokens, {hidden} → {hidden} units, forward and backward:", *lines]


def report(task: Task, rival: Path | None) -> list[str]:
    """Measure, and return what to print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = trained(task, folder)
        config = parse_config(task.text())
        vocabulary = (folder / "last" / "tokenizer.model").read_bytes()
        text = prepare_text(config, vocabulary, Reporter(folder, speaks=False))
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if cuda else "cpu")
    dtype = torch.bfloat16 if config.precision == "bf16-mixed" else torch.float32
    epoch = counted(text, config)
    pieces = config.vocabulary.size
    needed, (reached, size) = operations(config, pieces, epoch), peak(device, dtype)
    plain = plain_speed(text, config, pieces, device)
    named = torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} CPU threads"
    lines = [
        f"Training, {run.description}, {config.precision}, batches of {config.schedule.batch_tokens} tokens, "
        f"torch {torch.__version__}, {named}",
        f"  {run.tokens_per_second:,.0f} target tokens/s × {needed / 1e6:.1f} M operations = "
        f"{run.tokens_per_second * needed / 1e12:.3f} T/s, {run.tokens_per_second * needed / reached:.1%} of the peak "
        f"({reached / 1e12:.3f} T/s: {size} × {size} in {str(dtype).removeprefix('torch.')})",
        f"  waiting for data: {run.data_wait_share:.2%} of the time",
        f"  padding: source {1 - epoch.source / epoch.padded_source:.1%}, "
        f"target {1 - epoch.target / epoch.padded_target:.1%}",
        f"  a plain PyTorch loop, same sizes: {plain.tokens_per_second:,.0f} target tokens/s, "
        f"ours {run.tokens_per_second / plain.tokens_per_second:.2f} times that; padding source "
        f"{plain.source_padding:.1%}, target {plain.target_padding:.1%}",
    ]
    if rival is not None:
        speed, parameters = joey_speed(rival, text, config, pieces, device)
        lines.append(
            f"  Joey NMT, same layers, {parameters / 1e6:.2f} M parameters, float32: {speed:,.0f} target tokens/s, "
            f"ours {run.tokens_per_second / speed:.2f} times that"
        )
    return lines + recurrence(config, device)


def _milliseconds(call: Callable[[], object], device: torch.device, choose: Callable[[list[float]], float]) -> float:
    times = []
    for repetition in range(_WARM_UP + _REPETITIONS):
        _synchronize(device)
        began = time.perf_counter()
        call()
        _synchronize(device)
        if repetition >= _WARM_UP:
            times.append(1e3 * (time.perf_counter() - began))
    return choose(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _operators(call: Callable[[], object]) -> str:
    """Return which of torch's recurrent operators ran, and how many kernels were launched on a GPU."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        call()
    events = profile.key_averages()
    names = {event.key for event in events if re.fullmatch(r"aten::(gru|_cudnn_rnn|_thnn_fused_gru_cell)", event.key)}
    operators = sum(event.count for event in events if event.key.startswith("aten::"))
    kernels = sum(event.count for event in events if "aunchKernel" in event.key)
    return f"by {', '.join(sorted(names))}, {operators} operators" + (f", {kernels} kernels" if kernels else "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help=f"the run (default {RECIPE})")
    parser.add_argument("--pairs", type=int, default=20_000, help="of each corpus, the first (default 20000)")
    parser.add_argument("--steps", type=int, default=120, help="steps to train (default 120)")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], help="instead of the recipe's")
    parser.add_argument("--rival", type=Path, metavar="PYTHON", help="an interpreter that has Joey NMT 2.3")
    arguments = parser.parse_args()
    task = Task(arguments.recipe, arguments.pairs, arguments.steps, arguments.precision)
    print("\n".join(report(task, arguments.rival)))


if __name__ == "__main__":
    main()
