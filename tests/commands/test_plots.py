"""Figures read back: an SVG as XML, a PNG as pixels; the paper's convention is x source, y target, 0 black, 1 white."""

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from service.commands.fonts import font_families
from service.commands.plots import PLOTS, FontMissing, write_plot
from service.commands.terminal import END_OF_SENTENCE
from service.pb import interlinear_pb2 as pb
from tests.service.explanations import explanation

SOURCE, TARGET = ["The", "old", "grandfather"], ["Le", "vieux"]
WEIGHTS = np.array([[1.0, 0.0, 0.0, 0.0], [0.2, 0.5, 0.1, 0.2], [0.0, 0.3, 0.3, 0.4]])
NOWHERE = "\U0010fffd"
SVG = "{http://www.w3.org/2000/svg}"


def svg(response: pb.ExplainResponse, view: str, folder: Path) -> ElementTree.Element:
    file = folder / "figure.svg"
    write_plot(response, view, file)
    return ElementTree.parse(file).getroot()


def picture(response: pb.ExplainResponse, view: str, folder: Path) -> np.ndarray:
    file = folder / "figure.png"
    write_plot(response, view, file)
    return np.asarray(Image.open(file).convert("RGB"))


def cells(root: ElementTree.Element, name: str = "cells") -> list[tuple[float, float, str]]:
    """Return left, top and color of each cell of a matrix, in the order of the file."""
    (group,) = [element for element in root.iter(f"{SVG}g") if element.get("id") == name]
    found = []
    for path in group.iter(f"{SVG}path"):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d", ""))]
        color = re.search(r"fill: (#\w{6})", path.get("style", ""))
        found.append((min(numbers[::2]), min(numbers[1::2]), color[1] if color else "#000000"))  # SVG's own default
    return found


def labels(root: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Return the words of a figure with their places."""
    found = {}
    for text in root.iter(f"{SVG}text"):
        moved = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", text.get("transform", ""))
        place = (moved[1], moved[2]) if moved else (text.get("x", "0"), text.get("y", "0"))
        found["".join(text.itertext())] = (float(place[0]), float(place[1]))
    return found


def test_cells_are_gray_from_0_black_to_1_white_with_the_source_across_and_the_target_down(tmp_path: Path) -> None:
    drawn = cells(svg(explanation(SOURCE, TARGET, WEIGHTS), "weights", tmp_path))
    assert len(drawn) == WEIGHTS.size
    columns, rows = (sorted({cell[axis] for cell in drawn}) for axis in (0, 1))
    assert (len(rows), len(columns)) == WEIGHTS.shape
    for left, top, color in drawn:
        weight = WEIGHTS[rows.index(top), columns.index(left)]
        red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
        assert red == green == blue == pytest.approx(255 * weight, abs=1)


def test_words_stand_as_text_at_their_rows_and_columns(tmp_path: Path) -> None:
    root = svg(explanation(SOURCE, TARGET, WEIGHTS), "weights", tmp_path)
    drawn, places = cells(root), labels(root)
    assert [places[word][0] for word in SOURCE] == sorted(places[word][0] for word in SOURCE)
    assert [places[word][1] for word in TARGET] == sorted(places[word][1] for word in TARGET)
    left, top = min(cell[0] for cell in drawn), min(cell[1] for cell in drawn)
    assert all(places[word][1] < top for word in SOURCE), "the source stands above the matrix"
    assert all(places[word][0] < left for word in TARGET), "the translation stands to its left"
    assert END_OF_SENTENCE in places


def test_pixels_of_a_png_say_the_same(tmp_path: Path) -> None:
    weights = np.array([[0.15, 0.35, 0.5], [0.65, 0.1, 0.25]])
    pixels = picture(explanation(["a", "b"], ["x"], weights), "weights", tmp_path).astype(int)
    centers = {}
    for (row, column), weight in np.ndenumerate(weights):
        gray = np.abs(pixels - 255 * weight).max(axis=2) <= 1
        ys, xs = np.nonzero(gray)
        assert len(ys) > 1000, "a cell is an even area, not a gradient"
        centers[row, column] = np.median(ys), np.median(xs)
    assert centers[0, 0][1] < centers[0, 1][1] < centers[0, 2][1]
    assert centers[0, 0][0] < centers[1, 0][0]
    assert centers[0, 1][0] == pytest.approx(centers[0, 2][0], abs=2)


def test_the_nine_terms_share_one_scale_with_0_in_its_middle(tmp_path: Path) -> None:
    response = explanation(SOURCE, TARGET)
    terms = response.decomposition.terms
    values = np.array([np.frombuffer(term.contribution.packed_float32, "<f4") for term in terms])
    values[4] *= 0.01
    terms[4].contribution.packed_float32 = values[4].tobytes()
    root = svg(response, "terms", tmp_path)
    lightness = [[sum(bytes.fromhex(color[1:])) for *_, color in cells(root, f"cells_{term}")] for term in range(9)]
    assert min(lightness[4]) > 3 * 235, "a term near 0 is near white beside larger ones"
    darkest = np.unravel_index(np.argmin(lightness), values.shape)
    assert np.abs(values[darkest]) == pytest.approx(np.abs(values).max(), rel=0.05)
    assert {"temporal × temporal", "delta × input-driven"} <= labels(root).keys()


@pytest.mark.parametrize("count", [1, 5, 11, 40])
def test_titles_of_terms_overlap_nothing_in_a_sentence_of_any_length(count: int) -> None:
    words = [f"word{index}" for index in range(count)]
    figure = PLOTS["terms"](explanation(words, words))
    figure.draw_without_rendering()
    *panels, scale = figure.axes
    boxes = [box for axes in panels for box in (axes.xaxis.label.get_window_extent(), axes.bbox)]
    boxes += [axes.get_xticklabels()[0].get_window_extent() for axes in panels[:3]]
    assert (around := scale.get_tightbbox())
    boxes.append(around)
    assert len(boxes) == 22
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_the_colors_of_shares_have_a_legend() -> None:
    whole, rows = PLOTS["shares"](explanation(SOURCE, TARGET)).axes
    names = [name.get_text() for name in whole.get_yticklabels()]
    legend = rows.get_legend()
    assert legend and [text.get_text() for text in legend.get_texts()] == names
    drawn = [handle.get_facecolor() for handle in legend.get_patches()]
    assert drawn == [bar.get_facecolor() for bar in whole.patches]


def test_shares_name_every_term_and_every_row(tmp_path: Path) -> None:
    names = labels(svg(explanation(SOURCE, TARGET), "shares", tmp_path))
    assert {"input-driven × temporal", "delta × delta", *TARGET, END_OF_SENTENCE} <= names.keys()


@pytest.mark.parametrize(
    ("view", "ending"), [*((view, "svg") for view in PLOTS), ("weights", "pdf"), ("weights", "png")]
)
def test_the_same_explanation_gives_the_same_bytes(tmp_path: Path, view: str, ending: str) -> None:
    files = [tmp_path / f"{name}.{ending}" for name in ("first", "second")]
    for file in files:
        write_plot(explanation(SOURCE, TARGET), view, file)
    first, second = (file.read_bytes() for file in files)
    assert first == second and len(first) > 1000


def test_a_cut_translation_has_no_row_for_its_end(tmp_path: Path) -> None:
    root = svg(explanation(SOURCE, TARGET, WEIGHTS[:2]), "weights", tmp_path)
    assert len(cells(root)) == 8
    assert [*labels(root)].count(END_OF_SENTENCE) == 1


def test_a_price_is_no_formula_and_markup_no_markup(tmp_path: Path) -> None:
    words = ["$5", "and", "$6", "<b>", "&amp;"]
    assert set(words) <= labels(svg(explanation(words, TARGET), "weights", tmp_path)).keys()


def test_sixty_words_by_sixty_have_room_for_every_label(tmp_path: Path) -> None:
    words = [f"Wort{index}" for index in range(60)]
    root = svg(explanation(words, [f"mot{index}" for index in range(60)]), "weights", tmp_path)
    places = labels(root)
    styles = "".join(text.get("style", "") for text in root.iter(f"{SVG}text"))
    sizes = [float(size) for size in re.findall(r"size: (\d+)", styles)]
    gaps = np.diff([places[word][0] for word in words])
    assert min(sizes) >= 7 and gaps.min() >= max(sizes)


def test_right_to_left_words_are_not_reversed(tmp_path: Path) -> None:
    word, override, end = "שלום", "\u202d", "\u202c"
    assert word in labels(svg(explanation(["a"], [word]), "weights", tmp_path)), "in an SVG the viewer orders letters"
    as_drawn = picture(explanation(["a"], [word]), "weights", tmp_path)
    by_hand = picture(explanation(["a"], [override + word[::-1] + end]), "weights", tmp_path)
    reversed_word = picture(explanation(["a"], [word[::-1]]), "weights", tmp_path)
    assert np.array_equal(as_drawn, by_hand)
    assert not np.array_equal(as_drawn, reversed_word)


def test_chinese_words_stay_text_in_an_svg_and_find_a_font_in_a_png(tmp_path: Path) -> None:
    words = ["我", "喜欢", "城市"]
    root = svg(explanation(words, TARGET), "weights", tmp_path)
    assert set(words) <= labels(root).keys()
    families, missing = font_families(words)
    if missing:
        pytest.skip("no font with Chinese characters is installed (Debian: fonts-noto-cjk)")
    styles = {text.get("style", "") for text in root.iter(f"{SVG}text")}
    assert all(families[1] in style for style in styles)
    city, market = (picture(explanation([word], TARGET), "weights", tmp_path) for word in ("城", "市"))
    assert not np.array_equal(city, market), "not two boxes"


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_a_character_without_a_font_is_refused_on_paper_and_kept_in_an_svg(tmp_path: Path, ending: str) -> None:
    response = explanation([NOWHERE], TARGET)
    with pytest.raises(FontMissing, match="U\\+10FFFD"):
        write_plot(response, "weights", tmp_path / f"figure.{ending}")
    assert not list(tmp_path.iterdir())
    assert NOWHERE in labels(svg(response, "weights", tmp_path))
