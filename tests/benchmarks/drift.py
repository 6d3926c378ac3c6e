"""Measures how far from its reference the embedded bundle finds text like that it was measured on, and text unlike it.

    .venv/dev/bin/python -m tests.benchmarks.drift LIKE [LIKE ...] --unlike FILE [FILE ...]

A file has a text a line, to its first tab, and may be compressed by gzip. Takes as many sentences of each file named
first as of the others, explains them in one process, and prints the distance of every signal; then the same for each
file of other text, and for what does not belong there, made of the text of the first.
"""

import argparse
import asyncio
import gzip
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from service.errors import InvalidRequest
from service.metrics import Metrics
from service.models.loading import loaded
from service.settings import Settings, read_settings
from service.translation import TranslationOptions

_CALLERS = 16


def spoilt(sources: Sequence[str], chance: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Yield a name and texts made of ``sources``, each in another way unlike them."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    yield "words shuffled", [" ".join(chance.sample(words, len(words))) for words in map(str.split, sources)]
    yield "capitals", [source.upper() for source in sources]
    yield (
        "addresses of pages",
        [f"https://{source.lower().replace(' ', '/')}?id={chance.random()}" for source in sources],
    )
    yield "numbers", [" ".join(str(chance.randrange(10**6)) for _ in source.split()) for source in sources]
    yield (
        "random letters",
        [" ".join("".join(chance.choices(letters, k=len(word))) for word in source.split()) for source in sources],
    )
    yield "one sentence again and again", [sources[0]] * len(sources)


async def distances(texts: Sequence[str], settings: Settings) -> dict[str, float]:
    """Return the distance of every signal after ``texts`` were explained."""
    metrics = Metrics.on(CollectorRegistry())
    async with loaded(settings, metrics) as model:
        waiting = iter(texts)

        async def caller() -> None:
            for text in waiting:
                try:
                    await model.explainer.explain(text, None, TranslationOptions(alignment=True))
                except InvalidRequest:  # spoilt beyond what the service takes
                    continue

        await asyncio.gather(*(caller() for _ in range(_CALLERS)))
        (family,) = metrics.drift.distance.collect()
        return {sample.labels["signal"]: sample.value for sample in family.samples}


def read_texts(file: Path) -> list[str]:
    """Return the texts of a file."""
    opened = gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")
    with opened as lines:
        return [text for line in lines if (text := line.rstrip("\n").split("\t")[0]).strip()]


async def measure() -> None:
    """Print a row for each kind of text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="LIKE", help="text like that of the reference")
    parser.add_argument("--unlike", nargs="*", type=Path, default=[], metavar="FILE", help="other text")
    parser.add_argument("--sentences", type=int, default=400, help="how many of each kind")
    arguments = parser.parse_args()
    chance = random.Random(6)
    each = arguments.sentences // len(arguments.files)
    like = [text for file in arguments.files for text in chance.sample(read_texts(file), each)]
    chance.shuffle(like)  # so that what fades is of all kinds
    other = [(file.name, chance.sample(read_texts(file), len(like))) for file in arguments.unlike]
    table: Table | None = None
    for name, texts in [("like the reference", like), *other, *spoilt(like, chance)]:
        found = await distances(texts, read_settings())
        table = table or Table("text", *found)
        table.add_row(name, *(f"{value:.2f}" for value in found.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    asyncio.run(measure())
