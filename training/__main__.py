"""python -m training RUN.toml OUTPUT: train, or go on where OUTPUT stopped."""

import argparse
import ctypes
import sys
from pathlib import Path

from training.errors import TrainingError
from training.loop import train

# mallopt(3): freed memory stays with the process, none is mapped block by block, and it grows in large steps.
_ALLOCATION = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28), "M_MMAP_MAX": (-4, 0)}


def main() -> int:
    """Run the command; errors a person can mend are printed without a traceback."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("config", type=Path, help="the run, one TOML file (see training/recipes)")
    parser.add_argument("output", type=Path, help="folder for checkpoints and logs; resumed if it holds a checkpoint")
    arguments = parser.parse_args()
    _keep_freed_memory()
    try:
        train(arguments.config, arguments.output)
    except TrainingError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    return 0


def _keep_freed_memory() -> None:
    """Tell glibc not to give freed memory back: taking it anew at every step costs a fifth of a step on the CPU."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option, value in _ALLOCATION.values():
            library.mallopt(option, value)


if __name__ == "__main__":
    sys.exit(main())
