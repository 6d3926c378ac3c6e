"""Formats, figures and choices of ``interlinear explain``; what it draws in a terminal is in test_app.py."""

import json
from functools import partial
from pathlib import Path

import pytest

from service.translation import TranslationOptions
from tests.commands.command import Run
from tests.service.edge import SENTENCE


@pytest.fixture
def explain(interlinear: Run) -> Run:
    return partial(interlinear, "explain", SENTENCE)


def told(explain: Run, *arguments: str) -> str:
    result = explain(*arguments)
    assert (result.returncode, result.stderr) == (0, b"")
    return result.stdout.decode()


@pytest.mark.parametrize(("name", "option"), [("json", "--json"), ("pharaoh", "--pharaoh")])
def test_a_format_goes_by_both_its_names(explain: Run, name: str, option: str) -> None:
    by_format, by_option, by_both = (
        told(explain, *arguments) for arguments in (("--format", name), (option,), (option, "--format", name))
    )
    if name == "json":
        texts = [json.loads(each)["hypothesis"] for each in (by_format, by_option, by_both)]
        assert texts[0] == texts[1] == texts[2]
    else:
        assert by_format == by_option == by_both


def test_tsv_has_a_heading_and_a_line_for_each_link(explain: Run) -> None:
    heading, *rows = [line.split("\t") for line in told(explain, "--format", "tsv").splitlines()]
    assert heading[:4] == ["source_index", "target_index", "source_word", "target_word"] and heading[-1] == "weight"
    links = {f"{row[0]}-{row[1]}" for row in rows if row[0] and row[1]}
    assert links == set(told(explain, "--pharaoh").split())
    for row in rows:
        if row[0]:
            assert SENTENCE[int(row[4]) : int(row[5])] == row[2]


def test_a_threshold_draws_more_links_the_lower_it_is(explain: Run) -> None:
    counts = [len(told(explain, "--threshold", each, "--pharaoh").split()) for each in ("0.02", "0.5")]
    assert counts[0] > counts[1]
    named = told(explain, "--method", "threshold", "--threshold", "0.02", "--pharaoh")
    assert len(named.split()) == counts[0]


def test_the_terminal_says_which_links_were_drawn_and_how(explain: Run) -> None:
    for arguments in ((), ("--threshold", "0.02"), ("--method", "argmax", "--evidence", "attention")):
        said = told(explain, *arguments).partition("links, source-target, by ")[2].partition("\n\n")[0]
        how, _, links = " ".join(said.split()).partition(": ")
        assert links == told(explain, *arguments, "--pharaoh").strip()
    assert how == "argmax from attention"


def test_any_hypothesis_of_the_n_best_can_be_explained(explain: Run) -> None:
    texts = [json.loads(told(explain, "--hypothesis", str(index), "--json"))["hypothesis"]["text"] for index in (0, 1)]
    assert texts[0] != texts[1]
    assert told(explain, "--hypothesis", "5", "--beam-size", "6", "--pharaoh")


def test_a_figure_is_written_and_nothing_printed(explain: Run, tmp_path: Path) -> None:
    for name, beginning in {"out.PNG": b"\x89PNG", "out.html": b"<!doctype"}.items():
        file = tmp_path / name
        assert told(explain, "--figure", str(file)) == ""
        assert file.read_bytes().startswith(beginning)
    assert told(explain, "--figure", str(tmp_path / "shares.svg"), "--view", "shares") == ""
    assert "delta × delta" in (tmp_path / "shares.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--figure", "out.gif"), ".svg, .pdf, .png, .html"),
        (("--figure", "out"), ".svg"),
        (("--view", "terms"), "--figure"),
        (("--figure", "out.html", "--view", "terms"), "--view"),
        (("--figure", "out.svg", "--json"), "not both"),
        (("--format", "tsv", "--json"), "one of"),
        (("--format", "xml"), "tsv"),
        (("--hypothesis", "-1"), "hypothesis"),
        (("--hypothesis", "40"), f"--hypothesis is 40; with --beam-size {TranslationOptions().beam_size} allowed is 0"),
        (("--hypothesis", "2", "--beam-size", "2"), "0 to 1, and --beam-size may be up to 16"),
        (("--hypothesis", "1", "--target", "La maison."), "leave it out"),
    ],
)
def test_a_wrong_command_line_says_what_is_allowed(explain: Run, arguments: tuple[str, ...], words: str) -> None:
    result = explain(*arguments)
    assert (result.returncode, result.stdout) == (2, b"")
    assert words in " ".join(result.stderr.decode().replace("│", " ").split())


def test_a_folder_that_is_not_there_is_one_line_and_exit_code_2(explain: Run, tmp_path: Path) -> None:
    result = explain("--figure", str(tmp_path / "no" / "out.svg"))
    assert result.returncode == 2
    (line,) = result.stderr.decode().splitlines()
    assert line.endswith("out.svg cannot be written: No such file or directory")


def test_a_character_without_a_font_is_one_line_and_exit_code_2(explain: Run, tmp_path: Path) -> None:
    result = explain("--target", "La maison \U0010fffd.", "--figure", str(tmp_path / "out.png"))
    assert result.returncode == 2
    (line,) = result.stderr.decode().splitlines()
    assert "U+10FFFD" in line and "svg" in line
