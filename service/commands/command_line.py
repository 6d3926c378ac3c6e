"""What the commands of ``interlinear`` share: options, exit codes, text from bytes, lines to people and programs."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import grpc
import typer

from service.client import PLAIN, CallFailed, Client, Security

REFUSED, UNUSABLE, UNREACHABLE = 1, 2, 3

DEFAULT_ADDRESS = "127.0.0.1:50051"

_ADDRESS = typer.Option("--address", envvar="INTERLINEAR_GRPC_ADDRESS", help="Where the service listens, host:port.")
Address = Annotated[str, _ADDRESS]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for each answer.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for a service that is still starting.")]
Model = Annotated[str, typer.Option("--model", help="Name of the model; the default one when left out.")]
BeamSize = Annotated[int | None, typer.Option("--beam-size", help="Hypotheses kept at each step, 1 to 16.")]
Json = Annotated[bool, typer.Option("--json", help="Print the reply as JSON, in the proto's mapping.")]


Reply = TypeVar("Reply")

_security = ContextVar("security", default=PLAIN)


class Unusable(Exception):
    """The command cannot do what it was asked, whatever the service says; the message says what to do about it."""


class Connection(NamedTuple):
    """How to reach the service: the options of that name."""

    address: str
    timeout: float
    wait: bool


def secure(
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS, and trust well-known authorities.")] = False,
    tls_authority: Annotated[
        Path | None, typer.Option(envvar="INTERLINEAR_TLS_AUTHORITY", help="PEM of the authority to trust; means TLS.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(envvar="INTERLINEAR_CLIENT_CERTIFICATE", help="PEM of a certificate of your own.")
    ] = None,
    certificate_key: Annotated[
        Path | None, typer.Option(envvar="INTERLINEAR_CLIENT_CERTIFICATE_KEY", help="PEM of its private key.")
    ] = None,
    tls_server_name: Annotated[
        str | None,
        typer.Option(envvar="INTERLINEAR_TLS_SERVER_NAME", help="Name in its certificate, if not the address's."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(envvar="INTERLINEAR_KEY_FILE", help="File of an API key; INTERLINEAR_KEY may be the key itself."),
    ] = None,
) -> None:
    """Remember how this command and the service come to trust each other; what comes before every command's name."""
    key = os.environ.get("INTERLINEAR_KEY") or None
    files = (tls_authority, certificate, certificate_key)
    authority, chain, private_key = (None if file is None else file.read_bytes() for file in files)
    key = key if key_file is None else key_file.read_text().strip()
    _security.set(Security(key, tls, authority, chain, private_key, tls_server_name))


def unusable(error: OSError) -> str:
    """Return what is wrong with a file, and what to do."""
    if error.filename is None:
        return str(error) or type(error).__name__
    name = os.fsdecode(error.filename)
    match error:
        case FileNotFoundError():
            return f"there is no {name}; check its name, and the folder that it is in"
        case IsADirectoryError():
            return f"{name} is a folder; name a file"
        case PermissionError():
            return f"{name} is not open to you; ask its owner, or name another"
    return f"{name} cannot be used: {error.strerror}"


def connected(connection: Connection) -> Client:
    """Return a client that reaches the service as this command was told to."""
    return Client(*connection, _security.get())


def ask(connection: Connection, call: Callable[[Client], Awaitable[Reply]]) -> Reply:
    """Return what ``call`` gets from the service.

    Raises:
        CallFailed: The service refused, or could not be reached.
    """

    async def run() -> Reply:
        async with connected(connection) as client:
            return await call(client)

    return asyncio.run(run())


def text_of(line: bytes, name: str) -> str:
    """Return a line as text, without its line break.

    Raises:
        CallFailed: It is not UTF-8; ``name`` says which line.
    """
    try:
        return line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        message = f"{name} is not valid UTF-8 at byte {error.start}; convert it first, for instance with iconv"
        raise CallFailed(message, grpc.StatusCode.INVALID_ARGUMENT, "TEXT_INVALID", "text") from None


def argument_text(argument: str, name: str) -> str:
    """Return an argument of the command line as text.

    Raises:
        CallFailed: Its bytes are not UTF-8; ``name`` says which argument.
    """
    return text_of(os.fsencode(argument), name)


def print_line(line: str) -> None:
    """Write a line to standard output as UTF-8, whatever the locale, and at once."""
    sys.stdout.buffer.write(f"{line}\n".encode())
    sys.stdout.buffer.flush()


def drop_output() -> None:
    """Let whatever standard output still holds go nowhere, or the interpreter would fail on it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(message: str) -> None:
    """Write a line to standard error, where people read what became of their command."""
    print(f"interlinear: {message}", file=sys.stderr)
