"""The documents say what is there: targets, commands, links, versions, decisions."""

import os
import re
import shlex
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer.main

from service.commands import app as command_app

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def shown_commands(page: Path) -> list[list[str]]:
    """Return the commands in the ``sh`` blocks of ``page``, continued lines joined, comments and pipes cut off."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(part, comments=True) for line in lines for part in re.split(r" \| | && ", line)]
    return [words for words in commands if words]


def without_assignments(words: list[str]) -> list[str]:
    return [word for word in words if not re.match(r"[A-Z_]+=", word)]


def test_make_help_names_every_target_and_nothing_else() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  ([a-z]+) +\S", shown, flags=re.MULTILINE)) == TARGETS


@EVERY_PAGE
def test_every_make_target_shown_exists(page: Path) -> None:
    shown = [without_assignments(words) for words in shown_commands(page)]
    targets = {target for words in shown if words and words[0] == "make" for target in words[1:]}
    assert targets <= TARGETS


@EVERY_PAGE
def test_every_interlinear_command_shown_exists_with_its_options(page: Path) -> None:
    for name, *arguments in filter(None, map(without_assignments, shown_commands(page))):
        if Path(name).name != "interlinear":
            continue
        part, words = typer.main.get_command(command_app.app), [name]
        of_all = {option for parameter in part.params for option in parameter.opts}
        while arguments and arguments[0].startswith("--") and arguments[0] in of_all:
            arguments = arguments[2:]  # all that stand before a command's name take a value
        while (known := getattr(part, "commands", {})) and (
            arguments or not getattr(part, "invoke_without_command", False)
        ):
            words.append(arguments.pop(0))
            assert words[-1] in known, f"{page.name} shows `{' '.join(words)}`; there are {sorted(known)}"
            part = known[words[-1]]
        options = {option for parameter in part.params for option in parameter.opts} | {"--help"}
        shown = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
        assert shown <= options, f"{page.name}: {' '.join(words)}"


@EVERY_PAGE
def test_every_module_shown_can_be_run(page: Path) -> None:
    commands = [words for words in shown_commands(page) if "-m" in words]
    modules = [words[words.index("-m") + 1] for words in commands]
    assert not [name for name in modules if find_spec(name) is None]


@EVERY_PAGE
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://", "mailto:"))]
    assert not [link for link in local if not (page.parent / link).exists()]


@EVERY_PAGE
def test_every_file_named_in_code_type_exists(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = re.findall(r"`((?:bundle|training|exporters|service|tests|docs|protos|requirements)/[\w./-]+)`", text)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_decisions_are_numbered_in_order_and_say_what_and_why() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:5] for page in pages] == [f"{number:04}-" for number in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text("utf-8")
        assert text.startswith(f"# {page.name[:4]} "), page.name
        assert {"## Decision", "## Reasons"} <= set(text.splitlines()), page.name
        assert len(text.splitlines()) <= 60, f"{page.name} is more than a page"


def test_architecture_lists_every_decision() -> None:
    listed = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert not [page.name for page in (ROOT / "docs" / "decisions").glob("*.md") if page.name not in listed]


def test_architecture_draws_the_layers_that_are_checked() -> None:
    blocks = re.findall(r"(?:^    .*\S\n)+", (ROOT / "docs" / "architecture.md").read_text("utf-8"), flags=re.MULTILINE)
    # a line that starts further in goes on about the layers above it
    drawn = [[line[4:].split("   ")[0] for line in block.splitlines() if line[4] != " "] for block in blocks]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    inside = [contract["layers"] for contract in contracts if "containers" in contract]
    assert len(inside) > 2
    assert [layers for layers in drawn if layers in inside] == inside


def test_every_dependency_has_its_reason() -> None:
    needs = PROJECT["dependencies"] + [need for needs in PROJECT["optional-dependencies"].values() for need in needs]
    names = {match[0] for need in needs if (match := re.match(r"[\w-]+", need))} - {PROJECT["name"]}
    (page,) = (ROOT / "docs" / "decisions").glob("*-dependencies.md")
    assert not {name for name in names if f"`{name}`" not in page.read_text("utf-8")}


def test_the_changelog_begins_with_what_a_version_promises_and_knows_this_one() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    promise = text.split("\n## ")[0]
    assert "bundle" in promise and "wire" in promise
    headings = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    assert PROJECT["version"] in headings


def test_ci_runs_what_a_contributor_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "exec make test" in script.read_text("utf-8")
