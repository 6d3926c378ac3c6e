"""``interlinear report``: a file of sentences becomes one page that says which of them to look at first."""

import asyncio
import os
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import grpc
import typer

from service.client import DEFAULT_TIMEOUT_SECONDS, CallFailed, Client
from service.commands.command_line import (
    DEFAULT_ADDRESS,
    REFUSED,
    Address,
    BeamSize,
    Connection,
    Model,
    Timeout,
    Wait,
    connected,
    tell,
    text_of,
)
from service.commands.lines import in_order, with_progress
from service.pb import interlinear_pb2 as pb

if TYPE_CHECKING:
    from service.commands.report_page import Report

_ENDINGS = (".html", ".htm")
_MOST_COLUMNS = 2
_VIEWS = (pb.EXPLANATION_VIEW_ALIGNMENT, pb.EXPLANATION_VIEW_SHARES)
_FILE_HELP = "Lines: a source, or a source, a tab and its translation."
_TARGET_HELP = "Translations, one for each line of FILE, which then holds sources alone."
_OUTPUT_HELP = "The page to write, one .html file."

Columns = tuple[bytes, ...]  # a source, or a source and its translation; more are refused


def report(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help=_FILE_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help=_OUTPUT_HELP)],
    target: Annotated[Path | None, typer.Option("--target", exists=True, dir_okay=False, help=_TARGET_HELP)] = None,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    beam_size: BeamSize = None,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """Explain every line of a file on one page: sentences to sort by confidence, uncovered source, repetition and more.

    A line that is refused is listed with its reason, and makes exit code 1; an empty line is passed over.
    """
    if output.suffix.lower() not in _ENDINGS:
        raise typer.BadParameter(f"--output {output} must end in {' or '.join(_ENDINGS)}")
    if target and (counts := [_line_count(each) for each in (file, target)])[0] != counts[1]:
        raise typer.BadParameter(
            f"{file} has {counts[0]} lines and {target} has {counts[1]}; give as many translations as sources"
        )
    template = pb.ExplainRequest(model=model, views=_VIEWS)
    if beam_size is not None:
        template.options.beam_size = beam_size

    async def run(page: "Report", lines: Iterable[Columns]) -> None:
        async with connected(Connection(address, timeout, wait)) as client:
            await _explain_lines(client, template, lines, page)

    from service.commands.report_page import report_into  # the other commands start faster without

    with ExitStack() as stack:
        page = stack.enter_context(report_into(output, os.fsencode(file.name).decode(errors="replace")))
        lines = stack.enter_context(with_progress(file))
        targets = stack.enter_context(target.open("rb")) if target else None
        columns = zip(lines, targets, strict=True) if targets else (tuple(line.split(b"\t")) for line in lines)
        asyncio.run(run(page, columns))
    if page.refused:
        tell(f"{page.refused} lines were refused; {output} lists them with their reasons")
        sys.exit(REFUSED)


async def _explain_lines(client: Client, template: pb.ExplainRequest, lines: Iterable[Columns], page: "Report") -> None:
    """Put the explanation of each line, or why there is none, into ``page``.

    Raises:
        CallFailed: The service, or an option of the call, is at fault, so that no further line has a chance.
    """

    async def work(number: int, columns: Columns) -> pb.ExplainResponse | None:
        request = _request(template, number, columns)
        return await client.explain(request) if request else None

    number = 0
    async for outcome in in_order(lines, work):
        number += 1
        if isinstance(outcome, pb.ExplainResponse):
            page.add(number, outcome)
        elif isinstance(outcome, CallFailed):
            if not outcome.field.startswith(("text", "target")):
                raise outcome
            page.refuse(number, str(outcome))


def _request(template: pb.ExplainRequest, number: int, columns: Columns) -> pb.ExplainRequest | None:
    """Return the request for a line, or nothing for an empty line.

    Raises:
        CallFailed: A text is not UTF-8, or the line has too many columns.
    """
    if len(columns) > _MOST_COLUMNS:
        raise _line_invalid(
            f"line {number} has {len(columns)} columns; it may have a source, or a source and its translation"
        )
    if b"\t" in columns[0]:  # not split, because the translations stand elsewhere
        raise _line_invalid(f"line {number} has a tab; with --target FILE holds sources alone")
    text, *targets = (text_of(column, f"line {number}") for column in columns)
    if not any(each.strip() for each in (text, *targets)):
        return None
    request = pb.ExplainRequest()
    request.CopyFrom(template)
    request.text = text
    if targets:
        request.target = targets[0]
        request.ClearField("options")  # with a target nothing is searched, and options of a search are refused
    return request


def _line_invalid(message: str) -> CallFailed:
    return CallFailed(message, grpc.StatusCode.INVALID_ARGUMENT, "LINE_INVALID", "text")


def _line_count(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for _ in lines)
