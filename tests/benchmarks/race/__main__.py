"""Runs the race and prints its table: `make race`, or `make race ARGS=--quick`."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from service.threads import usable_processors
from tests.benchmarks.race.bundles import ROOT, random_bundles
from tests.benchmarks.race.entrants import Entrant, entrants
from tests.benchmarks.race.environment import RaceError, rivals_python, versions
from tests.benchmarks.race.rounds import Plan, Race
from tests.benchmarks.race.table import Results, markdown
from tests.benchmarks.race.work import BATCHES, BEAM_SIZES, SOURCE_TOKENS, TARGET_TOKENS, VOCABULARY

FOLDER = ROOT / ".venv" / "race"
REQUIREMENTS = ROOT / "requirements" / "race.lock"
MODELS = "models-2"  # another name for other models
_RIVALS = ("ctranslate2", "joeynmt", "torch")


def main() -> None:
    """Run, print and write."""
    arguments = _arguments()
    began = time.perf_counter()

    def tell(text: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {text}", file=sys.stderr, flush=True)

    plan = Plan(arguments.batches, arguments.beams, arguments.rounds, arguments.seconds)
    try:
        tell("the rivals' environment")
        rivals = rivals_python(FOLDER, REQUIREMENTS)
        raced = chosen(prepared(rivals, arguments.threads, tell), arguments.only)
        race = Race(raced, plan, tell)
        race.run(arguments.starts)
    except RaceError as error:
        sys.exit(f"error: {error}")
    about = [*_about(rivals, arguments.threads), _work(plan)]
    results = Results(raced, race.records, race.outcomes, about)
    print(markdown(results))
    if arguments.json is not None:
        written = {"about": about, "threads": arguments.threads, "plan": asdict(plan)}
        written["entrants"] = [asdict(entrant) | asdict(race.outcomes[entrant.name]) for entrant in raced]
        written["records"] = [asdict(record) for record in race.records]
        arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    tell("done")


def prepared(rivals: Path, threads: int, tell: Callable[[str], None]) -> list[Entrant]:
    """Return the entrants, with their models made."""
    tell("our bundles of random weights")
    bundles = random_bundles(FOLDER / "bundles")
    models = FOLDER / MODELS
    if not (models / "made").is_file():
        tell("the Transformers of random weights")
        command = [str(rivals), "-m", "tests.benchmarks.race.transformers", str(models)]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if made.returncode:
            raise RaceError(f"no Transformers:\n{made.stderr.strip()[-2000:]}")
        (models / "made").touch()
    return entrants(bundles, models, rivals, threads)


def chosen(everybody: Sequence[Entrant], names: Sequence[str]) -> list[Entrant]:
    """Return those of ``names``, or everybody where there are none.

    Raises:
        RaceError: Nobody has one of the names.
    """
    known = [entrant.name for entrant in everybody]
    if unknown := set(names) - set(known):
        raise RaceError(f"nobody is called {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return [entrant for entrant in everybody if not names or entrant.name in names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cells and rounds: less than three minutes")
    parser.add_argument("--threads", type=int, default=min(2, usable_processors()), help="of every entrant (default 2)")
    parser.add_argument("--rounds", type=int, help="default 5, or 3 if quick")
    parser.add_argument("--batches", type=_numbers, help=f"default {','.join(map(str, BATCHES))}, or 1,32 if quick")
    parser.add_argument("--beams", type=_numbers, help=f"default {','.join(map(str, BEAM_SIZES))}, or 1,4 if quick")
    parser.add_argument("--seconds", type=float, help="of a turn (default 0.3, or 0.1 if quick)")
    parser.add_argument("--starts", type=int, help="starts of every entrant that are timed (default 3, or 1 if quick)")
    parser.add_argument("--only", type=_names, default=[], metavar="NAME,...", help="entrants, by their headings")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn there")
    arguments = parser.parse_args()
    defaults = {"rounds": (5, 3), "batches": (BATCHES, (1, 32)), "beams": (BEAM_SIZES, (1, 4))}
    for name, values in (defaults | {"seconds": (0.3, 0.1), "starts": (3, 1)}).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, values[arguments.quick])
    if max(arguments.batches) > max(BATCHES):
        parser.error(f"a batch is {max(BATCHES)} sentences at most")
    return arguments


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _about(rivals: Path, threads: int) -> list[str]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    there = ", ".join(f"{name} {version}" for name, version in versions(rivals, _RIVALS).items())
    here = f"Python {platform.python_version()}, onnxruntime {importlib.metadata.version('onnxruntime')}"
    return [
        f"{time.strftime('%Y-%m-%d')}, {processor()}, {os.cpu_count()} processors, {threads} threads each; {here}, "
        f"commit {commit.stdout.strip()}; rivals: {there}."
    ]


def _work(plan: Plan) -> str:
    return (
        f"{SOURCE_TOKENS} source and exactly {TARGET_TOKENS} target tokens, vocabulary {VOCABULARY:,}, random weights; "
        f"{plan.rounds} rounds by turns of {plan.seconds:g} s; load average {os.getloadavg()[0]:.1f} at the end."
    )


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(r"model name\s*: (.*)", text)
    return found[1] if found else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
