"""``interlinear report`` against a real service."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.commands.command import Run, run
from tests.commands.test_report_page import Page
from tests.service.edge import ROOT, SENTENCE, ServiceProcess
from tests.tiny_bundle import SENTENCES


@pytest.fixture
def report(service: ServiceProcess, tmp_path: Path) -> Run:
    """Run the command on lines, with ``report.html`` as its output."""

    def report_on(lines: bytes, *arguments: str, address: str = service.address) -> subprocess.CompletedProcess[bytes]:
        (tmp_path / "lines.txt").write_bytes(lines)
        whole = ("report", "lines.txt", "--output", "report.html", *arguments)
        return run(address, *whole, folder=tmp_path, variables={"PYTHONPATH": str(ROOT)})

    return report_on


def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


def test_every_line_is_explained_in_order_with_progress_on_standard_error(report: Run, tmp_path: Path) -> None:
    result = report("\n".join(SENTENCES * 5).encode())
    assert (result.returncode, result.stdout) == (0, b"")
    rows = page(tmp_path).rows[1 : 1 + len(SENTENCES) * 5]
    assert [row[0] for row in rows] == [str(line) for line in range(1, len(rows) + 1)]
    assert all(row[1].startswith(sentence) for row, sentence in zip(rows, SENTENCES * 5, strict=True))
    assert f"{len(rows)}/{len(rows)}" in result.stderr.decode()


def test_a_translation_after_a_tab_is_what_is_explained(report: Run, tmp_path: Path) -> None:
    target = "La maison est petite."
    assert report(f"{SENTENCE}\t{target}\r\n{SENTENCE}\n".encode(), "--beam-size", "2").returncode == 0
    given, ours = page(tmp_path).rows[1:3]
    assert given[1] == SENTENCE + target and not ours[1].endswith(target)


def test_translations_may_stand_in_a_file_of_their_own(report: Run, tmp_path: Path) -> None:
    (tmp_path / "targets.txt").write_text("La maison.\nJe ne sais pas.\n", "utf-8")
    assert report(f"{SENTENCES[0]}\n{SENTENCES[1]}\n".encode(), "--target", "targets.txt").returncode == 0
    assert [row[1] for row in page(tmp_path).rows[1:3]] == [
        f"{SENTENCES[0]}La maison.",
        f"{SENTENCES[1]}Je ne sais pas.",
    ]
    wrong = report(f"{SENTENCES[0]}\n".encode(), "--target", "targets.txt")
    assert wrong.returncode == 2 and b"1 lines" in wrong.stderr and b"2" in wrong.stderr


def test_with_translations_in_a_file_of_their_own_a_tab_is_refused(report: Run, tmp_path: Path) -> None:
    (tmp_path / "targets.txt").write_text("La maison.\nJe ne sais pas.\n", "utf-8")
    lines = f"{SENTENCES[0]}\tLa maison.\n{SENTENCES[1]}\n".encode()
    assert report(lines, "--target", "targets.txt").returncode == 1
    rows = page(tmp_path).rows
    assert rows[1][0] == "2" and ["1", "line 1 has a tab; with --target FILE holds sources alone"] in rows


@pytest.mark.parametrize("name", ["report.pdf", "report"])
def test_a_page_by_another_ending_is_refused_before_any_work(report: Run, tmp_path: Path, name: str) -> None:
    result = report(SENTENCE.encode(), "--output", name)
    assert result.returncode == 2 and b".html or .htm" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"lines.txt"}
    assert report(SENTENCE.encode(), "--output", "report.HTM").returncode == 0


def test_a_page_in_no_folder_is_named_as_it_was_given(report: Run) -> None:
    result = report(SENTENCE.encode(), "--output", "no/report.html")
    assert result.returncode == 2
    assert "interlinear: no/report.html cannot be written: No such file" in result.stderr.decode()


def test_broken_lines_are_listed_with_their_reason_and_the_others_explained(report: Run, tmp_path: Path) -> None:
    broken = [b"caf\xe9", b"a\tb\tc", b"word " * 500, b"\ttranslation of nothing", b"\xe2\x80\x8b", b"source\t"]
    result = report(b"\n".join([SENTENCES[0].encode(), *broken, b"", b"   ", SENTENCES[1].encode()]))
    assert result.returncode == 1
    assert b"6 lines were refused" in result.stderr
    rows = page(tmp_path).rows
    assert [row[0] for row in rows[1:3]] == ["1", "10"]
    refused = {row[0]: row[1] for row in rows if len(row) == 2 and row[0].isdecimal()}
    assert [*refused] == ["2", "3", "4", "5", "6", "7"]
    assert "UTF-8" in refused["2"] and "3 columns" in refused["3"]
    assert all(len(reason) > 10 for reason in refused.values())


def test_a_file_without_a_sentence_makes_an_empty_report(report: Run, tmp_path: Path) -> None:
    assert report(b"\n\n").returncode == 0
    assert len(page(tmp_path).records) == 0


@pytest.mark.parametrize("arguments", [("--beam-size", "99"), ("--model", "klingon")])
def test_a_wrong_option_ends_the_command_and_leaves_no_page(
    report: Run, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    result = report(f"{SENTENCE}\n".encode() * 100, *arguments)
    assert result.returncode == 1
    assert arguments[1] in result.stderr.decode()
    assert {path.name for path in tmp_path.iterdir()} == {"lines.txt"}


def test_a_service_that_is_not_there_is_exit_code_3(report: Run, tmp_path: Path) -> None:
    result = report(f"{SENTENCE}\n".encode() * 100, "--timeout", "5", address="127.0.0.1:1")
    assert result.returncode == 3 and b"interlinear serve" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"lines.txt"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_page_that_cannot_be_written_is_exit_code_2(report: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert report(SENTENCE.encode()).returncode == 2
