"""A small part of what ``python -m tests.reliability.bundles`` does."""

import subprocess
import sys
from pathlib import Path

from tests.reliability.bundles import Fate, cases, table

ROOT = Path(__file__).parent.parent.parent


def test_hostile_bundles_are_refused_or_answer_finitely() -> None:
    command = [sys.executable, "-m", "tests.reliability.bundles", "--count", "25", "--seed", "2"]  # forks: on its own
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| cut or flipped, not sealed | 25 | 25 | 0 | 0 | 0 |" in done.stdout
    assert "| all | 50 |" in done.stdout


def test_equal_seeds_make_equal_cases_and_the_table_counts_them_all() -> None:
    assert list(cases(40, 7)) == list(cases(40, 7)) != list(cases(40, 8))
    fates = [Fate(case, "refused", "why", 0.1) for case in cases(40, 7)]
    assert "| all | 80 | 80 | 0 | 0 | 0 |" in table(fates)
