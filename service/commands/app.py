"""The command ``interlinear``: its parts, and what becomes of their failures.

Exit codes: 0 all done; 1 the service refused a text or an option; 2 the command line is wrong, a file cannot be read or
written, or something a figure needs is not installed; 3 the service could not be reached, was too busy, or did not
answer in time.
"""

import sys
from pathlib import Path
from typing import Annotated

import grpc
import typer

from service.client import CallFailed
from service.commands.align import align
from service.commands.command_line import (
    REFUSED,
    UNREACHABLE,
    UNUSABLE,
    Unusable,
    drop_output,
    secure,
    tell,
    unusable,
)
from service.commands.explain import explain
from service.commands.keys import keys
from service.commands.models import models
from service.commands.report import report
from service.commands.translate import translate
from service.commands.what_if import alternatives, contrast, what_if

_UNREACHABLE_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNIMPLEMENTED,
}

_HOW_TO_COME_IN = (
    "; before the command's name, say who you are: --key-file (or INTERLINEAR_KEY_FILE, or INTERLINEAR_KEY), or "
    "--certificate and --certificate-key"
)

app = typer.Typer(
    callback=secure,
    help="Translate, and see why the translation has the shape it has.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command; what a person can do something about is told in a line, not in a traceback."""
    try:
        app()
    except CallFailed as failure:
        tell(f"{failure}{_HOW_TO_COME_IN if failure.reason == 'CREDENTIALS_MISSING' else ''}")
        sys.exit(UNREACHABLE if failure.code in _UNREACHABLE_CODES else REFUSED)
    except BrokenPipeError:  # the reader of our output has seen enough
        drop_output()
        sys.exit(REFUSED)
    except (OSError, Unusable) as error:
        drop_output()
        tell(unusable(error) if isinstance(error, OSError) else str(error))
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


app.command()(translate)
app.command()(explain)
app.command("what-if")(what_if)
app.command()(contrast)
app.command()(alternatives)
app.command()(report)
app.add_typer(align, name="align")
app.add_typer(keys, name="keys")
app.add_typer(models, name="models")
