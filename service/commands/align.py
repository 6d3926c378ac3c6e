"""``interlinear align``: the word alignment of one pair, and how well a service aligns what people have aligned."""

import json as json_text
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.progress import Progress
from rich.table import Table

from bundle.alignment import CONFIDENT, AlignmentQuality
from bundle.errors import InvalidGold
from bundle.gold import read_gold
from service.client import DEFAULT_TIMEOUT_SECONDS
from service.commands.alignment_evaluation import Evaluation, Reading
from service.commands.alignment_evaluation import evaluate as evaluated
from service.commands.command_line import (
    DEFAULT_ADDRESS,
    Address,
    Connection,
    Model,
    Timeout,
    Wait,
    argument_text,
    ask,
    print_line,
)
from service.commands.link_formats import Evidence, Format, Method, alignment_options, written
from service.pb import interlinear_pb2 as pb

_SHIFTS = (0, 1, 2)

align = typer.Typer(help="Align the words of a pair, or measure how well a service does it.", no_args_is_help=True)


@align.command()
def text(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A sentence.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Its translation.")],
    output: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.PHARAOH,
    evidence: Annotated[Evidence | None, typer.Option("--evidence", help="What to draw links from.")] = None,
    method: Annotated[Method | None, typer.Option("--method", help="How to draw links; argmax when left out.")] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="Least weight, for that method.")] = None,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """Align the words of a sentence and its translation, as the model would, were the translation its own.

    pharaoh: source-target indices from 0. tsv: a line a link, and one for each word without; places in code points.
    json: the reply of Explain.
    """
    request = pb.ExplainRequest(
        text=argument_text(source, "SOURCE"),
        target=argument_text(target, "TARGET"),
        model=model,
        views=[pb.EXPLANATION_VIEW_ALIGNMENT],
        matrix_encoding=pb.MATRIX_ENCODING_FLOAT_LIST,
        alignment_options=alignment_options(method, threshold, evidence),
    )

    response = ask(Connection(address, timeout, wait), lambda client: client.explain(request))
    print_line(written(response, output))


@align.command()
def evaluate(
    gold: Annotated[list[Path], typer.Argument(metavar="GOLD...", help="One file, two or three; see above.")],
    one_based: Annotated[bool, typer.Option("--one-based", help="The files count words from 1, not from 0.")] = False,
    shift: Annotated[list[int] | None, typer.Option("--shift", min=0, help="Decoder step to read; repeatable.")] = None,
    evidence: Annotated[
        list[Evidence] | None, typer.Option("--evidence", help="What to draw links from; repeatable, both by default.")
    ] = None,
    method: Annotated[list[Method] | None, typer.Option("--method", help="How to draw links; repeatable.")] = None,
    threshold: Annotated[
        list[float] | None, typer.Option("--threshold", min=0, max=1, help="Least weight, for that method; repeatable.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything measured as JSON.")] = False,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """Measure alignments against gold ones, by alignment error rate; the service is made to translate into the target.

    GOLD is one file of source, target, sure links and possible links, separated by tabs; or a file of source |||
    target, and one of links; or one of source, one of target and one of links. Links are i-j (sure), i?j or ipj
    (possible), source first, or in the format of NAACL 2003.
    """
    try:
        pairs = read_gold(gold, int(one_based))
    except InvalidGold as error:
        raise typer.BadParameter(str(error)) from None
    methods, shifts = method or [Method.ARGMAX, Method.THRESHOLD], shift or _SHIFTS
    if threshold and Method.THRESHOLD not in methods:
        raise typer.BadParameter("--threshold is for --method threshold")
    readings = [
        Reading(kind, chosen, moved, least)
        for kind in evidence or list(Evidence)
        for chosen in methods
        for least in ((threshold or [CONFIDENT]) if chosen is Method.THRESHOLD else [None])
        for moved in (shifts if kind is Evidence.ATTENTION else [0])
    ]

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("aligning", total=len(pairs))

        def tick(left: int) -> None:
            progress.update(bar, completed=len(pairs) - left)

        connection = Connection(address, timeout, wait)
        evaluation = ask(connection, lambda client: evaluated(client, model, pairs, readings, tick))
    if json:
        print_line(json_text.dumps(asdict(evaluation), ensure_ascii=False, indent=2))
    else:
        Console().print(evaluation_view(evaluation))


def evaluation_view(evaluation: Evaluation) -> RenderableType:
    """Return a table of what was measured, the baselines below it, then what others have published."""
    title = f"{evaluation.model} ({evaluation.model_digest[:12]}) on {evaluation.pairs:,} sentence pairs"
    table = Table(title=title, title_justify="left")
    for heading in ("from", "by", "shift", "AER", "precision", "recall", "links"):
        table.add_column(heading, justify="left" if heading in ("from", "by") else "right")
    for row in evaluation.rows:
        reading = row.reading
        name = reading.method if reading.threshold is None else f"{reading.method} {reading.threshold:g}"
        shift = "" if reading.evidence == "posterior" else f"{reading.shift}{'*' if row.is_bundle_shift else ''}"
        table.add_row(reading.evidence, name, shift, *_figures(row.quality))
    table.add_section()
    for name, measured in (("diagonal", evaluation.diagonal), ("uniform", evaluation.uniform)):
        table.add_row(name, "", "", *_figures(measured))
    lines: list[RenderableType] = [table, "* the shift of the bundle"]
    if evaluation.refused:
        lines.append(f"{evaluation.refused} pairs were refused by the service and count as without links")
    if evaluation.misplaced:
        lines.append(f"{evaluation.misplaced} gold links name words that are not there and count as not found")
    if known := evaluation.published:
        others = Table(title=f"Published on {known.name}", title_justify="left", caption=known.source)
        others.add_column("system")
        others.add_column("AER", justify="right")
        for system, error_rate in known.alignment_error_rates.items():
            others.add_row(system, f"{error_rate:.3f}")
        lines += ["", others]
    return Group(*lines)


def _figures(measured: AlignmentQuality) -> tuple[str, str, str, str]:
    rates = (measured.alignment_error_rate, measured.precision, measured.recall)
    error_rate, precision, recall = (f"{rate:.3f}" for rate in rates)
    return error_rate, precision, recall, f"{measured.links:,}"
