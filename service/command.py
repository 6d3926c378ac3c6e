"""The command ``interlinear``: serve, translate, explain, models.

Exit codes: 0 all done; 1 the service refused a text or an option; 2 the command line is wrong, or a file cannot be read
or written; 3 the service could not be reached, was too busy, or did not answer in time.
"""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import grpc
import typer
from google.protobuf import json_format
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bundle.alignment import write_pharaoh
from service.client import DEFAULT_TIMEOUT_SECONDS, CallFailed, Client, translation_of
from service.pb import interlinear_pb2 as pb
from service.terminal import explanation_view, model_view

REFUSED, UNUSABLE, UNREACHABLE = 1, 2, 3
LINES_IN_FLIGHT = 32  # enough to fill the service's batches, far from filling its queue

_UNREACHABLE_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNIMPLEMENTED,
}

app = typer.Typer(
    help="Translate, and see why the translation has the shape it has.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_ADDRESS = typer.Option("--address", envvar="INTERLINEAR_GRPC_ADDRESS", help="Where the service listens, host:port.")
Address = Annotated[str, _ADDRESS]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for each answer.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for a service that is still starting.")]
Model = Annotated[str, typer.Option("--model", help="Name of the model; the default one when left out.")]
BeamSize = Annotated[int | None, typer.Option("--beam-size", help="Hypotheses kept at each step, 1 to 16.")]
LengthPenalty = Annotated[float | None, typer.Option("--length-penalty", help="Exponent of the length, 0 to 5.")]
MaxTargetTokens = Annotated[int | None, typer.Option("--max-target-tokens", help="Longest translation, in tokens.")]
ForcedPrefix = Annotated[str | None, typer.Option("--forced-prefix", help="Text the translation must begin with.")]
Json = Annotated[bool, typer.Option("--json", help="Print the reply as JSON, in the proto's mapping.")]

DEFAULT_ADDRESS = "127.0.0.1:50051"


def main() -> None:
    """Run the command; what a person can do something about is told in a line, not in a traceback."""
    try:
        app()
    except CallFailed as failure:
        _tell(str(failure))
        sys.exit(UNREACHABLE if failure.code in _UNREACHABLE_CODES else REFUSED)
    except BrokenPipeError:  # the reader of our output has seen enough
        _drop_output()
        sys.exit(REFUSED)
    except OSError as error:
        _drop_output()
        _tell(str(error) or type(error).__name__)
        sys.exit(UNUSABLE)


@app.command()
def serve(
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle to serve.")] = None,
    grpc_address: Annotated[str | None, typer.Option(help="Where gRPC listens, host:port.")] = None,
    http_address: Annotated[str | None, typer.Option(help="Where HTTP listens, host:port.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda:N.")] = None,
) -> None:
    """Serve a bundle until SIGTERM or Ctrl-C; what was accepted by then is answered.

    Every setting is an environment variable INTERLINEAR_…, listed in docs/api.md; the options here win over them.
    """
    from service.__main__ import main as serve_until_stopped  # the other commands need neither engine nor servers

    given = {"bundle": bundle, "grpc_address": grpc_address, "http_address": http_address, "device": device}
    sys.exit(serve_until_stopped({name: value for name, value in given.items() if value is not None}))


@app.command()
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
        with _with_progress(file) as lines:
            refused = asyncio.run(run(lines))
    else:
        if sys.stdin is None:  # how Python tells that its caller has closed it
            raise typer.BadParameter("standard input is closed; give texts or --file")
        if sys.stdin.isatty():
            _tell("reading lines from standard input; Ctrl-D ends")
        # Nobody closes it: after a failure a thread may be reading from it for ever, and closing would wait for that.
        refused = asyncio.run(run(open(sys.stdin.fileno(), "rb", closefd=False)))  # noqa: SIM115
    sys.exit(REFUSED if refused else 0)


@app.command()
def explain(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The source, one sentence.")],
    target: Annotated[str | None, typer.Option("--target", help="A translation to explain instead of ours.")] = None,
    json: Json = False,
    pharaoh: Annotated[bool, typer.Option("--pharaoh", help="Print only the word links, source-target.")] = False,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    beam_size: BeamSize = None,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """Explain a translation: word alignment as a heat map, shares of the nine terms, and how far to trust them."""
    if json and pharaoh:
        raise typer.BadParameter("give --json or --pharaoh, not both")
    request = pb.ExplainRequest(
        text=_text(os.fsencode(text), "TEXT"),
        target=None if target is None else _text(os.fsencode(target), "--target"),
        model=model,
        options=pb.DecodingOptions(beam_size=beam_size),
        views=[pb.EXPLANATION_VIEW_ALIGNMENT] if pharaoh else [],
        matrix_encoding=pb.MATRIX_ENCODING_FLOAT_LIST if json else pb.MATRIX_ENCODING_UNSPECIFIED,
    )

    async def run() -> pb.ExplainResponse:
        async with Client(address, timeout, wait) as client:
            return await client.explain(request)

    response = asyncio.run(run())
    if json:
        _print(json_format.MessageToJson(response, ensure_ascii=False))
    elif pharaoh:
        links = response.hypothesis.alignment.links
        _print(write_pharaoh((link.target_index, link.source_index) for link in links))
    else:
        console = Console()
        console.print(explanation_view(response, console.width))


@app.command()
def models(
    json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """List the models the service has loaded, with their measured quality."""

    async def run() -> pb.ListModelsResponse:
        async with Client(address, timeout, wait) as client:
            return await client.list_models()

    response = asyncio.run(run())
    if json:
        _print(json_format.MessageToJson(response, ensure_ascii=False))
        return
    for model in response.models:
        Console().print(model_view(model))


async def _translate_lines(client: Client, template: pb.TranslateRequest, lines: Iterable[bytes]) -> int:
    """Print one line for each of ``lines``, in order; return how many were refused.

    Raises:
        CallFailed: The service, or an option of the call, is at fault, so that no further line has a chance.
    """
    refused = 0

    async def work(number: int, line: bytes) -> str:
        text = _text(line, f"line {number}")
        if not text.strip():
            return ""
        request = pb.TranslateRequest()
        request.CopyFrom(template)
        request.texts.append(text)
        response = await client.translate(request)
        return str(translation_of(response.results[0]).hypotheses[0].text)

    number = 0
    async for outcome in _in_order(lines, work):
        number += 1
        if isinstance(outcome, str):
            _print(outcome)
            continue
        if not outcome.field.startswith("text"):
            raise outcome
        _print("")
        if outcome.reason != "SOURCE_EMPTY":  # a line of invisible characters is an empty line
            refused += 1
            _tell(f"line {number}: {outcome}")
    return refused


async def _in_order(
    lines: Iterable[bytes], work: Callable[[int, bytes], Awaitable[str]]
) -> AsyncIterator[str | CallFailed]:
    """Yield the outcome of ``work(line number, line)`` for each line, in order and as soon as it is there.

    Lines are read in a thread of their own, so that whoever writes our input slowly gets each answer before the next
    line; it is a daemon, so that a failure does not wait for a line that may never come.

    Raises:
        OSError: The lines cannot be read.
    """
    loop = asyncio.get_running_loop()
    started: asyncio.Queue[asyncio.Task[str | CallFailed] | OSError | None] = asyncio.Queue()
    room = threading.Semaphore(LINES_IN_FLIGHT)

    async def outcome(number: int, line: bytes) -> str | CallFailed:
        try:
            return await work(number, line)
        except CallFailed as failure:
            return failure

    def start(number: int, line: bytes) -> None:
        started.put_nowait(loop.create_task(outcome(number, line)))

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants the rest
            try:
                for number, line in enumerate(lines, 1):
                    room.acquire()
                    loop.call_soon_threadsafe(start, number, line)
                loop.call_soon_threadsafe(started.put_nowait, None)
            except OSError as error:
                loop.call_soon_threadsafe(started.put_nowait, error)

    threading.Thread(target=read, daemon=True).start()
    while (task := await started.get()) is not None:
        if isinstance(task, OSError):
            raise task
        yield await task
        room.release()


@contextlib.contextmanager
def _with_progress(file: Path) -> Iterator[Iterator[bytes]]:
    """Yield the lines of ``file``; while the context lasts, a bar on standard error shows how many were read."""
    with file.open("rb") as lines:
        total = sum(1 for _ in lines)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("lines"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=total)

        def read() -> Iterator[bytes]:
            with file.open("rb") as lines:
                for line in lines:
                    yield line
                    progress.advance(bar)

        yield read()


def _text(line: bytes, name: str) -> str:
    """Return a line as text, without its line break.

    Raises:
        CallFailed: It is not UTF-8; ``name`` says which line.
    """
    try:
        return line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        message = f"{name} is not valid UTF-8 at byte {error.start}; convert it first, for instance with iconv"
        raise CallFailed(message, grpc.StatusCode.INVALID_ARGUMENT, "TEXT_INVALID", "text") from None


def _print(line: str) -> None:
    """Write a line to standard output as UTF-8, whatever the locale, and at once."""
    sys.stdout.buffer.write(f"{line}\n".encode())
    sys.stdout.buffer.flush()


def _drop_output() -> None:
    """Let whatever standard output still holds go nowhere, or the interpreter would fail on it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(message: str) -> None:
    print(f"interlinear: {message}", file=sys.stderr)
