"""Bundles of the shipped sizes with random weights, made by the exporters: the same graphs, in float32 and int8.

No model of the race ever ends a sentence, so a service gives as many tokens as it is asked for.
"""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bundle import manifest as manifests
from bundle.manifest import Manifest
from exporters.graphs import Graphs, export_graphs
from exporters.quantization import calibrate, quantize
from exporters.runtime import OnnxModel
from tests.benchmarks.race.work import SOURCE_TOKENS, sentences
from training.corpus import Batch
from training.models.registry import build_model

ROOT = Path(__file__).parent.parent.parent.parent
EMBEDDED = ROOT / "service" / "bundles" / "en-fr"
_NEVER = -1e4  # the logit of what is never emitted
_CALIBRATION_SENTENCES = 32
_KEPT = ("tokenizer.model", manifests.TABLES_FILE)


def random_bundles(folder: Path) -> dict[str, Path]:
    """Return the bundles by precision, made in ``folder`` unless the same exporters have made them there before."""
    version = _digest_of_makers()
    made = {precision: folder / f"{precision}-{version}" for precision in manifests.PRECISIONS}
    if not all((bundle / manifests.MANIFEST_FILE).is_file() for bundle in made.values()):
        shutil.rmtree(folder, ignore_errors=True)  # those of other exporters
        exact, quantized = _graphs(manifests.read(EMBEDDED))
        for precision, graphs in (("float32", exact), ("int8", quantized)):
            _write(made[precision], graphs, precision)
    return made


def _graphs(shipped: Manifest) -> tuple[Graphs, Graphs]:
    torch.manual_seed(4)
    sizes = {name: size for name, size in shipped.sizes.items() if name != "vocabulary"}
    model = build_model({"architecture": shipped.architecture, **sizes}, shipped.sizes["vocabulary"]).eval()
    special = shipped.special_ids
    bias = model.get_parameter("output.bias")
    with torch.no_grad():
        bias[[special.pad, special.unk, special.bos, special.eos]] = _NEVER
    graphs = export_graphs(model)
    rows = np.array(sentences(_CALIBRATION_SENTENCES, 4, shipped.sizes["vocabulary"]))
    begin, end = (np.full((len(rows), 1), mark) for mark in (special.bos, special.eos))
    sources = np.hstack([rows, end])
    text = Batch(
        sources, np.full(len(rows), SOURCE_TOKENS), np.hstack([begin, rows]), sources, np.zeros((0, 3), np.int64)
    )
    return graphs, quantize(graphs, calibrate(graphs, OnnxModel(graphs.serialized(), special), [text]))


def _write(folder: Path, graphs: Graphs, precision: str) -> None:
    folder.mkdir(parents=True)
    for name in _KEPT:
        shutil.copyfile(EMBEDDED / name, folder / name)
    for name, content in graphs.serialized().items():
        (folder / f"{name}.onnx").write_bytes(content)
    (folder / "README.md").write_text("Random weights, to be raced: it translates into nonsense.\n", encoding="utf-8")
    manifest = replace(
        manifests.read(EMBEDDED),
        bundle_id=f"race-{precision}",
        precision=precision,
        graphs=graphs.signature,
        parity={},
        quality={},
        reference={},
        files=manifests.file_digests(folder),
    )
    manifests.write(folder, manifest)


def _digest_of_makers() -> str:
    """Return what changes whenever these bundles might."""
    makers = [Path(__file__), EMBEDDED / manifests.MANIFEST_FILE]
    for package in ("bundle", "exporters", "training/models"):
        makers += sorted((ROOT / package).glob("*.py"))
    return hashlib.sha256(b"".join(maker.read_bytes() for maker in makers)).hexdigest()[:12]
