"""Figures of an explanation as files: on paper where matplotlib is installed, and as one self-contained page."""

from enum import StrEnum
from pathlib import Path

from google.protobuf import json_format

from service.pb import interlinear_pb2 as pb
from service.web import standalone

FORMATS = ("svg", "pdf", "png", "html")


class View(StrEnum):
    """What a figure on paper shows; the page shows everything."""

    WEIGHTS = "weights"  # attention between words
    POSTERIOR = "posterior"  # the same once each word is known
    PIECES = "pieces"  # attention between sub-word pieces, as the model has it
    SCORES = "scores"  # the same before softmax
    TERMS = "terms"  # the nine terms of the scores
    SHARES = "shares"  # how much each term shapes the attention: of the sentence, and row by row


class FigureImpossible(Exception):
    """Something that the figure needs is missing; the message says what, and what to do."""


def write_figure(response: pb.ExplainResponse, view: View, file: Path) -> None:
    """Write a figure into ``file``, whose ending, one of ``FORMATS``, says how.

    Args:
        response: An explanation with every view.
        view: What to show.
        file: Where to write.

    Raises:
        FigureImpossible: matplotlib is not installed, no font has the characters, or the model gives no posterior.
        OSError: The file cannot be written.
    """
    if file.suffix.lower() == ".html":
        page = standalone(json_format.MessageToJson(response, ensure_ascii=False), response.source.text)
        file.write_text(page, "utf-8")
        return
    try:
        from service.commands import plots  # only who draws on paper needs matplotlib
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise FigureImpossible(
            "a figure on paper needs matplotlib: pip install 'interlinear[figures]', or 'matplotlib>=3.11'; "
            "an .html figure needs nothing"
        ) from None
    if view is View.POSTERIOR and not response.hypothesis.alignment.HasField("posterior_word_weights"):
        raise FigureImpossible("this model gives no posterior; draw --view weights, or export its bundle again")
    try:
        plots.write_plot(response, view, file)
    except plots.FontMissing as error:
        raise FigureImpossible(str(error)) from None
