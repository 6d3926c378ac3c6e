import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from bundle import contents
from bundle import manifest as manifests
from bundle import tables as component_tables
from bundle.manifest import Manifest
from exporters import __main__, parity
from exporters.card import model_card
from exporters.errors import ExportRefused, InvalidExportOptions
from exporters.export import ExportOptions, GoldFiles, export
from exporters.fidelity import REPORT_FILE, canonical
from training.config import CorpusConfig


def options(checkpoint: Path, **changes: object) -> ExportOptions:
    test = CorpusConfig(checkpoint.parent.parent / "dev.tsv", limit=10)
    given = {
        "tables_sentences": 300,
        "parity_sentences": 20,
        "fidelity_sentences": 12,
        "evaluations": {"digits": test},
        **changes,
    }
    return ExportOptions(**given)  # type: ignore[arg-type]  # of one dictionary for all types


@pytest.fixture(scope="session")
def exported_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the checkpoint, written over an older one."""
    folder = tmp_path_factory.mktemp("bundles") / "digits"
    folder.mkdir()
    for name in ("manifest.json", "of an older bundle"):
        (folder / name).write_text("to go")
    gold = {name: GoldFiles((_gold_file(folder.parent, name),)) for name in ("choosing", "digits")}
    export(checkpoint, folder, options(checkpoint, replace=True, gold_alignments=gold))
    return folder


def _gold_file(folder: Path, name: str) -> Path:
    """Write two reversed strings of digits, each a word of its own, with their links."""
    file = folder / f"{name}.tsv"
    file.write_text("1 2 3\t3 2 1\t0-2 1-1 2-0\n7 7\t7 7\t0-1 1-0\n", encoding="utf-8")
    return file


@pytest.fixture
def manifest(exported_bundle: Path) -> Manifest:
    return contents.read(exported_bundle).manifest


def test_a_bundle_is_whole_and_says_what_it_is_made_of(manifest: Manifest, checkpoint: Path) -> None:
    assert (manifest.bundle_id, manifest.precision, manifest.architecture) == ("x-digits-x-reversed", "int8", "aed")
    assert (manifest.limits.max_source_tokens, manifest.limits.max_target_tokens) == (21, 21)
    assert [tensor.name for tensor in manifest.state] == ["decoder_state_0", "decoder_state_1"]
    assert manifest.training["credit"] == "Made by tests/reversal.py."
    assert manifest.training["steps"] == 60
    assert manifest.quality["digits"]["BLEU"]["signature"].startswith("nrefs:1|case:mixed")
    assert set(manifest.parity) == {"float32", "batch_invariance", "int8"}
    [(name, costs)] = manifest.parity["int8"]["test_sets"].items()
    assert (name, costs["sentences"]) == ("digits", 10)
    assert round(costs["bleu_int8"]["value"], 2) == manifest.quality["digits"]["BLEU"]["value"]
    assert costs["bleu_int8"]["at_least"] == pytest.approx(costs["bleu_float32"]["value"] - 0.3)
    assert {"alignment_drift", "posterior_drift", "decomposition_drift"} < set(costs)
    assert parity.refusals(manifest.parity) == []
    assert str(checkpoint.parent.parent.parent) not in json.dumps(manifest.training | manifest.reference)


def test_a_bundle_in_float16_is_judged_as_one_in_int8_is(checkpoint: Path, tmp_path: Path) -> None:
    manifest = export(checkpoint, tmp_path / "half", options(checkpoint, precision="float16", fidelity_sentences=0))
    assert manifest.precision == "float16"
    assert set(manifest.parity) == {"float32", "float16"}
    costs = manifest.parity["float16"]["test_sets"]["digits"]
    assert costs["bleu_float16"]["at_least"] == pytest.approx(costs["bleu_float32"]["value"] - 0.3)
    assert costs["alignment_drift"]["value"] < 0.001
    assert "## What float16 costs" in (tmp_path / "half" / "README.md").read_text(encoding="utf-8")
    graph = onnx.load(tmp_path / "half" / "decoder_step.onnx").graph
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in graph.initializer}


def test_the_tables_of_a_bundle_are_those_its_manifest_names(manifest: Manifest, exported_bundle: Path) -> None:
    tables = component_tables.read(exported_bundle / manifests.TABLES_FILE)
    assert manifest.tables is not None
    assert (tables.digest, tables.sentences) == (manifest.tables.digest, 300)
    assert manifest.tables.corpus.endswith("/train.tsv: 300 sentences")
    assert tables.encoder.temporal_counts[0] == tables.decoder.temporal_counts[0] == 300
    assert tables.decoder.input_counts[manifest.special_ids.bos] == 300


def test_the_reference_histograms_count_every_sentence_of_the_sample(manifest: Manifest) -> None:
    histograms = manifest.reference["histograms"]
    assert set(histograms) == {
        "source_length_tokens",
        "target_length_tokens",
        "alignment_entropy_nats",
        "alignment_uncovered_source_ratio",
        "decomposition_delta_ratio",
        "decomposition_unseen_ratio",
        "repeated_pairs_ratio",
        "token_log_probability_nats",
    }
    for histogram in histograms.values():
        assert len(histogram["counts"]) == len(histogram["upper_bounds"]) + 1
        assert sum(histogram["counts"]) == manifest.reference["sentences"] == 20
    lengths = histograms["source_length_tokens"]
    assert sum(lengths["counts"][:1]) == 0  # at least one digit, and the end of sentence


def test_the_card_is_generated_from_the_manifest(manifest: Manifest, exported_bundle: Path) -> None:
    card = (exported_bundle / "README.md").read_text(encoding="utf-8")
    report = json.loads((exported_bundle / REPORT_FILE).read_bytes())
    assert card == model_card(manifest, report)
    for part in (
        "Made by tests/reversal.py.",
        "CC0-1.0",
        "alignment drift",
        "## What int8 costs",
        manifest.quality["digits"]["chrF"]["signature"].replace("|", r"\|"),
    ):
        assert part in card


def test_the_card_tells_what_int8_costs_on_each_set_and_nothing_of_it_in_float32(manifest: Manifest) -> None:
    figures = {name: {"value": value} for name, value in (("bleu_float32", 17.0), ("identical_translations", 0.8754))}
    figures["bleu_int8"] = {"value": 16.9, "at_least": 16.7}
    figures["bleu_loss"] = {"value": 0.1, "low": -0.05, "high": 0.25, "interval": "95 %"}  # type: ignore[dict-item]
    figures["alignment_drift"] = {"value": 0.00376}
    ledger = {"int8": {"test_sets": {"news": figures}}}
    card = model_card(replace(manifest, parity=ledger), None)
    assert "| news | 17.00 | 16.90 | 0.10 | -0.05 to 0.25 | 0.3 | 0.875 | 0.0038 | – | – |" in card
    assert "What int8 costs" not in model_card(replace(manifest, parity={"float32": {}}, precision="float32"), None)


def test_the_fidelity_report_is_a_file_of_the_bundle_with_a_digest(manifest: Manifest, exported_bundle: Path) -> None:
    file = exported_bundle / REPORT_FILE
    assert manifest.files[REPORT_FILE] == manifests.file_digest(file)
    report = json.loads(file.read_bytes())
    assert file.read_bytes() == canonical(report)
    about = report["about"]
    assert about["sentences"] + about["left_out_sentences"] == 12
    assert about["corpus"].endswith("/dev.tsv")


def test_alignments_are_measured_and_the_first_set_chooses_the_step(manifest: Manifest) -> None:
    shown, chosen = (manifest.quality[name]["AER"] for name in ("digits", "choosing"))
    assert set(manifest.quality["digits"]) == {"AER", "BLEU", "chrF"}
    assert manifest.alignment_shift == shown["shift"] == min(chosen["table"], key=error_rate)["shift"]
    assert shown["evidence"] == "posterior"
    assert shown["value"] == error_rate(shown["posterior"])
    assert (shown["sentences"], shown["links"]) == (2, shown["posterior"]["links"])


def error_rate(row: dict[str, float]) -> float:
    return row["alignment_error_rate"]


def test_without_a_fidelity_report_the_card_says_so(manifest: Manifest) -> None:
    assert "## Fidelity\n\nNot measured." in model_card(manifest, None)
    with pytest.raises(InvalidExportOptions, match="fidelity_sentences is -1"):
        ExportOptions(fidelity_sentences=-1)


def test_a_bundle_that_fails_its_ledger_is_not_written_and_the_old_one_stays(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "MAX_LOG_PROBABILITY_DIFFERENCE", 0.0)
    monkeypatch.setattr(parity, "MAX_ALIGNMENT_DRIFT", 0.0)
    place = tmp_path / "bundle"
    place.mkdir()
    (place / manifests.MANIFEST_FILE).write_text("kept")
    with pytest.raises(ExportRefused) as refused:
        export(checkpoint, place, options(checkpoint, replace=True))
    assert len(refused.value.reasons) >= 2
    assert "float32: max_log_probability_difference" in refused.value.reasons[0]
    assert any(reason.startswith("int8.test_sets.digits: alignment_drift") for reason in refused.value.reasons)
    assert list(tmp_path.iterdir()) == [place]
    assert (place / manifests.MANIFEST_FILE).read_text() == "kept"


def test_an_existing_bundle_is_replaced_only_when_asked_and_another_folder_never(
    checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("kept")
    with pytest.raises(InvalidExportOptions, match="exists"):
        export(checkpoint, tmp_path, options(checkpoint))
    with pytest.raises(InvalidExportOptions, match="holds no bundle"):
        export(checkpoint, tmp_path, options(checkpoint, replace=True))
    assert (tmp_path / "precious").read_text() == "kept"


def test_the_command_says_in_one_line_what_was_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["--evaluation", "dev.tsv"], "must be NAME=FILE"),
        (["--gold-alignments", "hansards=:one-based"], "must be NAME=FILE"),
        (["--precision", "int4"], "one of float32, float16, int8"),
        ([], "not a whole checkpoint"),
    ):
        monkeypatch.setattr("sys.argv", ["exporters", str(tmp_path / "none"), str(tmp_path / "bundle"), *arguments])
        assert __main__.main() == 1
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
