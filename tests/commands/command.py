"""The command as people run it: in a process of its own, and in an environment whose locale knows only ASCII."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.service.edge import ROOT

Run = Callable[..., subprocess.CompletedProcess[bytes]]


def command(*arguments: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-c", "from service.commands.app import main; main()", *arguments]


def environment(address: str) -> dict[str, str]:
    """Return an environment in which the command finds the service at ``address``."""
    elsewhere = {f"INTERLINEAR_{name}_ADDRESS": "127.0.0.1:0" for name in ("HTTP", "ADMIN_GRPC", "ADMIN_HTTP")}
    return os.environ | elsewhere | {"INTERLINEAR_GRPC_ADDRESS": address, "COLUMNS": "100", "LC_ALL": "C"}


def run(
    address: str,
    *arguments: str | bytes,
    stdin: bytes = b"",
    folder: Path = ROOT,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end.

    Args:
        address: Of the service.
        arguments: Of the command.
        stdin: What it reads.
        folder: Where it runs.
        variables: Of its environment, over those that ``environment`` has.
    """
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(address) | dict(variables or {}),
        input=stdin,
        capture_output=True,
        timeout=120,
    )
