"""How soon a translation is told, what it costs a document to leave room, and what it costs others.

    .venv/dev/bin/python -m tests.benchmarks.streams LINES.txt [SENTENCES]

The embedded bundle, in this process; medians, in milliseconds. A line is translated alone, by beam size: until its
first text is told, until all of it is, and the share of it told before its end. Then documents with windows of
several sizes: sentences a second, and how long a single sentence takes while a document is being translated.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from prometheus_client import CollectorRegistry

from service.documents import in_order, sentences
from service.metrics import Metrics
from service.models.loading import loaded
from service.models.served_model import ServedModel
from service.segmentation import Segmenter
from service.settings import read_settings
from service.token_stream import told
from service.translation import Translation, TranslationOptions


async def told_times(model: ServedModel, lines: list[str], beam_size: int) -> str:
    firsts, wholes, shares = [], [], []
    for line in lines:
        began = time.perf_counter()
        times, texts = [], []
        async for part in told(model.translator, line, TranslationOptions(beam_size=beam_size), None):
            times.append(1000 * (time.perf_counter() - began))
            texts.append("" if isinstance(part, Translation) else part)
        firsts.append(times[0])
        wholes.append(times[-1])
        shares.append(1 - len(texts[-2]) / max(len("".join(texts)), 1))
    figures = (statistics.median(firsts), statistics.median(wholes), statistics.mean(shares))
    return "beam {}: first text {:.0f}, all {:.0f}; {:.0%} told before the end".format(beam_size, *figures)


async def document_rate(model: ServedModel, lines: list[str], window: int) -> str:
    async def parts() -> AsyncGenerator[str, None]:
        yield "\n".join(lines)

    async def answer(text: str) -> Translation:
        return await model.translator.translate(text, TranslationOptions())

    done = asyncio.Event()
    alone: list[float] = []

    async def singles() -> None:
        while not done.is_set():
            began = time.perf_counter()
            await model.translator.translate(lines[len(alone) % len(lines)], TranslationOptions())
            alone.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(0.2)

    rates = []
    for ask in (None, singles):
        asking = None if ask is None else asyncio.create_task(ask())
        began, count = time.perf_counter(), 0
        given = sentences(parts(), Segmenter("en", model.translator.intake.fits), 0)
        async with aclosing(in_order(given, answer, window)) as answered:
            async for _ in answered:
                count += 1
        rates.append(count / (time.perf_counter() - began))
        done.set()
        if asking is not None:
            await asking
        done.clear()
    return f"window {window}: {rates[0]:.1f} sentences/s; a single one meanwhile {statistics.median(alone):.0f}"


async def main(file: Path, count: int) -> None:
    lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()][:count]
    metrics = Metrics.on(CollectorRegistry())
    async with loaded(read_settings(), metrics) as model:
        for beam_size in (1, 2, 4, 16):
            print(await told_times(model, lines[: count // 4], beam_size), flush=True)
        for window in (4, 8, 16, 32):
            print(await document_rate(model, lines, window), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", metavar="LINES.txt", type=Path, help="sentences, one a line")
    parser.add_argument("sentences", metavar="SENTENCES", type=int, nargs="?", default=200, help="of them, the first")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.lines, arguments.sentences))
