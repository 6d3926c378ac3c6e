"""``interlinear keys``: new API keys, and whether a credentials file says what its author means."""

import dataclasses
import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from service.access.principals import ROLES, Quota
from service.commands.command_line import Unusable, print_line, tell
from service.errors import InvalidSettings

if TYPE_CHECKING:
    from service.access.credentials import Credential  # imported late: its parser would slow down every command

keys = typer.Typer(help="Make API keys, and check the file that says who may come in.", no_args_is_help=True)


@keys.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who the key is for.")],
    role: Annotated[list[str], typer.Option(help=f"What it may do; again for each: {', '.join(ROLES)}.")],
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day on which it is good, in UTC.")
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help=f"A limit; again for each: {', '.join(Quota.__annotations__)}."),
    ] = None,
) -> None:
    """Make a key. It is shown on standard error, and kept nowhere; what belongs in the credentials file is printed.

    For instance `interlinear keys new newsroom --role translate >> credentials.toml`.
    """
    from service.access.credentials import key_digest, new_key

    key = new_key()
    lines = ["[[principal]]", f"name = {json.dumps(name)}", f"roles = {json.dumps(role)}"]
    lines.append(f'key_sha256 = ["{key_digest(key).hex()}"]')
    if expires is not None:
        lines.append(f"expires = {expires:%Y-%m-%d}")
    for limit in quota or []:
        lines.append("quota.{} = {}".format(*_limit(limit)))
    _parsed("\n".join(lines).encode(), "what you ask for")
    tell(f"the key of {name}, shown only now: {key}")
    print_line("\n".join(["", *lines]))


@keys.command()
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="A credentials file.")]) -> None:
    """Show who a credentials file lets in and for what, or everything that is wrong with it."""
    table = Table("name", "roles", "keys", "certificates", "until", "quota", box=None)
    for credential in _parsed(file.read_bytes(), str(file)):
        table.add_row(*_row(credential))
    Console().print(table)


def _parsed(content: bytes, name: str) -> tuple["Credential", ...]:
    from service.access.credentials import parse_credentials

    try:
        return parse_credentials(content, name)
    except InvalidSettings as error:
        raise Unusable(str(error)) from None


def _limit(given: str) -> tuple[str, float]:
    """Return name and number of a limit."""
    name, _, number = given.partition("=")
    try:
        return name, float(number) if "." in number else int(number)
    except ValueError:
        raise Unusable(f"--quota {given}: write NAME=NUMBER, for instance concurrent=8") from None


def _row(credential: "Credential") -> tuple[str, ...]:
    principal = credential.principal
    until = "" if credential.expires is None else credential.expires.isoformat()
    if credential.expiry_timestamp <= time.time():
        until += " (expired)"
    limits = {name: limit for name, limit in dataclasses.asdict(principal.quota).items() if limit is not None}
    return (
        principal.name,
        ", ".join(role for role in ROLES if role in principal.roles),
        str(len(credential.key_digests)),
        ", ".join(credential.certificate_names),
        until,
        ", ".join(f"{name} {limit:g}" for name, limit in limits.items()),
    )
