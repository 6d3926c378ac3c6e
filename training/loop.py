"""The training loop, read top to bottom: batches in, weights moved, progress told, checkpoints kept.

It stands on Lightning Fabric for precision, devices and several processes. Everything random is drawn from
(seed, step) or (seed, epoch), so a run that was interrupted and resumed computes what an uninterrupted one would.

Nothing in a step waits: batches are made ahead by another thread, and what a step computes (loss, gradient norm) stays
on the device until it is reported, so that on a GPU the next step is queued while this one runs.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import lightning_fabric
import numpy as np
import sentencepiece
import torch
from jaxtyping import Int
from torch import Tensor

from training.checkpoint import Progress, load_weights, read_progress, read_tensors, recover, save_checkpoint
from training.config import RunConfig, ScheduleConfig, parse_config, read_config
from training.corpus import assemble, epoch_batches
from training.errors import InvalidCheckpoint, InvalidConfig, OutOfMemory, TrainingDiverged
from training.evaluation import validate
from training.guidance import guidance_loss
from training.models.interface import TranslationModel
from training.models.registry import build_model
from training.precision import LOSS_SCALE, ScaledAdam, keep_autocast_type
from training.prefetch import Prefetcher
from training.preparation import PreparedText, prepare_text
from training.progress import Reporter, StepFigures, duration
from training.vocabulary import PAD_ID

_REPORT_SECONDS = 15.0
_BAD_STEPS_ALLOWED = 20
_BATCHES_AHEAD = 64  # so many that cutting a new epoch, seconds of a large corpus, stops nobody
_CHECK_STEPS = 32  # how often the host waits for the device, and processes for each other, to see that all is well


class _Ready(NamedTuple):
    """A batch as tensors, in the order of Batch and page-locked where a GPU is to fetch them, and its target tokens."""

    tensors: list[Tensor]
    target_tokens: int


def train(config_file: Path, output: Path) -> Progress:
    """Train the run that ``config_file`` describes into ``output``, going on from ``output/last`` if it is there.

    ``output/best`` is the checkpoint with the lowest validation loss, ``output/last`` the newest. SIGTERM and
    SIGINT end the run after the current step, with ``last`` saved.

    Raises:
        TrainingError: Any of its kinds (training.errors); ``last`` and ``best`` stay as they were.
    """
    config, config_text = read_config(config_file), config_file.read_text(encoding="utf-8")
    fabric = _fabric(config)
    fabric.launch()
    reporter = Reporter(output, speaks=fabric.is_global_zero)
    try:
        last = output / "last"
        if fabric.is_global_zero:
            recover(last)
        fabric.barrier()
        vocabulary = (last / "tokenizer.model").read_bytes() if last.exists() else None
        text = prepare_text(config, vocabulary, reporter)
        run = _Run(fabric, config, config_text, text, reporter)
        return run.go_on()
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "alloc" not in str(error):
            raise
        raise OutOfMemory(
            f"the model and a batch of {config.schedule.batch_tokens} tokens do not fit the memory of "
            f"{config.device}: {error}. Lower schedule.batch_tokens or the sizes in [model]."
        ) from error
    finally:
        reporter.close()


def _fabric(config: RunConfig) -> lightning_fabric.Fabric:
    try:
        return lightning_fabric.Fabric(accelerator=config.device, devices=config.devices, precision=config.precision)
    except RuntimeError as error:
        raise InvalidConfig(
            f'device is {config.device!r}, and there is none: {error} Set device = "cpu" in the run, with a smaller '
            "schedule.batch_tokens (2048) and schedule.learning_rate (7.0e-4), or go where there is one."
        ) from error


class _Run:
    """The moving parts of one run: the raw model and its optimizer, the averaged model, and where we are."""

    def __init__(
        self,
        fabric: lightning_fabric.Fabric,
        config: RunConfig,
        config_text: str,
        text: PreparedText,
        reporter: Reporter,
    ) -> None:
        self.fabric, self.config, self.config_text = fabric, config, config_text
        self.text, self.output, self.reporter = text, reporter.folder, reporter
        pieces = sentencepiece.SentencePieceProcessor(model_proto=text.vocabulary).get_piece_size()
        torch.manual_seed(config.seed)
        self.raw = build_model(config.model, pieces)
        keep_autocast_type(self.raw)
        self.averaged = build_model(config.model, pieces).eval()
        load_weights(self.averaged, dict(self.raw.named_parameters()))
        self.averaged.to(fabric.device)
        self.adam = ScaledAdam(_parameter_groups(self.raw, config.schedule), fused=True)
        self.model, self.optimizer = fabric.setup(self.raw, self.adam)
        self.progress = Progress()
        self.stop_signal: signal.Signals | None = None
        self.bad_steps = torch.zeros((), device=fabric.device)  # in a row, up to now
        self.loss_scale = torch.full((), LOSS_SCALE, device=fabric.device)
        if (self.output / "last").exists():
            self._resume(self.output / "last")
        count = sum(parameter.numel() for parameter in self.raw.parameters())
        reporter.say(f"{self.raw.architecture} with {count / 1e6:.2f} M parameters, at step {self.progress.step}")

    def go_on(self) -> Progress:
        """Train from the current step to the last, to early stopping, or to a signal."""
        schedule = self.config.schedule
        previous = {number: signal.signal(number, self._request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        figures = StepFigures(self.progress.step)
        try:
            with Prefetcher(self._batches(), _BATCHES_AHEAD) as batches:
                for batch in batches:
                    step = self.progress.step + 1
                    loss, norm = self._update(batch, step)
                    self.progress = replace(self.progress, step=step)
                    figures.count(batch.target_tokens * self.fabric.world_size, loss, norm)
                    validates = step % schedule.validate_every == 0 or step == schedule.steps
                    if validates or step % _CHECK_STEPS == 0:
                        self._check()
                    if figures.due(_REPORT_SECONDS) or step == schedule.steps:
                        self._report(figures, batches.waited_seconds)
                    if validates:
                        self._validate()
                        figures.restart(step, batches.waited_seconds)
                    if self._told_to_stop() or self._stale():
                        break
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self.progress.step % schedule.validate_every:
            self._save("last")
        reason = f"{self.stop_signal.name}: " if self.stop_signal else ""
        self.reporter.say(f"{reason}stopped at step {self.progress.step} of {schedule.steps}, saved")
        return self.progress

    def _batches(self) -> Iterator[_Ready]:
        """Yield this process's batches from the current step on; runs in the reading thread."""
        schedule, step, epoch = self.config.schedule, self.progress.step, 0
        world, rank = self.fabric.world_size, self.fabric.global_rank
        passed = 0
        while step < schedule.steps:
            batches = epoch_batches(self.text.train, schedule.batch_tokens, self.config.seed, epoch)
            rounds = max(1, len(batches) // world)
            for index in range(step - passed, min(rounds, schedule.steps - passed)):
                yield self._ready(batches[(index * world + rank) % len(batches)])
            passed += rounds
            step, epoch = max(step, passed), epoch + 1

    def _ready(self, pairs: Int[np.ndarray, "pairs 2"]) -> _Ready:
        batch = assemble(self.text.train, pairs)
        arrays = (batch.source_ids, batch.source_lengths, batch.target_input_ids, batch.target_ids, batch.links)
        tensors = [torch.from_numpy(array) for array in arrays]
        if self.fabric.device.type == "cuda":
            tensors = [tensor.pin_memory() for tensor in tensors]
        return _Ready(tensors, int((batch.target_ids != PAD_ID).sum()))

    def _update(self, batch: _Ready, step: int) -> tuple[Tensor, Tensor]:
        """Move the weights once, unless the gradient is not finite.

        Returns the smoothed loss (nats a token) and the gradient norm before clipping. They are left on the device:
        reading them would make the host wait until the step has been computed.
        """
        schedule = self.config.schedule
        torch.manual_seed(self.config.seed * 1_000_003 + step * self.fabric.world_size + self.fabric.global_rank)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step)
        self.model.train()
        source_ids, source_lengths, target_input_ids, target_ids, links = (
            tensor.to(self.fabric.device, non_blocking=True) for tensor in batch.tensors
        )
        predicted = self.model(source_ids, source_lengths, target_input_ids)
        loss = torch.nn.functional.cross_entropy(
            predicted.logits.flatten(0, 1),
            target_ids.flatten(),
            ignore_index=PAD_ID,
            label_smoothing=schedule.label_smoothing,
        )
        guided = self.config.guidance
        if guided is not None:
            loss = loss + guided.weight * guidance_loss(predicted.attention_weights, links)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss * LOSS_SCALE)
        scaled_norm = torch.nn.utils.clip_grad_norm_(self.raw.parameters(), schedule.clip_norm * LOSS_SCALE)
        bad = ~torch.isfinite(scaled_norm)
        self.bad_steps = (self.bad_steps + 1) * bad
        self.adam.grad_scale, self.adam.found_inf = self.loss_scale, bad.float()
        self.optimizer.step()
        self._average(step)
        return loss.detach(), scaled_norm / LOSS_SCALE

    def _check(self) -> None:
        """Raise TrainingDiverged if the gradient has not been finite for long."""
        bad_steps = int(self.bad_steps)
        if bad_steps > _BAD_STEPS_ALLOWED:
            raise TrainingDiverged(
                f"the gradient was not finite {bad_steps} steps in a row, up to step {self.progress.step}. The last "
                f"good checkpoint is kept in {self.output}; lower schedule.learning_rate and start again."
            )

    def _told_to_stop(self) -> bool:
        """Return whether to stop; processes must leave together, so there what the first was told holds for all."""
        told = self.stop_signal is not None
        if self.fabric.world_size == 1:
            return told
        return self.progress.step % _CHECK_STEPS == 0 and bool(self.fabric.broadcast(told))

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move the averaged weights towards the raw ones; early on the average forgets faster."""
        decay = min(self.config.schedule.average_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.raw.parameters()), 1 - decay)

    def _validate(self) -> None:
        """Measure the averaged model, keep ``best`` if it is, and always keep ``last``."""
        started = time.monotonic()
        figures = validate(self.averaged, self.text, self.config.schedule.validation_sentences)
        loss = figures["loss"]
        best = self.progress.best_value is None or loss < self.progress.best_value
        self.progress = replace(
            self.progress,
            best_value=loss if best else self.progress.best_value,
            stale_validations=0 if best else self.progress.stale_validations + 1,
            figures=figures,
        )
        self.reporter.record(self.progress.step, "validation", figures)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, float))
        self.reporter.say(f"validation at step {self.progress.step}: {shown} ({time.monotonic() - started:.0f} s)")
        if best:
            self._save("best")
        self._save("last")

    def _stale(self) -> bool:
        patience = self.config.schedule.patience
        if patience is None or self.progress.stale_validations < patience:
            return False
        self.reporter.say(f"no better for {patience} validations: stopping early")
        return True

    def _report(self, figures: StepFigures, waited_seconds: float) -> None:
        schedule, step = self.config.schedule, self.progress.step
        told, seconds_per_step = figures.measure(step, waited_seconds)
        told["learning_rate"] = learning_rate(schedule, step)
        self.reporter.record(step, "training", told)
        left = duration((schedule.steps - step) * seconds_per_step)
        loss, tokens = told["loss"], told["target_tokens_per_second"]
        self.reporter.say(f"step {step}/{schedule.steps} loss {loss:.3f} {tokens:,.0f} target tokens/s, {left} left")

    def _save(self, name: str) -> None:
        if not self.fabric.is_global_zero:
            return
        weights: dict[str, dict[str, Tensor]] = {"model": dict(self.averaged.named_parameters())}
        if name == "last":
            weights["resume"] = {f"weight.{key}": value for key, value in self.raw.named_parameters()}
            for key, parameter in self.raw.named_parameters():
                moments = self.optimizer.state.get(parameter, {})
                weights["resume"] |= {f"{moment}.{key}": torch.as_tensor(value) for moment, value in moments.items()}
        save_checkpoint(self.output / name, self.config_text, self.text.vocabulary, self.progress, weights)

    def _resume(self, folder: Path) -> None:
        """Take up weights, moments and progress; schedule, corpus weights, device and precision may differ.

        Raises:
            InvalidCheckpoint: The checkpoint belongs to another model, corpus or seed.
        """
        before = _identity(parse_config((folder / "config.toml").read_text(encoding="utf-8")))
        now = _identity(self.config)
        changed = [key for key in now if before[key] != now[key]]
        if changed:
            raise InvalidCheckpoint(
                f"{folder} was made with other {', '.join(changed)}. Choose a new output folder, or restore the run's "
                "configuration (only schedule, corpus weights, device and precision may change when a run is resumed)."
            )
        tensors = read_tensors(folder, "resume")
        load_weights(self.averaged, read_tensors(folder, "model"))
        load_weights(self.raw, {key[7:]: value for key, value in tensors.items() if key.startswith("weight.")})
        for key, parameter in self.raw.named_parameters():
            for moment in ("step", "exp_avg", "exp_avg_sq"):
                if f"{moment}.{key}" in tensors:
                    self.optimizer.state[parameter][moment] = tensors[f"{moment}.{key}"].to(parameter.device)
        self.progress = read_progress(folder)
        self.reporter.say(f"resuming from {folder}")

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        # Nothing is said here: the signal may have come in the middle of a line, and printing is not reentrant.
        self.stop_signal = signal.Signals(number)


def learning_rate(schedule: ScheduleConfig, step: int) -> float:
    """Return the learning rate of a step (from 1): linear warm-up, constant, linear decay to zero at the end."""
    rise = min(1.0, step / max(1, schedule.warmup_steps))
    fall = min(1.0, (schedule.steps - step + 1) / max(1, schedule.decay_steps))
    return schedule.learning_rate * min(rise, fall)


def _identity(config: RunConfig) -> dict[str, object]:
    """Return what a resumed run must share with the run it continues."""
    fields = asdict(config)
    for corpus in fields["data"]["train"]:
        del corpus["weight"]
    return {name: fields[name] for name in ("data", "vocabulary", "model", "seed")}


def _parameter_groups(model: TranslationModel, schedule: ScheduleConfig) -> list[dict[str, object]]:
    """Decay matrices only: pulling biases to zero helps nothing."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    return [
        {"params": matrices, "weight_decay": schedule.weight_decay, "lr": schedule.learning_rate},
        {"params": vectors, "weight_decay": 0.0, "lr": schedule.learning_rate},
    ]
