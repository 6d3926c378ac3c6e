"""``interlinear translate``: texts, lines of a file or of standard input, or a document."""

import asyncio
import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from service.client import DEFAULT_TIMEOUT_SECONDS, Client, translation_of
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
    print_line,
    tell,
    text_of,
)
from service.commands.document import translate_file
from service.commands.lines import in_order, with_progress
from service.commands.terminal import cut_off, doubts
from service.pb import interlinear_pb2 as pb

LengthPenalty = Annotated[float | None, typer.Option("--length-penalty", help="Exponent of the length, 0 to 5.")]
MaxTargetTokens = Annotated[int | None, typer.Option("--max-target-tokens", help="Longest translation, in tokens.")]
ForcedPrefix = Annotated[str | None, typer.Option("--forced-prefix", help="Text the translation must begin with.")]
NoRepeat = Annotated[int | None, typer.Option("--no-repeat-ngram-size", help="No run of so many tokens comes twice.")]


class Guard(StrEnum):
    """How closely to look for translations that went wrong."""

    REPORT = "report"
    RETRY = "retry"


_DOCUMENT_HELP = "Text file to translate as a whole; - for standard input."
_GUARD_HELP = "Tell on standard error what speaks against a translation; with retry, translate again what loops."


def translate(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts, one sentence each.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", exists=True, dir_okay=False, help="Lines.")] = None,
    document: Annotated[Path | None, typer.Option("--document", "-d", help=_DOCUMENT_HELP)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where a document's translation goes.")] = None,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    max_target_tokens: MaxTargetTokens = None,
    forced_prefix: ForcedPrefix = None,
    no_repeat_ngram_size: NoRepeat = None,
    guard: Annotated[Guard | None, typer.Option("--guard", help=_GUARD_HELP)] = None,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """Translate texts, a file, or standard input: one line in, one line out, in order; an empty line stays empty.

    A line that is refused leaves an empty line, its reason on standard error, and exit code 1. What is cut off is told.

    With --document, translate a text file as a whole: in sentences, and all that stands between them is kept as it is.
    A connection that breaks is taken up again. A sentence that is refused stays in its language, with its line and
    its reason on standard error, and exit code 1.
    """
    if sum(map(bool, (texts, file, document))) > 1:
        raise typer.BadParameter("give texts, --file or --document, and only one of them")
    if output and not document:
        raise typer.BadParameter("--output is for --document; send lines where you want them with >")
    options = pb.DecodingOptions(
        beam_size=beam_size,
        length_penalty=length_penalty,
        max_target_tokens=max_target_tokens,
        forced_prefix=forced_prefix,
        no_repeat_ngram_size=no_repeat_ngram_size,
    )
    template = pb.TranslateRequest(
        model=model, options=options, guard=None if guard is None else f"TRANSLATION_GUARD_{guard.upper()}"
    )
    connection = Connection(address, timeout, wait)

    async def run(lines: Iterable[bytes]) -> int:
        async with connected(connection) as client:
            return await _translate_lines(client, template, lines)

    if document:
        whole = pb.DocumentOptions(model=model, options=options, guard=template.guard)
        refused = translate_file(connection, whole, document, output)
    elif texts:
        refused = asyncio.run(run([os.fsencode(text) for text in texts]))
    elif file:
        with with_progress(file) as lines:
            refused = asyncio.run(run(lines))
    else:
        if sys.stdin is None:  # how Python tells that its caller has closed it
            raise typer.BadParameter("standard input is closed; give texts or --file")
        if sys.stdin.isatty():
            tell("reading lines from standard input; Ctrl-D ends")
        # Nobody closes it: after a failure a thread may be reading from it for ever, and closing would wait for that.
        refused = asyncio.run(run(open(sys.stdin.fileno(), "rb", closefd=False)))  # noqa: SIM115
    sys.exit(REFUSED if refused else 0)


async def _translate_lines(client: Client, template: pb.TranslateRequest, lines: Iterable[bytes]) -> int:
    """Print one line for each of ``lines``, in order; return how many were refused.

    Raises:
        CallFailed: The service, or an option of the call, is at fault, so that no further line has a chance.
    """
    refused = 0

    async def work(number: int, line: bytes) -> pb.Translation:
        text = text_of(line, f"line {number}")
        if not text.strip():
            return pb.Translation(hypotheses=[pb.Hypothesis()])
        request = pb.TranslateRequest()
        request.CopyFrom(template)
        request.texts.append(text)
        response = await client.translate(request)
        return translation_of(response.results[0])

    number = 0
    async for outcome in in_order(lines, work):
        number += 1
        if isinstance(outcome, pb.Translation):
            print_line(outcome.hypotheses[0].text)
            if template.guard and (said := doubts(outcome.suspicions)):
                tell(f"line {number} is suspicious: {said}")
            elif said := cut_off(outcome):
                tell(f"line {number}: {said}")
            continue
        if not outcome.field.startswith("text"):
            raise outcome
        print_line("")
        if outcome.reason != "SOURCE_EMPTY":  # a line of invisible characters is an empty line
            refused += 1
            tell(f"line {number}: {outcome}")
    return refused
