"""python -m training RUN.toml OUTPUT: train, or go on where OUTPUT stopped."""

import argparse
import sys
from pathlib import Path

from training.errors import TrainingError
from training.loop import train


def main() -> int:
    """Run the command; errors a person can mend are printed without a traceback."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("config", type=Path, help="the run, one TOML file (see training/recipes)")
    parser.add_argument("output", type=Path, help="folder for checkpoints and logs; resumed if it holds a checkpoint")
    arguments = parser.parse_args()
    try:
        train(arguments.config, arguments.output)
    except TrainingError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
