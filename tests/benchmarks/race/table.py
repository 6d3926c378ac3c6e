"""Results to Markdown: speed by cell, single-sentence latency, memory and start-up, and the bars.

A cell's yardstick is the Transformer of equal size at its fastest there: in either precision, with attention or not.
Ratios are taken round by round; shown are their median, and in brackets their smallest and largest.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.benchmarks.race.entrants import Entrant
from tests.benchmarks.race.rounds import Outcome, Record

Cell = tuple[int, int]  # batch and beam size

_BARS: tuple[tuple[str, str, tuple[Cell, ...], float], ...] = (  # family, its name, cells, how many times as fast
    ("equal", "CTranslate2 of equal size", ((1, 1),), 2),
    ("equal", "CTranslate2 of equal size", ((32, 4), (32, 5)), 1.5),
    ("opus", "CTranslate2 of OPUS-MT size", ((1, 1),), 10),
    ("opus", "CTranslate2 of OPUS-MT size", ((32, 4), (32, 5)), 5),
    ("toolkit", "the toolkit", ((1, 1),), 10),
    ("toolkit", "the toolkit", ((32, 1), (32, 4), (32, 5)), 5),
)


@dataclass(frozen=True)
class Results:
    """All that a table is made of; ``about`` are its first lines: machine, date, versions."""

    entrants: Sequence[Entrant]
    records: Sequence[Record]
    outcomes: dict[str, Outcome]
    about: Sequence[str]

    @property
    def cells(self) -> list[Cell]:
        """Batch and beam size of every cell that was raced, in order."""
        return list(dict.fromkeys((record.batch, record.beam_size) for record in self.records))

    def rates(self, entrant: Entrant, cell: Cell, alignment: bool) -> list[float]:
        """Return an entrant's tokens a second, round by round; nothing where it took no part."""
        return [record.tokens_per_second for record in self._of(entrant, cell, alignment)]

    def latencies(self, entrant: Entrant, cell: Cell, alignment: bool) -> list[float]:
        """Return all its latencies, in seconds."""
        return [seconds for record in self._of(entrant, cell, alignment) for seconds in record.latencies]

    def fastest(self, family: str, cell: Cell) -> list[float]:
        """Return the rates of a family's fastest entrant in a cell, with attention or not; nothing if none raced."""
        members = [entrant for entrant in self.entrants if entrant.family == family]
        rates = [self.rates(entrant, cell, alignment) for entrant in members for alignment in (True, False)]
        return max(rates, key=lambda one: statistics.median(one) if one else 0.0, default=[])

    def _of(self, entrant: Entrant, cell: Cell, alignment: bool) -> list[Record]:
        wanted = (entrant.name, *cell, alignment)
        return [r for r in self.records if (r.entrant, r.batch, r.beam_size, r.alignment) == wanted]


def markdown(results: Results) -> str:
    """Return everything, ready for a page."""
    parts = [
        *results.about,
        "",
        *_speed(results),
        "",
        *_contenders(results),
        "",
        *_bars(results),
        "",
        *_settings(results),
    ]
    return "\n".join(parts)


def ratio(rates: Sequence[float], yardstick: Sequence[float]) -> str:
    """Return how many times as fast, round by round.

    >>> ratio([20.0, 33.0, 40.0], [10.0, 11.0, 10.0])
    '3.00 (2.00–4.00)'
    """
    if not rates or not yardstick:
        return "–"
    ratios = [mine / its for mine, its in zip(rates, yardstick, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def percentile(seconds: Sequence[float], percent: int) -> float:
    """Return the smallest value that so many percent do not exceed."""
    ranked = sorted(seconds)
    return ranked[max(0, -(-len(ranked) * percent // 100) - 1)]


def _speed(results: Results) -> list[str]:
    ours = [entrant for entrant in results.entrants if entrant.family == "interlinear"]
    headings = ["batch", "beam", "alignment", *(entrant.name for entrant in results.entrants)]
    headings += [f"ratio, {entrant.precision}" for entrant in ours]
    rows = []
    for cell in results.cells:
        for alignment in (True, False):
            rates = [results.rates(entrant, cell, alignment) for entrant in results.entrants]
            ratios = [ratio(results.rates(one, cell, alignment), results.fastest("equal", cell)) for one in ours]
            rows.append([*map(str, cell), "yes" if alignment else "no", *map(_rate, rates), *ratios])
    return ["Target tokens a second, ± half the range of the rounds:", "", *_table(headings, rows)]


def _contenders(results: Results) -> list[str]:
    singles = [cell for cell in results.cells if cell[0] == 1]
    headings = ["", "parameters", "ready s", "peak MiB", *(f"p50 / p99 ms, beam {beam}" for _, beam in singles)]
    rows = []
    for entrant in results.entrants:
        outcome = results.outcomes[entrant.name]
        if outcome.broken:
            rows.append(
                [entrant.name, f"{entrant.parameters:,}", f"broken: {outcome.broken}", *[""] * (len(singles) + 1)]
            )
            continue
        ready = f"{statistics.median(outcome.startup_seconds):.2f}"
        latencies = [_latency(results.latencies(entrant, cell, entrant.aligns)) for cell in singles]
        rows.append([entrant.name, f"{entrant.parameters:,}", ready, f"{outcome.peak_mib:.0f}", *latencies])
    return [
        "Single sentences (with alignment, but for the toolkit), start-up (median), and memory over the whole race:",
        "",
        *_table(headings, rows),
    ]


def _bars(results: Results) -> list[str]:
    """Return the bars of the race, alignment on for us and rivals at their fastest."""
    ours = [entrant for entrant in results.entrants if entrant.family == "interlinear"]
    lines = []
    for family, named, cells, least in _BARS:
        for cell in cells:
            if cell in results.cells and (yardstick := results.fastest(family, cell)):
                figures = " | ".join(ratio(results.rates(one, cell, True), yardstick) for one in ours)
                lines.append(f"| times {named}: batch {cell[0]}, beam {cell[1]} | ≥ {least:g} | {figures} |")
    for cell in results.cells:
        lines += _own_bars(results, cell, ours)
    heading = f"| bar | | {' | '.join(one.precision for one in ours)} |"
    return [heading, "|---" * (2 + len(ours)) + "|", *lines]


def _own_bars(results: Results, cell: Cell, ours: Sequence[Entrant]) -> list[str]:
    """Return what alignment costs, and what the service costs around the engine."""
    batch, beam_size = cell
    served = {one.precision: one for one in results.entrants if one.family == "service"}
    alignment, shares, overheads = [], [], []
    for one in ours:
        own = results.rates(one, cell, True)
        alignment.append(ratio(own, results.rates(one, cell, False)))
        service = served.get(one.precision)
        shares.append(ratio(results.rates(service, cell, True), own) if service else "–")
        pair = [results.latencies(who, cell, True) for who in (service, one) if who]
        added = [percentile(seconds, 50) * 1e3 for seconds in pair if seconds]
        overheads.append(f"{added[0] - added[1]:.2f}" if len(added) == 2 else "–")
    where = f"batch {batch}, beam {beam_size}"
    rows = [(f"speed with alignment over without: {where}", "≥ 0.97", alignment)]
    if served and batch == 32:
        rows.append((f"gRPC over the engine's own: 32 callers, beam {beam_size}", "≥ 0.85", shares))
    if served and batch == 1:
        rows.append((f"p50 ms that gRPC adds: one caller, beam {beam_size}", "< 1", overheads))
    return [f"| {text} | {bar} | {' | '.join(figures)} |" for text, bar, figures in rows]


def _settings(results: Results) -> list[str]:
    lines = ["Best settings found, by batch x beam size:", ""]
    for entrant in results.entrants:
        cells: dict[str, list[str]] = {}
        for cell, label in results.outcomes[entrant.name].settings.items():
            cells.setdefault(label, []).append(cell)
        if len(entrant.ways) > 1:
            lines += [f"* {entrant.name}: " + "; ".join(f"{label} ({', '.join(at)})" for label, at in cells.items())]
    return lines


def _rate(rates: Sequence[float]) -> str:
    if not rates:
        return "–"
    median = statistics.median(rates)
    return f"{median:,.0f} ± {(max(rates) - min(rates)) / 2 / median:.0%}"


def _latency(seconds: Sequence[float]) -> str:
    return f"{percentile(seconds, 50) * 1e3:.2f} / {percentile(seconds, 99) * 1e3:.2f}" if seconds else "–"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
