import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from training import loop
from training.checkpoint import read_tensors
from training.config import ScheduleConfig
from training.corpus import Batch, TokenizedCorpus, assemble
from training.errors import InvalidCheckpoint, OutOfMemory, TrainingDiverged
from training.loop import learning_rate, train


def records(output: Path, kind: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_run_learns_and_keeps_its_best_and_last_checkpoints(config_file: Path, tmp_path: Path) -> None:
    progress = train(config_file, tmp_path / "out")
    assert progress.step == 12
    losses = [record["loss"] for record in records(tmp_path / "out", "validation")]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert progress.best_value == losses[1]
    for name in ("best", "last"):
        assert (tmp_path / "out" / name / "model.safetensors").exists()
    assert any((tmp_path / "out" / "tensorboard").iterdir())


def test_a_resumed_run_computes_exactly_what_an_uninterrupted_one_does(config_file: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(config_file, whole)
    text = config_file.read_text(encoding="utf-8")
    _stop_after(6, config_file, halves)
    assert json.loads((halves / "last" / "progress.json").read_text())["step"] == 6
    config_file.write_text(text, encoding="utf-8")
    train(config_file, halves)
    assert _without_speed(records(halves, "validation")) == _without_speed(records(whole, "validation"))
    for stem in ("model", "resume"):
        expected, found = read_tensors(whole / "last", stem), read_tensors(halves / "last", stem)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_cleanly(small_run: str, tmp_path: Path, number: signal.Signals) -> None:
    file, output = tmp_path / "run.toml", tmp_path / "out"
    file.write_text(
        small_run.replace("steps = 12", "steps = 100000").replace("validate_every = 6", "validate_every = 5")
    )
    with subprocess.Popen(
        [sys.executable, "-m", "training", str(file), str(output)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "validation at step 5:" in line:
                process.send_signal(number)
                break
        said = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert number.name in said and "stopped at step" in said
    step = json.loads((output / "last" / "progress.json").read_text())["step"]
    assert 5 <= step < 100000
    assert read_tensors(output / "last", "resume")


def test_a_run_that_diverges_says_so_and_keeps_the_last_good_checkpoint(config_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    train(config_file, output)
    before = read_tensors(output / "last", "model")
    text = config_file.read_text(encoding="utf-8")
    config_file.write_text(text.replace("steps = 12", "steps = 90").replace("3e-3", "1e38").replace("y = 6", "y = 90"))
    with pytest.raises(TrainingDiverged, match=r"lower schedule\.learning_rate"):
        train(config_file, output)
    after = read_tensors(output / "last", "model")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


def test_a_batch_that_cannot_be_made_ends_the_run_with_its_own_error(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = iter(range(100))

    def assembled(corpora: list[TokenizedCorpus], pairs: np.ndarray) -> Batch:
        if next(made) == 2:
            raise ValueError("the third batch is bad")
        return assemble(corpora, pairs)

    monkeypatch.setattr(loop, "assemble", assembled)
    with pytest.raises(ValueError, match="the third batch is bad"):
        train(config_file, tmp_path / "out")


def test_a_run_that_gets_no_better_stops_early(config_file: Path, tmp_path: Path) -> None:
    text = config_file.read_text(encoding="utf-8")
    text = (
        text.replace("steps = 12", "steps = 500")
        .replace("3e-3", "1e-12")
        .replace("validate_every = 6", "validate_every = 2")
    )
    config_file.write_text(
        text.replace("average_decay = 0.9", "average_decay = 0.0") + "patience = 3\nweight_decay = 0.0\n"
    )
    assert train(config_file, tmp_path / "out").step < 500


def test_a_checkpoint_of_another_run_is_refused(config_file: Path, tmp_path: Path) -> None:
    train(config_file, tmp_path / "out")
    config_file.write_text(config_file.read_text(encoding="utf-8").replace("hidden = 32", "hidden = 48"))
    with pytest.raises(InvalidCheckpoint, match="other model"):
        train(config_file, tmp_path / "out")


def test_a_model_that_does_not_fit_is_refused_with_what_to_lower(config_file: Path, tmp_path: Path) -> None:
    text = config_file.read_text(encoding="utf-8")
    config_file.write_text(text.replace("embedding = 16", "embedding = 10_000_000_000_000"))
    with pytest.raises(OutOfMemory, match=r"schedule\.batch_tokens or the sizes"):
        train(config_file, tmp_path / "out")


@pytest.mark.slow
def test_two_processes_train_one_model(small_run: str, tmp_path: Path) -> None:
    file, output = tmp_path / "run.toml", tmp_path / "out"
    file.write_text(small_run.replace("seed = 3", "seed = 3\ndevices = 2"))
    subprocess.run([sys.executable, "-m", "training", str(file), str(output)], check=True, capture_output=True)
    assert [record["step"] for record in records(output, "validation")] == [6, 12]
    losses = [record["loss"] for record in records(output, "validation")]
    assert losses[1] < losses[0]


def test_a_resumed_run_may_weigh_its_corpora_anew(config_file: Path, tmp_path: Path) -> None:
    train(config_file, tmp_path / "out")
    text = config_file.read_text(encoding="utf-8").replace('train.tsv" }', 'train.tsv", weight = 2 }')
    config_file.write_text(text.replace("\nsteps = 12", "\nsteps = 13"), encoding="utf-8")
    assert train(config_file, tmp_path / "out").step == 13


def test_a_mistake_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "training", str(tmp_path / "none.toml"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith("training: cannot read") and "Traceback" not in finished.stderr


def test_the_learning_rate_rises_holds_and_falls_to_zero() -> None:
    schedule = ScheduleConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay_steps=20)
    rates = [learning_rate(schedule, step) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[79] == 1.0
    assert rates[-1] == pytest.approx(0.05)
    assert all(later <= earlier for earlier, later in zip(rates[9:], rates[10:], strict=False))


def _stop_after(step: int, config_file: Path, output: Path) -> None:
    """Run in another process until the validation at ``step``, and interrupt it there."""
    code = (
        "import os, signal, sys; from pathlib import Path; import training.loop as loop\n"
        "say = loop.Reporter.say\n"
        "def stop(self, text):\n"
        "    say(self, text)\n"
        f"    if 'validation at step {step}:' in text: os.kill(os.getpid(), signal.SIGTERM)\n"
        "loop.Reporter.say = stop\n"
        "loop.train(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(config_file), str(output)], check=True, capture_output=True)


def _without_speed(found: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in record.items() if "per_second" not in name} for record in found]
