import subprocess
import sys
from pathlib import Path

import pytest

from service.commands.figures import FORMATS, FigureImpossible, View, write_figure
from service.commands.plots import PLOTS
from tests.service.edge import ROOT
from tests.service.explanations import explanation

WITHOUT_MATPLOTLIB = """
import sys
from pathlib import Path

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")

sys.meta_path.insert(0, Without())
from service.commands.figures import FigureImpossible, View, write_figure
from tests.service.explanations import explanation
write_figure(explanation(["a"], ["b"]), View.WEIGHTS, Path(sys.argv[1], "figure.html"))
try:
    write_figure(explanation(["a"], ["b"]), View.WEIGHTS, Path(sys.argv[1], "figure.svg"))
except FigureImpossible as error:
    print(error)
"""


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_is_written(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"figure.{ending}"
    write_figure(explanation(["cat"], ["chat"]), View.TERMS, file)
    beginnings = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG", "html": b"<!doctype html>"}
    assert file.read_bytes().startswith(beginnings[ending])


def test_every_view_is_drawn() -> None:
    assert set(View) == set(PLOTS)


def test_a_page_holds_the_words_it_shows(tmp_path: Path) -> None:
    file = tmp_path / "figure.html"
    write_figure(explanation(["<b>", "城市"], ["chat"]), View.WEIGHTS, file)
    page = file.read_text("utf-8")
    assert "<title>&lt;b&gt; 城市</title>" in page and "chat" in page


def test_without_matplotlib_a_page_is_written_and_paper_says_what_to_install(tmp_path: Path) -> None:
    told = python(WITHOUT_MATPLOTLIB, str(tmp_path))
    assert "pip install" in told and "matplotlib" in told
    assert [file.name for file in tmp_path.iterdir()] == ["figure.html"]


def test_a_model_without_a_posterior_says_so(tmp_path: Path) -> None:
    response = explanation(["a"], ["b"])
    write_figure(response, View.POSTERIOR, tmp_path / "figure.svg")
    response.hypothesis.alignment.ClearField("posterior_word_weights")
    with pytest.raises(FigureImpossible, match="posterior"):
        write_figure(response, View.POSTERIOR, tmp_path / "figure.svg")


def test_a_missing_font_is_a_figure_that_is_impossible(tmp_path: Path) -> None:
    with pytest.raises(FigureImpossible, match="install"):
        write_figure(explanation(["\U0010fffd"], ["b"]), View.WEIGHTS, tmp_path / "figure.png")


def test_neither_the_command_nor_the_server_imports_matplotlib() -> None:
    told = python("import sys, service.commands.app, service.__main__; print('matplotlib' in sys.modules)")
    assert told == "False\n"
