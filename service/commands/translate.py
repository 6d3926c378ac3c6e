"""``interlinear translate``: texts, a file, or standard input; one line in, one line out."""

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from service.client import DEFAULT_TIMEOUT_SECONDS, Client, translation_of
from service.commands.command_line import (
    DEFAULT_ADDRESS,
    REFUSED,
    Address,
    BeamSize,
    Model,
    Timeout,
    Wait,
    print_line,
    tell,
    text_of,
)
from service.commands.lines import in_order, with_progress
from service.pb import interlinear_pb2 as pb

LengthPenalty = Annotated[float | None, typer.Option("--length-penalty", help="Exponent of the length, 0 to 5.")]
MaxTargetTokens = Annotated[int | None, typer.Option("--max-target-tokens", help="Longest translation, in tokens.")]
ForcedPrefix = Annotated[str | None, typer.Option("--forced-prefix", help="Text the translation must begin with.")]


def translate(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts, one sentence each.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", exists=True, dir_okay=False, help="Lines.")] = None,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    max_target_tokens: MaxTargetTokens = None,
    forced_prefix: ForcedPrefix = None,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """Translate texts, a file, or standard input: one line in, one line out, in order; an empty line stays empty.

    A line that is refused leaves an empty line, its reason on standard error, and exit code 1.
    """
    if texts and file:
        raise typer.BadParameter("give texts or --file, not both")
    options = pb.DecodingOptions(
        beam_size=beam_size,
        length_penalty=length_penalty,
        max_target_tokens=max_target_tokens,
        forced_prefix=forced_prefix,
    )
    template = pb.TranslateRequest(model=model, options=options)

    async def run(lines: Iterable[bytes]) -> int:
        async with Client(address, timeout, wait) as client:
            return await _translate_lines(client, template, lines)

    if texts:
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

    async def work(number: int, line: bytes) -> str:
        text = text_of(line, f"line {number}")
        if not text.strip():
            return ""
        request = pb.TranslateRequest()
        request.CopyFrom(template)
        request.texts.append(text)
        response = await client.translate(request)
        return str(translation_of(response.results[0]).hypotheses[0].text)

    number = 0
    async for outcome in in_order(lines, work):
        number += 1
        if isinstance(outcome, str):
            print_line(outcome)
            continue
        if not outcome.field.startswith("text"):
            raise outcome
        print_line("")
        if outcome.reason != "SOURCE_EMPTY":  # a line of invisible characters is an empty line
            refused += 1
            tell(f"line {number}: {outcome}")
    return refused
