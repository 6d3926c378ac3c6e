"""``interlinear align`` against a real service: one pair, and gold alignments that this file writes itself."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from google.protobuf import json_format
from rich.console import Console

from bundle import manifest as manifests
from bundle.alignment import AlignmentQuality, read_pharaoh
from bundle.gold import diagonal_quality, read_gold
from service.commands.align import evaluation_view
from service.commands.alignment_evaluation import Evaluation, Reading, Row
from service.commands.app import main
from service.commands.published import published_on
from service.pb import interlinear_pb2 as pb
from tests.service.edge import ServiceProcess, service_process
from tests.tiny_bundle import TinyBundle

SOURCE, TARGET = "The house is small, but the garden is big.", "La maison est petite, mais le jardin est grand."
GOLD = (
    "I don 't know where he lives .\tJe ne sais pas où il habite .\t0-0 3-2 4-4 5-5 6-6 7-7\t2-1 2-3",
    "Mr. Smith's house\tla maison de M. Smith\t0-3 1-4 2-1\t2-0 1-2",
    f"{'word ' * 200}.\tun mot .\t200-2\t",
)


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Result]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("bundles")
    forward = TinyBundle(with_posterior=True).write(folder / "forward")
    back = TinyBundle(hidden=16, with_posterior=True).write(folder / "back")
    turned = replace(manifests.read(back), bundle_id="back", source_language="fr", target_language="en")
    manifests.write(back, turned)
    with service_process(forward, REVERSE_BUNDLE=str(back)) as running:
        yield running


@pytest.fixture
def interlinear(service: ServiceProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: starting one takes longer than all it does."""
    monkeypatch.setenv("INTERLINEAR_GRPC_ADDRESS", service.address)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["interlinear", "align", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    file = tmp_path / "gold.tsv"
    file.write_text("".join(f"{line}\n" for line in GOLD), encoding="utf-8")
    return file


def test_one_pair_is_written_in_three_formats_that_agree(interlinear: Run) -> None:
    arguments = ("text", SOURCE, TARGET, "--threshold", "0.1", "--format")
    pharaoh, tsv, told = (interlinear(*arguments, name) for name in ("pharaoh", "tsv", "json"))
    assert [result.returncode for result in (pharaoh, tsv, told)] == [0, 0, 0], pharaoh.stderr
    reply = json_format.Parse(told.stdout, pb.ExplainResponse())
    pairs = {(link.target_index, link.source_index) for link in reply.hypothesis.alignment.links}
    assert pairs and read_pharaoh(pharaoh.stdout)[0] == pairs
    header, *lines = (line.split("\t") for line in tsv.stdout.splitlines())
    assert header[:2] == ["source_index", "target_index"] and {len(line) for line in lines} == {len(header)}
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert {(int(row["target_index"]), int(row["source_index"])) for row in rows if row["weight"]} == pairs
    for name, text in (("source", SOURCE), ("target", TARGET)):
        words = getattr(reply if name == "source" else reply.hypothesis, name).words
        seen = {int(row[f"{name}_index"]) for row in rows if row[f"{name}_index"]}
        assert seen == set(range(len(words)))  # those without a link have a line too
        for row in rows:
            if row[f"{name}_index"]:
                assert text[int(row[f"{name}_start"]) : int(row[f"{name}_end"])] == row[f"{name}_word"]


def test_method_and_evidence_reach_the_service(interlinear: Run) -> None:
    def told(*options: str) -> pb.Alignment:
        result = interlinear("text", SOURCE, TARGET, "--format", "json", *options)
        reply: pb.ExplainResponse = json_format.Parse(result.stdout, pb.ExplainResponse())
        return reply.hypothesis.alignment

    few, many = told("--method", "intersection"), told("--method", "union", "--evidence", "attention")
    assert (few.method, many.method) == (pb.ALIGNMENT_METHOD_INTERSECTION, pb.ALIGNMENT_METHOD_UNION)
    assert (few.evidence, many.evidence) == (pb.ALIGNMENT_EVIDENCE_POSTERIOR, pb.ALIGNMENT_EVIDENCE_ATTENTION)
    low, high = (told("--method", "threshold", "--threshold", value) for value in ("0.05", "0.9"))
    assert len(low.links) > len(high.links)
    refused = interlinear("text", SOURCE, TARGET, "--method", "union", "--threshold", "0.5")
    assert refused.returncode == 1 and "threshold is set" in refused.stderr


def test_an_evaluation_has_a_row_for_each_reading_and_baselines(interlinear: Run, gold: Path) -> None:
    result = interlinear("evaluate", str(gold), "--json", "--method", "argmax", "--method", "union", "--shift", "0")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["model"], found["pairs"], found["refused"], found["misplaced"]) == ("tiny", 3, 1, 0)
    readings = [(row["reading"]["evidence"], row["reading"]["method"]) for row in found["rows"]]
    assert readings == [(kind, method) for kind in ("attention", "posterior") for method in ("argmax", "union")]
    argmax, union = (row["quality"]["links"] for row in found["rows"][:2])
    assert argmax <= 8 + 5 and argmax <= union
    assert found["diagonal"] == pytest.approx(vars(diagonal_quality(read_gold([gold]))))
    assert found["published"] is None


def test_a_table_marks_the_shift_of_the_bundle(interlinear: Run, gold: Path) -> None:
    result = interlinear("evaluate", str(gold))
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    found = [line[5] for line in lines if line[1:4:2] == ["attention", "argmax"]]
    assert found == ["0*", "1", "2"] and any(line[1:2] == ["posterior"] for line in lines)
    assert "1 pairs were refused by the service and count as without links" in result.stdout


def test_thresholds_make_rows_of_their_own(interlinear: Run, gold: Path) -> None:
    arguments = ("--method", "threshold", "--threshold", "0.1", "--threshold", "0.6", "--evidence", "posterior")
    rows = json.loads(interlinear("evaluate", str(gold), "--json", *arguments).stdout)["rows"]
    assert [row["reading"]["threshold"] for row in rows] == [0.1, 0.6]
    assert rows[0]["quality"]["links"] > rows[1]["quality"]["links"]
    result = interlinear("evaluate", str(gold), "--method", "argmax", "--threshold", "0.5")
    assert result.returncode == 2 and "--threshold is for --method threshold" in result.stderr


def test_gold_that_cannot_be_read_is_told_with_its_place(interlinear: Run, gold: Path) -> None:
    gold.write_text("a\tb\t0-0\nc\td\n", encoding="utf-8")
    result = interlinear("evaluate", str(gold))
    said = " ".join(result.stderr.replace("│", " ").split())  # the path's length says where lines break
    assert result.returncode == 2 and "line 2" in said and "2 columns" in said
    gold.write_text("a\tb\t1-1\n", encoding="utf-8")
    assert "count words from 1" in " ".join(interlinear("evaluate", str(gold)).stderr.replace("│", " ").split())
    assert interlinear("evaluate", str(gold), "--one-based").returncode == 0


def test_a_set_that_the_service_refuses_altogether_is_an_error(interlinear: Run, gold: Path) -> None:
    gold.write_text(f"{GOLD[2]}\n", encoding="utf-8")
    result = interlinear("evaluate", str(gold))
    assert result.returncode == 1 and "refused all of the 1 pairs" in result.stderr


def test_published_figures_stand_beside_a_well_known_set() -> None:
    hansards = published_on(447, 4038)
    assert hansards is not None and published_on(447, 4037) is None
    measured = AlignmentQuality(0.25, 0.7, 0.8, 100)
    row = Row(Reading("attention", "threshold", 1, 0.25), False, measured)
    evaluation = Evaluation("m", "0" * 64, 447, 0, 2, (row,), measured, measured, hansards)
    written = io.StringIO()
    Console(width=100, file=written).print(evaluation_view(evaluation))
    shown = written.getvalue()
    assert "threshold 0.25" in shown and "2 gold links name words that are not there" in shown
    assert "fast_align, English to French" in shown and "0.164" in shown
