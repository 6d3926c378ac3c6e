"""The race itself: every entrant's best settings are found, then all take turns, round after round.

The machine is rarely idle, so nothing is compared across rounds: in each of them everybody works within seconds of
everybody else.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.race.entrants import Entrant, Way
from tests.benchmarks.race.environment import RaceError
from tests.benchmarks.race.lanes import Contender
from tests.benchmarks.race.work import Taken, Turn

_LONG = 0.5  # seconds: a batch that takes longer is tried once, not twice
_TRIAL = 0.3  # of a turn's seconds: how long a setting is tried


@dataclass(frozen=True)
class Plan:
    """What is raced: the cells of the table, how often, and the seconds of a turn."""

    batches: tuple[int, ...]
    beam_sizes: tuple[int, ...]
    rounds: int
    seconds: float

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Batch and beam size of every cell."""
        return list(itertools.product(self.batches, self.beam_sizes))

    def tried_beam_size(self, beam_size: int) -> int:
        """Return the beam size whose best settings are used: greedy search has its own, the widest beam the others'."""
        return 1 if beam_size == 1 else max(self.beam_sizes)


@dataclass(frozen=True)
class Record:
    """One turn of one entrant; ``latencies`` are seconds, and kept for single sentences and for services."""

    entrant: str
    batch: int
    beam_size: int
    alignment: bool
    round: int
    tokens_per_second: float
    latencies: list[float]


@dataclass
class Outcome:
    """What is known of an entrant besides its speed.

    Attributes:
        settings: Those chosen, by ``batch x beam size``.
        startup_seconds: Of every start.
        peak_mib: Largest resident size of its processes.
        broken: Why it took no part; empty if it did.
    """

    settings: dict[str, str] = field(default_factory=dict)
    startup_seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    broken: str = ""


class Race:
    """Entrants, their processes, and what came of it.

    Attributes:
        records: Every turn.
        outcomes: By entrant.
    """

    def __init__(self, entrants: Sequence[Entrant], plan: Plan, tell: Callable[[str], None]) -> None:
        self.records: list[Record] = []
        self.outcomes = {entrant.name: Outcome() for entrant in entrants}
        self._entrants, self._plan, self._tell = list(entrants), plan, tell
        self._running: dict[Way, Contender] = {}
        self._chosen: dict[tuple[str, int, int], tuple[Way, dict[str, Any]]] = {}

    def run(self, starts: int) -> None:
        """Race, then start everybody anew until each has been started ``starts`` times.

        Raises:
            RaceError: A contender ended, or one that is no toolkit could not be started.
        """
        with self._processes():
            for entrant in self._entrants:
                self._start(entrant)
            for entrant, (batch, beam_size) in itertools.product(self._racing(), self._plan.cells):
                if self._takes_part(entrant, batch) and beam_size == self._plan.tried_beam_size(beam_size):
                    self._tell(f"trying settings: {entrant.name}, batch {batch}, beam {beam_size}")
                    self._choose(entrant, batch, beam_size)
            used = {way for way, _ in self._chosen.values()}
            for way in self._running.keys() - used:
                self._running.pop(way).close()
            for number in range(self._plan.rounds):
                self._round(number)
        self._start_again(starts)

    def _round(self, number: int) -> None:
        racing = self._racing()
        first = number % len(racing)
        for batch, beam_size in self._plan.cells:
            self._tell(f"round {number + 1} of {self._plan.rounds}: batch {batch}, beam {beam_size}")
            for entrant in racing[first:] + racing[:first]:
                for alignment in (True, False) if entrant.aligns else (False,):
                    if self._takes_part(entrant, batch):
                        self._race(entrant, Turn(batch, beam_size, alignment, self._plan.seconds), number)

    def _race(self, entrant: Entrant, turn: Turn, number: int) -> None:
        way, settings = self._chosen[entrant.name, turn.batch, self._plan.tried_beam_size(turn.beam_size)]
        taken = self._take(entrant, way, turn, settings)
        latencies = taken.latencies if turn.batch == 1 or entrant.family == "service" else []
        self.records.append(
            Record(entrant.name, turn.batch, turn.beam_size, turn.alignment, number, taken.tokens_per_second, latencies)
        )
        outcome = self.outcomes[entrant.name]
        outcome.peak_mib = max(outcome.peak_mib, taken.peak_mib)
        cut = ", ".join(f"{name} {value}" for name, value in settings.items())
        outcome.settings[f"{turn.batch} x {turn.beam_size}"] = f"{way.label}; {cut}" if cut else way.label

    def _choose(self, entrant: Entrant, batch: int, beam_size: int) -> None:
        turn = Turn(batch, beam_size, False, self._plan.seconds * _TRIAL)
        rates: list[tuple[float, Way, dict[str, Any]]] = []

        def try_out(candidates: Sequence[tuple[Way, dict[str, Any]]]) -> None:
            for way, settings in candidates:
                taken = [self._take(entrant, way, turn, settings)]
                if taken[0].seconds < _LONG:  # the first of a size is slow: memory has to be had
                    taken.append(self._take(entrant, way, turn, settings))
                rates.append((max(one.tokens_per_second for one in taken), way, settings))

        try_out([(way, way.first_settings(batch)) for way in entrant.ways if way in self._running])
        best = max(rates, key=lambda rate: rate[0])[1]
        try_out([(best, settings) for settings in best.other_settings(batch)])
        _, way, settings = max(rates, key=lambda rate: rate[0])
        self._chosen[entrant.name, batch, beam_size] = (way, settings)

    def _take(self, entrant: Entrant, way: Way, turn: Turn, settings: dict[str, Any]) -> Taken:
        told = Turn(turn.batch, turn.beam_size, turn.alignment, turn.seconds, settings)
        try:
            return self._running[way].take(told)
        except RaceError as error:
            raise RaceError(f"{entrant.name}, batch {turn.batch}, beam {turn.beam_size}: {error}") from error

    def _start(self, entrant: Entrant) -> None:
        outcome = self.outcomes[entrant.name]
        for way in entrant.ways:
            self._tell(f"starting {entrant.name}: {way.label}")
            try:
                self._running[way] = contender = Contender(way.command)
            except RaceError as error:
                if entrant.family != "toolkit":
                    raise
                outcome.broken = str(error)
                return
            outcome.startup_seconds.append(contender.startup_seconds)

    def _start_again(self, starts: int) -> None:
        """Start everybody by turns, now that nobody races; what was noted of starts before is dropped."""
        ways = {entrant.name: self._chosen[entrant.name, *self._first_cell(entrant)][0] for entrant in self._racing()}
        for name in ways:
            self.outcomes[name].startup_seconds.clear()
        for _, (name, way) in itertools.product(range(starts), ways.items()):
            self._tell(f"starting {name}: {way.label}")
            contender = Contender(way.command)
            self.outcomes[name].startup_seconds.append(contender.startup_seconds)
            contender.close()

    def _first_cell(self, entrant: Entrant) -> tuple[int, int]:
        batch = next(batch for batch in self._plan.batches if self._takes_part(entrant, batch))
        return batch, self._plan.tried_beam_size(self._plan.beam_sizes[0])

    def _racing(self) -> list[Entrant]:
        return [entrant for entrant in self._entrants if not self.outcomes[entrant.name].broken]

    def _takes_part(self, entrant: Entrant, batch: int) -> bool:
        return not entrant.batches or batch in entrant.batches

    @contextmanager
    def _processes(self) -> Iterator[None]:
        try:
            yield
        finally:
            for contender in self._running.values():
                contender.close()
            self._running.clear()
