"""A stream of questions to a service by many callers at once, and what to think of each answer."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.reliability.answers import Judge, Outcome, Verdict
from tests.reliability.load import WAIT, Caller, Manner
from tests.reliability.questions import Question

_PAUSE_SECONDS = 0.5  # a caller who is not served comes back after half of that, in the mean


@dataclass(frozen=True)
class Noted:
    """One call that ended.

    Attributes:
        question: Which.
        manner: How it was asked.
        outcome: What came of it.
        verdict: What to think of that.
        started: When it was asked, on ``time.perf_counter``.
    """

    question: Question
    manner: Manner
    outcome: Outcome
    verdict: Verdict
    started: float

    @property
    def ended(self) -> float:
        """When the outcome came."""
        return self.started + self.outcome.seconds


class Traffic:
    """Asks the same questions again and again.

    Args:
        asked: What.
        manner: How somebody asks a call of that name.
        note: Told of every call that ended.

    Attributes:
        judge: Knows what is right.
    """

    def __init__(
        self,
        asked: Sequence[Question],
        manner: Callable[[random.Random, str], Manner],
        note: Callable[[Noted], None],
    ) -> None:
        self._asked = asked
        self._manner = manner
        self._note = note
        self.judge = Judge()

    async def learn(self, caller: Caller) -> None:
        """Ask everything once, one after the other, and learn which answers are right."""
        for index, question in enumerate(self._asked):
            self.judge.learn(index, await caller.ask(question))

    async def check(self, caller: Caller) -> None:
        """Ask everything once, one after the other."""
        for index in range(len(self._asked)):
            await self._ask(caller, index, WAIT)

    async def flow(self, caller: Caller, callers: int, goes_on: Callable[[], bool], seed: int) -> None:
        """Let so many callers ask whatever they like, each again when it is answered, while ``goes_on`` says so."""

        async def keep_asking(chance: random.Random) -> None:
            while goes_on():
                index = chance.randrange(len(self._asked))
                manner = self._manner(chance, self._asked[index].method)
                if await self._ask(caller, index, manner) in ("refused", "lost"):
                    await asyncio.sleep(chance.uniform(0.0, _PAUSE_SECONDS))

        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(keep_asking(random.Random(f"{seed} {number}")))

    async def _ask(self, caller: Caller, index: int, manner: Manner) -> Verdict:
        started = time.perf_counter()
        outcome = await caller.ask(self._asked[index], manner)
        verdict = self.judge.judge(index, outcome)
        if verdict == "lost" and manner.ending in ("cancel", "leave"):
            verdict = "gone"
        if verdict == "late" and manner.ending != "deadline":
            verdict = "lost"
        self._note(Noted(self._asked[index], manner, outcome, verdict, started))
        return verdict
