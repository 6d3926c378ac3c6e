"""``interlinear explain``: why a translation has the shape it has, in a terminal, as data, or as a figure."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bundle.step import MAX_BEAM_SIZE
from service.client import DEFAULT_TIMEOUT_SECONDS
from service.commands.command_line import (
    DEFAULT_ADDRESS,
    Address,
    BeamSize,
    Connection,
    Json,
    Model,
    Timeout,
    Unusable,
    Wait,
    argument_text,
    ask,
    print_line,
)
from service.commands.figures import FORMATS, FigureImpossible, View, write_figure
from service.commands.link_formats import Evidence, Format, Method, alignment_options, written
from service.commands.terminal import explanation_view
from service.pb import interlinear_pb2 as pb

_DEFAULT_BEAM_SIZE = 4  # of the service; its own module would make every start of the command slower
_FIGURE_HELP = f"Draw a figure into this file instead, by its ending: {', '.join(FORMATS)}."
_VIEW_HELP = "What the figure shows: attention between words or pieces, the posterior, scores, their terms, or shares."
_FORMAT_HELP = "Print links as Pharaoh (source-target) or as a table, or the whole reply as JSON."
_METHOD_HELP = "How to draw links; argmax when left out."
_THRESHOLD_HELP = "Link every pair of words of at least this weight, 0 to 1."
_HYPOTHESIS_HELP = "Which of the n-best translations to explain, 0 the best."


def explain(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The source, one sentence.")],
    target: Annotated[str | None, typer.Option("--target", help="A translation to explain instead of ours.")] = None,
    hypothesis: Annotated[int | None, typer.Option("--hypothesis", min=0, help=_HYPOTHESIS_HELP)] = None,
    figure: Annotated[Path | None, typer.Option("--figure", dir_okay=False, help=_FIGURE_HELP)] = None,
    view: Annotated[View | None, typer.Option("--view", help=_VIEW_HELP)] = None,
    format: Annotated[Format | None, typer.Option("--format", help=_FORMAT_HELP)] = None,
    json: Json = False,
    pharaoh: Annotated[bool, typer.Option("--pharaoh", help="Print only the word links, source-target.")] = False,
    method: Annotated[Method | None, typer.Option("--method", help=_METHOD_HELP)] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help=_THRESHOLD_HELP)] = None,
    evidence: Annotated[Evidence | None, typer.Option("--evidence", help="What to draw links from.")] = None,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    beam_size: BeamSize = None,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """Explain a translation: word alignment as a heat map, shares of the nine terms, and how far to trust them."""
    wanted = _format(format, json, pharaoh)
    _check_figure(figure, view, wanted)
    _check_hypothesis(hypothesis, target, beam_size)
    request = pb.ExplainRequest(
        text=argument_text(text, "TEXT"),
        target=None if target is None else argument_text(target, "--target"),
        model=model,
        options=pb.DecodingOptions(beam_size=beam_size, num_hypotheses=hypothesis + 1 if hypothesis else None),
        views=[pb.EXPLANATION_VIEW_ALIGNMENT] if wanted in (Format.PHARAOH, Format.TSV) else [],
        matrix_encoding=pb.MATRIX_ENCODING_FLOAT_LIST if wanted is Format.JSON else pb.MATRIX_ENCODING_UNSPECIFIED,
        alignment_options=alignment_options(method, threshold, evidence),
        hypothesis_index=hypothesis,
    )
    response = ask(Connection(address, timeout, wait), lambda client: client.explain(request))
    if figure:
        _draw(response, view, figure)
    elif wanted:
        print_line(written(response, wanted))
    else:
        console = Console()
        console.print(explanation_view(response, console.width))


def _format(format: Format | None, json: bool, pharaoh: bool) -> Format | None:
    """Return the one format that was asked for, under either of its names."""
    named = {Format.JSON: json, Format.PHARAOH: pharaoh}
    asked = {each for each, given in named.items() if given} | ({format} if format else set())
    if len(asked) > 1:
        raise typer.BadParameter("give one of --json, --pharaoh and --format")
    return asked.pop() if asked else None


def _check_figure(figure: Path | None, view: View | None, wanted: Format | None) -> None:
    if not figure:
        if view:
            raise typer.BadParameter("--view says what a figure shows: give --figure too")
        return
    if wanted:
        raise typer.BadParameter("give a format or --figure, not both")
    if figure.suffix[1:].lower() not in FORMATS:
        raise typer.BadParameter(f"--figure {figure} must end in one of .{', .'.join(FORMATS)}")
    if view and figure.suffix.lower() == ".html":
        raise typer.BadParameter("an .html figure shows every view: leave --view out")


def _check_hypothesis(hypothesis: int | None, target: str | None, beam_size: int | None) -> None:
    if hypothesis is None:
        return
    if target is not None:
        raise typer.BadParameter("--hypothesis chooses among our translations: leave it out where --target gives one")
    kept = _DEFAULT_BEAM_SIZE if beam_size is None else beam_size
    if hypothesis and hypothesis >= kept:
        raise typer.BadParameter(
            f"--hypothesis is {hypothesis}; with --beam-size {kept} allowed is 0 to {kept - 1}, "
            f"and --beam-size may be up to {MAX_BEAM_SIZE}"
        )


def _draw(response: pb.ExplainResponse, view: View | None, file: Path) -> None:
    try:
        write_figure(response, view or View.WEIGHTS, file)
    except FigureImpossible as error:
        raise Unusable(str(error)) from None
    except OSError as error:
        raise Unusable(f"{file} cannot be written: {error.strerror}") from None
