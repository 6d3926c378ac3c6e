"""Figures on paper, drawn by matplotlib: attention and its nine terms as matrices, shares as bars; SVG, PDF or PNG.

Axes of every matrix: x is the source, at the top and from left to right; y is the translation, from top to bottom.
Attention weights are gray, 0 black and 1 white, as in figure 3 of Bahdanau et al. 2015 (arXiv 1409.0473). What has a
sign is blue below 0, white at 0 and red above it, on one scale for all panels of a figure.

The same explanation gives the same bytes, whenever it is drawn: a figure can be compared with one that was kept.
"""

import warnings
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.cells import cell_len

from service.client import array
from service.commands.fonts import FIRST_FAMILY, font_advice, font_families
from service.commands.terminal import COMPONENT_NAMES, END_OF_SENTENCE
from service.pb import interlinear_pb2 as pb

_STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "text.parse_math": False,  # a price is no formula
    "svg.fonttype": "none",  # text stays text: it can be searched, edited, and drawn with the viewer's fonts
    "svg.hashsalt": "interlinear",
    "pdf.fonttype": 42,
    "axes.linewidth": 0.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
}
_METADATA: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": "Interlinear"},
    "pdf": {"CreationDate": None, "Creator": "Interlinear", "Producer": None},
    "png": {"Software": None},
}
_DOTS_PER_INCH = 200
_SEAM = 0.6  # points by which cells overlap: viewers of SVG and PDF let the page shine through otherwise
_MOST_SHAPES = 10_000  # cells that an SVG or PDF draws one by one; more become a picture, or it gets slow to open
_INCH = 72.0  # points
_CELL, _SMALL_CELL = 0.22, 0.11  # inches
_GAP, _SCALE_HEIGHT, _BARS_WIDTH, _NAMES_WIDTH = 0.35, 1.5, 2.2, 1.3  # inches
_NARROW = 2  # columns of a terminal: names no wider stand upright over a cell
_LABEL_POINTS, _TITLE_POINTS = 9.0, 7.5
_TITLE_WIDTH = 1.5  # inches: the longest name of a term, in _TITLE_POINTS
_GRAY, _SIGNED = "gray", "RdBu_r"
# Hue tells the encoder's part, lightness the decoder's: temporal is blue, input-driven green, delta orange.
_TERM_COLORS = ("#08519c", "#4292c6", "#9ecae1", "#006d2c", "#41ab5d", "#a1d99b", "#a63603", "#f16913", "#fdae6b")


class Names(NamedTuple):
    """What stands at the columns and the rows of a matrix."""

    source: list[str]
    target: list[str]


class FontMissing(Exception):
    """No installed font has some characters of the figure; the message says which, and what to install."""


def write_plot(response: pb.ExplainResponse, view: str, file: Path) -> None:
    """Draw a view of an explanation into ``file``, whose ending, .svg, .pdf or .png, says how.

    Text in any script comes out right, right-to-left scripts included; in an SVG it stays text, so there a font may be
    missing here and present where it is looked at.

    Args:
        response: An explanation with every view.
        view: A key of ``PLOTS``.
        file: Where to write.

    Raises:
        FontMissing: A character has no font, and the format has to have its shape.
        OSError: The file cannot be written.
    """
    ending = file.suffix[1:].lower()
    names = _words(response) if view in ("weights", "posterior") else _piece_names(response)
    families, missing = font_families([*names.source, *names.target])
    if missing and ending != "svg":
        raise FontMissing(font_advice(missing))
    # A generic family stands for one font only; here it is what an SVG's viewer falls back to.
    look = _STYLE | {"font.family": [*families, "sans-serif"], "font.sans-serif": [FIRST_FAMILY]}
    with style.context(["default", look]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # an SVG is drawn where the fonts may be others
        PLOTS[view](response).savefig(
            file, format=ending, dpi=_DOTS_PER_INCH, metadata=_METADATA[ending], bbox_inches="tight"
        )


def _weights(response: pb.ExplainResponse) -> Figure:
    return _matrix_figure(array(response.hypothesis.alignment.word_weights), _words(response), "attention weight")


def _posterior(response: pb.ExplainResponse) -> Figure:
    return _matrix_figure(
        array(response.hypothesis.alignment.posterior_word_weights), _words(response), "posterior weight"
    )


def _pieces(response: pb.ExplainResponse) -> Figure:
    return _matrix_figure(array(response.attention_weights), _piece_names(response), "attention weight")


def _scores(response: pb.ExplainResponse) -> Figure:
    return _matrix_figure(array(response.attention_scores), _piece_names(response), "score", signed=True)


def _matrix_figure(
    values: Float[np.ndarray, "target source"], names: Names, what: str, *, signed: bool = False
) -> Figure:
    figure, (axes,) = _panels(1, _CELL, values.shape, 0.0)
    drawn = _draw_matrix(axes, values, _signed_scale([values]) if signed else Normalize(0.0, 1.0), "cells")
    _name_columns(axes, names.source, _CELL)
    _name_rows(axes, names.target, _CELL)
    axes.set_xlabel("source")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("translation")
    _draw_scale(figure, drawn, what)
    return figure


def _terms(response: pb.ExplainResponse) -> Figure:
    """Draw nine panels, encoder components down and decoder components across, as everywhere."""
    terms, names = response.decomposition.terms, _piece_names(response)
    values = [array(term.contribution) for term in terms]
    cell = min(max(_TITLE_WIDTH / values[0].shape[1], _SMALL_CELL), _CELL)
    figure, panels = _panels(3, cell, values[0].shape, _TITLE_WIDTH)
    scale = _signed_scale(values)
    for index, (axes, term) in enumerate(zip(panels, terms, strict=True)):
        drawn = _draw_matrix(axes, values[index], scale, f"cells_{index}")
        drawn.set_rasterized(9 * values[index].size > _MOST_SHAPES)
        _name_columns(axes, names.source if index < 3 else [], cell)
        _name_rows(axes, names.target if index % 3 == 0 else [], cell)
        axes.set_xlabel(f"{_term_name(term)}\n{_percent(term.share)}", fontsize=_TITLE_POINTS)
    _draw_scale(figure, drawn, "part of the score")
    return figure


def _shares(response: pb.ExplainResponse) -> Figure:
    """Draw the share of each term, of the whole sentence as bars and of each row as parts of one bar."""
    terms, names = response.decomposition.terms, _piece_names(response).target
    figure = Figure((_BARS_WIDTH, len(terms) * _CELL))
    whole = _bars(figure, 0.0, len(terms), "share, encoder × decoder")
    whole.barh(_middles(terms), [100 * term.share for term in terms], color=_TERM_COLORS, height=0.8)
    _name_rows(whole, [_term_name(term) for term in terms], _CELL)

    rows = _bars(figure, _BARS_WIDTH + _NAMES_WIDTH, len(names), "share of each row")
    positive, negative = np.zeros(len(names)), np.zeros(len(names))
    for term, color in zip(terms, _TERM_COLORS, strict=True):
        shares = 100 * np.array(term.row_shares)
        begin = np.where(shares >= 0, positive, negative)
        rows.barh(_middles(names), shares, left=begin, color=color, height=0.8, label=_term_name(term))
        positive, negative = positive + np.maximum(shares, 0), negative + np.minimum(shares, 0)
    _name_rows(rows, names, _CELL)
    rows.legend(loc="upper left", bbox_to_anchor=(1.05, 1.0), frameon=False, title="encoder × decoder")
    return figure


PLOTS = {
    "weights": _weights,
    "posterior": _posterior,
    "pieces": _pieces,
    "scores": _scores,
    "terms": _terms,
    "shares": _shares,
}


def _panels(side: int, cell: float, shape: tuple[int, ...], title_width: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``side`` x ``side`` axes, each with room for cells of ``cell`` inches, rows first.

    The next panel stands further off where a title of ``title_width`` inches is wider than a panel. Names stand
    outside of the figure: it is cropped, or grown, to what was drawn.
    """
    height, width = (size * cell for size in shape)
    figure = Figure((width, height))
    down, across = 1 + _GAP / height, (max(width, title_width) + _GAP) / width
    return figure, [
        figure.add_axes((column * across, -row * down, 1.0, 1.0)) for row in range(side) for column in range(side)
    ]


def _draw_matrix(axes: Axes, values: Float[np.ndarray, "target source"], scale: Normalize, name: str) -> QuadMesh:
    rows, columns = values.shape
    palette = _GRAY if scale.vmin == 0 else _SIGNED  # only weights begin at 0
    edges = np.arange(columns + 1), np.arange(rows + 1)
    drawn = axes.pcolormesh(*edges, values, norm=scale, cmap=palette, edgecolors="face", linewidth=_SEAM)
    drawn.set_gid(name)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    return drawn


def _signed_scale(matrices: Sequence[Float[np.ndarray, "target source"]]) -> Normalize:
    limit = max(float(np.abs(matrix).max()) for matrix in matrices)
    return Normalize(-limit, limit) if limit else Normalize(-1.0, 1.0)


def _draw_scale(figure: Figure, drawn: QuadMesh, what: str) -> None:
    """Draw the meaning of the colors to the right of what stands in the figure."""
    width, height = figure.get_size_inches()
    right = figure.get_tightbbox().x1 / width
    box = (right + 0.15 / width, 1 - _SCALE_HEIGHT / height, 0.1 / width, _SCALE_HEIGHT / height)
    figure.colorbar(drawn, cax=figure.add_axes(box), label=what)


def _bars(figure: Figure, left: float, rows: int, what: str) -> Axes:
    """Return axes for ``rows`` horizontal bars in percent, ``left`` inches from the left of the figure."""
    width, height = figure.get_size_inches()
    bars_height = rows * _CELL / height
    axes = figure.add_axes((left / width, 1 - bars_height, 1.0, bars_height))
    axes.set(ylim=(rows, 0), xlabel=what)
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.axvline(0, color="black", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _name_columns(axes: Axes, names: Sequence[str], cell: float) -> None:
    upright = all(cell_len(name) <= _NARROW for name in names)
    axes.xaxis.tick_top()
    axes.set_xticks(_middles(names), names, rotation=0 if upright else 90, fontsize=_points(cell))


def _name_rows(axes: Axes, names: Sequence[str], cell: float) -> None:
    axes.set_yticks(_middles(names), names, fontsize=_points(cell))


def _middles(cells: Sized) -> Float[np.ndarray, "cell"]:
    return np.arange(len(cells)) + 0.5


def _points(cell: float) -> float:
    """Return the size of names that stand at cells of so many inches."""
    return min(_LABEL_POINTS, 0.8 * _INCH * cell)


def _term_name(term: pb.Term) -> str:
    return f"{COMPONENT_NAMES[term.encoder]} × {COMPONENT_NAMES[term.decoder]}"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "−")


def _words(response: pb.ExplainResponse) -> Names:
    source, target = ([word.text for word in text.words] for text in (response.source, response.hypothesis.target))
    return _with_ends(source, target, response.hypothesis.alignment.word_weights.rows)


def _piece_names(response: pb.ExplainResponse) -> Names:
    """Return pieces as the vocabulary spells them: their space shows where words begin."""
    source, target = ([piece.piece for piece in text.pieces] for text in (response.source, response.hypothesis.target))
    return _with_ends(source, target, response.attention_weights.rows)


def _with_ends(source: list[str], target: list[str], rows: int) -> Names:
    """Return names with the end of sentence, which a cut translation does not have."""
    return Names([*source, END_OF_SENTENCE], [*target, END_OF_SENTENCE][:rows])
