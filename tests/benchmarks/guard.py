"""Measures the guard on the embedded bundle: how often each reason speaks, how often it is right, what RETRY changes.

    .venv/dev/bin/python -m tests.benchmarks.guard

Two judges who do not know the guard say what is bad. Where there is a reference: sentence chrF below ``BAD_CHRF``.
Everywhere: a loop is a translation whose most frequent run of four words comes at least twice more often than the
source's (Raunak et al. 2021; Guerreiro et al. 2023: "TNG"). Tables are Markdown, for docs/guard.md.
"""

import argparse
import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import sacrebleu
from prometheus_client import CollectorRegistry
from rich.console import Console

from service.errors import InvalidRequest
from service.guard import Reason, loops
from service.metrics import Metrics
from service.models.loading import loaded
from service.settings import read_settings
from service.translation import Translation, TranslationOptions
from service.translator import Translator
from tests.benchmarks.bad_input import Kind, bad_input, pairs

BAD_CHRF = 30.0
_DOMAIN = ("Europarl test", "Tatoeba test")
_AT_ONCE = 64


@dataclass(frozen=True)
class Judged:
    """One text's translation, and what was found.

    Attributes:
        kind: The kind of text.
        first: The translation.
        again: That with RETRY; the same object where there was nothing to retry.
        chrf: Of both, against the reference; None without one.
        looped: Whether the independent judge finds a loop in each.
    """

    kind: str
    first: Translation
    again: Translation
    chrf: tuple[float, float] | None
    looped: tuple[bool, bool]

    @property
    def reasons(self) -> set[str]:
        """Those of the first translation."""
        return {suspicion.reason for suspicion in self.first.suspicions}


async def judge(translator: Translator, kind: Kind) -> list[Judged]:
    """Return what becomes of every text that is not refused."""
    found: list[Judged] = []
    pending = iter(list(zip(kind.texts, kind.references or [""] * len(kind.texts), strict=True)))

    async def caller() -> None:
        for text, reference in pending:
            try:
                first = again = await translator.translate(text, TranslationOptions(guard="report"))
            except InvalidRequest:  # too long, or nothing but space
                continue
            if loops(first.suspicions):
                again = await translator.translate(text, TranslationOptions(guard="retry"))
            both = first.hypotheses[0].text, again.hypotheses[0].text
            scores = [sacrebleu.sentence_chrf(each, [reference]).score for each in both] if reference else []
            looped = [top_run(each) - top_run(text) >= 2 for each in both]
            chrf = (scores[0], scores[1]) if scores else None
            found.append(Judged(kind.name, first, again, chrf, (looped[0], looped[1])))

    await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))
    return found


def top_run(text: str, words: int = 4) -> int:
    """Return how often the most frequent run of ``words`` words comes."""
    split = re.findall(r"\w+", text.lower())
    runs = Counter(tuple(split[first : first + words]) for first in range(len(split) - words + 1))
    return max(runs.values(), default=1)


def reasons_table(console: Console, judged: Sequence[Judged]) -> None:
    """Print how often each reason speaks, a row each kind."""
    reasons = get_args(Reason)
    row(console, "text", "n", *(reason.replace("_", " ") for reason in reasons), "any", "two or more")
    row(console, *["---"] * (len(reasons) + 4))
    for name in dict.fromkeys(each.kind for each in judged):
        of_kind = [each.reasons for each in judged if each.kind == name]
        counts = [sum(reason in found for found in of_kind) for reason in reasons]
        counts += [sum(len(found) >= least for found in of_kind) for least in (1, 2)]
        row(console, name, str(len(of_kind)), *(f"{100 * count / len(of_kind):.1f}" for count in counts))


def judges_table(console: Console, judged: Sequence[Judged]) -> None:
    """Print precision and recall for what the independent judges call bad."""
    row(console, "the guard says", "the judge says bad", "on", "n", "bad", "flagged", "precision", "recall")
    row(console, *["---"] * 8)
    with_reference = [each for each in judged if each.chrf is not None]
    for names in (_DOMAIN, ("newstest2014", "FLORES devtest")):
        chosen = [each for each in with_reference if each.kind in names]
        bad = [each.chrf is not None and each.chrf[0] < BAD_CHRF for each in chosen]
        for least, said in ((1, "any reason"), (2, "two or more")):
            flagged = [len(each.reasons) >= least for each in chosen]
            judges_row(console, (said, f"chrF < {BAD_CHRF:.0f}", ", ".join(names)), bad, flagged)
    for chosen, on in ((with_reference, "all pairs"), (list(judged), "everything")):
        bad = [each.looped[0] for each in chosen]
        judges_row(console, ("repetition", "loop (TNG)", on), bad, ["repetition" in each.reasons for each in chosen])


def judges_row(console: Console, head: tuple[str, str, str], bad: Sequence[bool], flagged: Sequence[bool]) -> None:
    """Print one line of ``judges_table``."""
    both = sum(each and other for each, other in zip(bad, flagged, strict=True))
    counts = (len(bad), sum(bad), sum(flagged))
    row(console, *head, *map(str, counts), f"{both / max(sum(flagged), 1):.2f}", f"{both / max(sum(bad), 1):.2f}")


def retry_table(console: Console, judged: Sequence[Judged]) -> None:
    """Print what RETRY changes."""
    row(
        console,
        "text",
        "loops",
        "after RETRY",
        "by TNG",
        "after RETRY",
        "chrF of them",
        "after RETRY",
        "chrF of all",
        "after",
    )
    row(console, *["---"] * 9)
    for names in (_DOMAIN, ("newstest2014", "FLORES devtest"), None):
        chosen = [each for each in judged if (each.chrf is None if names is None else each.kind in names)]
        again = [each for each in chosen if loops(each.first.suspicions)]
        cells = [str(len(again)), str(sum(loops(each.again.suspicions) for each in again))]
        cells += [str(sum(each.looped[index] for each in chosen)) for index in (0, 1)]
        for group in (again, chosen):
            scores = [each.chrf for each in group if each.chrf is not None]
            cells += [f"{sum(s[index] for s in scores) / len(scores):.2f}" if scores else "" for index in (0, 1)]
        row(console, "bad input" if names is None else ", ".join(names), *cells)


def row(console: Console, *cells: str) -> None:
    """Print one line of a Markdown table."""
    console.print("| " + " | ".join(cells) + " |", markup=False, soft_wrap=True)


async def measured(console: Console) -> None:
    """Translate everything and print the tables."""
    metrics = Metrics.on(CollectorRegistry())
    async with loaded(read_settings(), metrics) as model:
        good = {kind.name: kind for kind in pairs()}
        judged: list[Judged] = []
        for kind in (*good.values(), *bad_input(model.translator.tokenizer, good)):
            judged += await judge(model.translator, kind)
    for table in (reasons_table, judges_table, retry_table):
        table(console, judged)
        console.print()


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    asyncio.run(measured(Console(highlight=False)))


if __name__ == "__main__":
    main()
