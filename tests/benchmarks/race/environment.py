"""The rivals' environment: made once, from pinned versions, apart from ours."""

import hashlib
import subprocess
import sys
from pathlib import Path


class RaceError(Exception):
    """The race cannot be run; the message says what to do."""


def rivals_python(folder: Path, requirements: Path) -> Path:
    """Return the Python of the environment in ``folder``, made if it is not what ``requirements`` ask for.

    Raises:
        RaceError: The environment cannot be made, or a rival cannot be installed.
    """
    python, stamp = folder / "bin" / "python", folder / "ready"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    _run(
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        "the rivals have no environment; on Debian and Ubuntu: apt install python3-venv",
    )
    _run(
        [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)],
        f"the rivals of {requirements} cannot be installed: check the connection to the package index "
        "(PIP_INDEX_URL names another) and that it has these versions for this Python, then start again",
    )
    stamp.write_text(wanted, encoding="utf-8")
    return python


def versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return the installed versions of distributions."""
    code = "import importlib.metadata, sys; [print(importlib.metadata.version(name)) for name in sys.argv[1:]]"
    found = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True)
    return dict(zip(names, found.stdout.split(), strict=True))


def _run(command: list[str], advice: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (error.stderr or error.stdout) if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise RaceError(f"{advice}.\n{said.strip()[-2000:]}") from error
