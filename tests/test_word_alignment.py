"""Word alignment from training to error rate: a task whose alignment is known, read in both directions."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bundle import manifest as manifests
from bundle.gold import GoldPair, diagonal_quality
from bundle.symmetrization import RULES
from exporters.alignments import measure
from exporters.export import ExportOptions, export
from exporters.runtime import OnnxModel
from service.client import Client
from service.commands.alignment_evaluation import Reading, evaluate
from service.models.loading import load_tokenizer
from tests.reversal import SEED, digit_strings, spelled, train_reversal
from tests.service.edge import served

pytestmark = pytest.mark.slow


def gold_pair(digits: str) -> GoldPair:
    links = frozenset((place, len(digits) - 1 - place) for place in range(len(digits)))
    words = tuple(spelled(digits).split())
    return GoldPair(words, words[::-1], links, links)


GOLD = [gold_pair(digits) for digits in digit_strings(60, seed=SEED + 4)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = train_reversal(tmp_path_factory.mktemp("reversal"), spelling=spelled, vocabulary=25, seed=5)
    folder: Path = tmp_path_factory.mktemp("bundles") / "reversal"
    export(checkpoint, folder, ExportOptions(bundle_id="reversal", tables_sentences=4000))
    return folder


@pytest.fixture(scope="module")
def reverse(bundle: Path) -> Path:
    """The same bundle: whoever can turn digits round can turn them back."""
    folder = shutil.copytree(bundle, bundle.with_name("back"))
    manifest = manifests.read(folder)
    source, target = manifest.target_language, manifest.source_language
    manifests.write(folder, replace(manifest, bundle_id="back", source_language=source, target_language=target))
    return folder


async def test_knowing_the_word_helps_and_so_does_reading_it_both_ways(bundle: Path, reverse: Path) -> None:
    methods = ("argmax", "threshold", *RULES)
    readings = [
        Reading(evidence, method, threshold=0.5 if method == "threshold" else None)
        for evidence in ("attention", "posterior")
        for method in methods
    ]
    async with served(bundle, reverse_bundle=reverse) as running, Client(running.address) as client:
        found = await evaluate(client, "reversal", GOLD, readings, lambda left: None)
    assert (found.pairs, found.refused, len(found.rows)) == (len(GOLD), 0, len(readings))
    assert [row.is_bundle_shift for row in found.rows] == [row.reading.evidence == "attention" for row in found.rows]
    attention, posterior = (
        {row.reading.method: row.quality for row in found.rows if row.reading.evidence == evidence}
        for evidence in ("attention", "posterior")
    )
    for method in methods:
        assert posterior[method].alignment_error_rate <= attention[method].alignment_error_rate < 0.4, method
    assert posterior["argmax"].alignment_error_rate < attention["argmax"].alignment_error_rate
    for quality in (attention, posterior):
        assert quality["grow_diag"].alignment_error_rate <= quality["argmax"].alignment_error_rate
        assert quality["intersection"].precision >= quality["argmax"].precision
        assert quality["union"].recall >= quality["argmax"].recall
    assert posterior["grow_diag"].alignment_error_rate < 0.1 < 0.7 < found.diagonal.alignment_error_rate


def test_the_exporter_measures_what_the_service_does_and_chooses_the_shift(bundle: Path) -> None:
    manifest = manifests.read(bundle)
    graphs = {name: (bundle / f"{name}.onnx").read_bytes() for name in manifests.GRAPHS}
    model = OnnxModel(graphs, manifest.special_ids, threads=1)
    found = measure(model, load_tokenizer(bundle, manifest), GOLD, shifts=(0, 1, 2))
    assert (found["shift"], found["sentences"]) == (0, len(GOLD))
    rates = [row["alignment_error_rate"] for row in found["table"]]
    assert found["posterior"]["alignment_error_rate"] < rates[0] < min(0.4, *rates[1:])
    assert found["diagonal"]["alignment_error_rate"] == round(diagonal_quality(GOLD).alignment_error_rate, 4)
