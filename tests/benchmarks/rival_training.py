"""What training is measured against: a plain PyTorch loop, and Joey NMT, both with the sizes of a run's own model."""

import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.config import RunConfig
from training.corpus import assemble
from training.precision import keep_autocast_type
from training.preparation import PreparedText
from training.vocabulary import PAD_ID

_SECONDS, _WARM_UP_STEPS = 30.0, 3
_JOEY_STEPS, _JOEY_REPORT = 60, 10


@dataclass(frozen=True)
class PlainSpeed:
    """Target tokens a second without padding, and the share of padding on each side."""

    tokens_per_second: float
    source_padding: float
    target_padding: float


class PlainModel(nn.Module):
    """The run's sizes as anyone would write them: torch's own stacked GRUs, then attention, tied embeddings."""

    def __init__(self, sizes: dict[str, Any], vocabulary: int) -> None:
        super().__init__()
        width, hidden, key, dropout = (sizes[name] for name in ("embedding", "hidden", "key", "dropout"))
        layers = {"batch_first": True, "dropout": dropout}
        self.embedding = nn.Embedding(vocabulary, width)
        self.encoder = nn.GRU(width, hidden // 2, sizes["encoder_layers"], bidirectional=True, **layers)
        self.decoder = nn.GRU(width, hidden, sizes["decoder_layers"], **layers)
        self.query, self.key = nn.Linear(hidden, key, bias=False), nn.Linear(hidden, key, bias=False)
        self.readout, self.output = nn.Linear(2 * hidden, width), nn.Linear(width, vocabulary)
        self.output.weight = self.embedding.weight
        self.dropout = nn.Dropout(dropout)

    def forward(self, source_ids: Tensor, target_input_ids: Tensor) -> Tensor:
        """Return logits [batch target vocabulary]."""
        encoded, _ = self.encoder(self.dropout(self.embedding(source_ids)))
        decoded, _ = self.decoder(self.dropout(self.embedding(target_input_ids)))
        scores = self.query(decoded) @ self.key(encoded).transpose(1, 2) * self.key.out_features**-0.5
        scores = scores.masked_fill((source_ids == PAD_ID)[:, None], float("-inf"))
        context = torch.softmax(scores, -1).to(encoded.dtype) @ encoded
        logits: Tensor = self.output(self.dropout(torch.tanh(self.readout(torch.cat([decoded, context], -1)))))
        return logits


def plain_speed(text: PreparedText, config: RunConfig, vocabulary: int, device: torch.device) -> PlainSpeed:
    """Train a PlainModel: pairs in random order, padded in the loop, AdamW as it comes, the loss read at every step."""
    model = PlainModel(config.model, vocabulary).to(device).train()
    keep_autocast_type(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    counts = np.zeros(4, np.int64)  # source and target, without and with padding
    began = time.perf_counter()
    for step, pairs in enumerate(_unsorted(text, config.schedule.batch_tokens)):
        if step == _WARM_UP_STEPS:
            counts[:], began = 0, time.perf_counter()
        batch = assemble(text.train, pairs)
        source, inputs, target = (
            torch.from_numpy(array).to(device) for array in (batch.source_ids, batch.target_input_ids, batch.target_ids)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16-mixed"):
            logits = model(source, inputs)
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), target.flatten(), ignore_index=PAD_ID, label_smoothing=0.1
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        counts += [batch.source_lengths.sum(), (batch.target_ids != PAD_ID).sum(), source.numel(), target.numel()]
        seconds = time.perf_counter() - began
        if step > _WARM_UP_STEPS and seconds > _SECONDS:
            break
    sources, targets, padded_sources, padded_targets = (float(count) for count in counts)
    return PlainSpeed(targets / seconds, 1 - sources / padded_sources, 1 - targets / padded_targets)


def joey_speed(
    python: Path, text: PreparedText, config: RunConfig, vocabulary: int, device: torch.device
) -> tuple[float, float]:
    """Return the target tokens a second that Joey NMT reports (median, the first left out), and its parameters.

    It reads the same token ids, as words, and batches by tokens. It trains in float32: it has no bfloat16, and float16
    on GPUs only. Its logits come from vectors of the hidden size, where ours are of the embedding's.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in ("source", "target"):
            (folder / f"train.{side}").write_text("".join(_lines(text, side)), encoding="utf-8")
        (folder / "vocabulary").write_text("".join(f"t{number}\n" for number in range(4, vocabulary)), encoding="utf-8")
        (folder / "joey.yaml").write_text(json.dumps(_joey_config(folder, config, device)), encoding="utf-8")
        finished = subprocess.run(
            [str(python), "-m", "joeynmt", "train", str(folder / "joey.yaml"), "--skip-test"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"HF_HOME": name, "HF_HUB_OFFLINE": "1"},
        )
    output = finished.stdout + finished.stderr
    speeds = [float(speed) for speed in re.findall(r"Tokens per Sec:\s*(\d+)", output)]
    if len(speeds) < 2:
        raise SystemExit(f"Joey NMT did not train: {output[-3000:]}")
    parameters = re.search(r"Total params: (\d+)", output)
    return statistics.median(speeds[1:]), float(parameters[1]) if parameters else 0.0


def _unsorted(text: PreparedText, batch_tokens: int) -> Iterator[np.ndarray]:
    """Yield random pairs, as many as come to ``batch_tokens`` tokens on the longer side, padding included."""
    pairs = np.concatenate(
        [np.stack([np.full(len(corpus), index), np.arange(len(corpus))], 1) for index, corpus in enumerate(text.train)]
    )
    longer = np.concatenate(
        [np.maximum(np.diff(corpus.source_offsets), np.diff(corpus.target_offsets)) + 1 for corpus in text.train]
    )
    random = np.random.default_rng(0)
    while True:
        order = random.permutation(len(pairs))
        begin, longest = 0, 0
        for end, row in enumerate(order):
            longest = max(longest, int(longer[row]))
            if end > begin and longest * (end - begin + 1) > batch_tokens:
                yield pairs[order[begin:end]]
                begin, longest = end, int(longer[row])


def _lines(text: PreparedText, side: str) -> Iterator[str]:
    for corpus in text.train:
        ids, offsets = getattr(corpus, f"{side}_ids"), getattr(corpus, f"{side}_offsets")
        for first, last in zip(offsets, offsets[1:], strict=False):
            yield " ".join(f"t{number}" for number in ids[first:last]) + "\n"


def _joey_config(folder: Path, config: RunConfig, device: torch.device) -> dict[str, Any]:
    sizes = config.model
    layer = {
        "type": "recurrent",
        "rnn_type": "gru",
        "embeddings": {"embedding_dim": sizes["embedding"], "dropout": sizes["dropout"]},
        "dropout": sizes["dropout"],
    }
    text = {"level": "word", "voc_file": str(folder / "vocabulary"), "max_length": 200, "lowercase": False}
    return {
        "name": "speed",
        "model_dir": str(folder / "model"),
        "use_cuda": device.type == "cuda",
        "data": {
            "train": str(folder / "train"),
            "dev": str(folder / "train"),
            "dataset_type": "plain",
            "src": {"lang": "source", **text},
            "trg": {"lang": "target", **text},
        },
        "testing": {"batch_size": 64, "beam_size": 1},
        "training": {
            "optimizer": "adamw",
            "scheduling": "exponential",
            "learning_rate": 0.001,
            "label_smoothing": 0.1,
            "clip_grad_norm": 1.0,
            "batch_size": config.schedule.batch_tokens,
            "batch_type": "token",
            "epochs": 1000,
            "updates": _JOEY_STEPS,
            "logging_freq": _JOEY_REPORT,
            "validation_freq": 10**9,
            "overwrite": True,
        },
        "model": {
            "tied_embeddings": True,
            "tied_softmax": False,
            "encoder": layer
            | {"hidden_size": sizes["hidden"] // 2, "bidirectional": True, "num_layers": sizes["encoder_layers"]},
            "decoder": layer
            | {"hidden_size": sizes["hidden"], "num_layers": sizes["decoder_layers"], "attention": "luong"}
            | {"init_hidden": "bridge", "input_feeding": False},
        },
    }
