"""What every fault is tried on: a service under load whose right answers are known, and what its callers got."""

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.answers import Verdict
from tests.reliability.load import Caller, Manner, Target
from tests.reliability.process import Service
from tests.reliability.questions import Question, questions
from tests.reliability.traffic import Noted, Traffic

Manners = Callable[[random.Random, str], Manner]

_NEVER: tuple[Verdict, ...] = ("wrong", "lost", "stuck", "late")
_CONNECTIONS = 4
_QUESTIONS = 40
_CALLERS = 16
_POLL_SECONDS = 0.02
_BEFORE_SECONDS = 1.0
_AFTER_SECONDS = 2.0
_EXAMPLES = 5
_RECONNECT_SECONDS = 1.5  # longer than a channel waits between two attempts


@dataclass(frozen=True)
class Scene:
    """What to put on the stage.

    Attributes:
        bundle: To serve.
        folder: For whatever has to be written.
        seed: Of everything random.
        share: Of the times that things happen which happen often.
    """

    bundle: Path
    folder: Path
    seed: int
    share: float = 1.0

    def times(self, often: int) -> int:
        """Return how often something happens here, twice at least."""
        return max(2, round(often * self.share))


@dataclass
class Stage:
    """A service under load.

    Attributes:
        scene: What it was made of.
        service: The service.
        target: Where it is.
        noted: Every call that ended.
        began: When the fault began, on ``time.perf_counter``.
        absent: When the service was away, from and to: who calls then finds nobody, and nothing accepted is lost.
    """

    scene: Scene
    service: Service
    target: Target
    traffic: Traffic
    caller: Caller
    noted: list[Noted] = field(default_factory=list)
    began: float = 0.0
    absent: list[tuple[float, float]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Let callers ask while the context lasts, some time before and some time after."""
        going = True
        flowing = asyncio.create_task(self.traffic.flow(self.caller, _CALLERS, lambda: going, self.scene.seed))
        await asyncio.sleep(_BEFORE_SECONDS)
        self.began = time.perf_counter()
        try:
            yield
            await asyncio.sleep(_AFTER_SECONDS)
        finally:
            going = False
            await flowing

    def away(self, since: float) -> None:
        """Note that the service was away until now, and that its callers need a moment to find it again."""
        self.absent.append((since, time.perf_counter() + _RECONNECT_SECONDS))

    def count(self, *verdicts: Verdict) -> int:
        """Return how many calls got one of these verdicts, those that found nobody left out."""
        return sum(noted.verdict in verdicts for noted in self.noted if not self.found_nobody(noted))

    def found_nobody(self, noted: Noted) -> bool:
        """Return whether the caller was not served because the service was away."""
        away = any(start <= noted.started <= end for start, end in self.absent)
        return noted.verdict == "lost" and away

    def recovery_seconds(self) -> float:
        """Return how long after the fault began the last caller was not served."""
        late = [noted.ended for noted in self.noted if noted.verdict not in ("right", "gone")]
        return max([0.0, *(ended - self.began for ended in late)])


@dataclass(frozen=True)
class Found:
    """What became of one fault.

    Attributes:
        fault: Which.
        times: It happened so often.
        stage: Where.
        recovery_seconds: Until everybody was served again, or what the remark says.
        remark: What else was seen.
        missed: What was promised and did not hold.
    """

    fault: str
    times: int
    stage: Stage
    recovery_seconds: float
    remark: str = ""
    missed: tuple[str, ...] = ()

    def examples(self) -> list[str]:
        """Return some of the calls that ended as none should."""
        stage = self.stage
        bad = [noted for noted in stage.noted if noted.verdict in _NEVER and not stage.found_nobody(noted)]
        return [
            f"{one.verdict}: {one.question.method} over {one.manner.transport}, {one.outcome.code} {one.outcome.reason}"
            f", {one.started - stage.began:+.3f} s after the fault began, took {one.outcome.seconds:.3f} s"
            for one in bad[:_EXAMPLES]
        ]

    @property
    def misses(self) -> list[str]:
        """Everything that was promised and did not hold."""
        counted = {verdict: self.stage.count(verdict) for verdict in _NEVER}
        return [*self.missed, *(f"{number} {verdict}" for verdict, number in counted.items() if number)]


@contextlib.asynccontextmanager
async def staged(
    scene: Scene,
    service: Service,
    manner: Manners = lambda chance, method: Manner(),
    target: Target | None = None,
    methods: Sequence[str] = (),
) -> AsyncIterator[Stage]:
    """Start ``service`` and learn what is right; at the end, check it once more and stop it.

    Args:
        scene: What to put on the stage.
        service: Not yet started.
        manner: How callers ask.
        target: Where it is; its addresses and plain text by default.
        methods: Calls to leave out.
    """
    asked: list[Question] = [each for each in questions(_QUESTIONS, scene.seed) if each.method not in methods]
    noted: list[Noted] = []
    traffic = Traffic(asked, manner, noted.append)
    service.start()
    to = target or Target(service.address, service.http_address)
    try:
        async with Caller(to, _CONNECTIONS) as caller:
            await traffic.learn(caller)
            yield Stage(scene, service, to, traffic, caller, noted)
            await traffic.check(caller)
    finally:
        if service.alive:
            service.stop()


async def until(happened: Callable[[], object], seconds: float = 60.0) -> float:
    """Wait until something has happened; return how long that took.

    Raises:
        TimeoutError: It did not happen.
    """
    begun = time.perf_counter()
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(happened):
            await asyncio.sleep(_POLL_SECONDS)
    return time.perf_counter() - begun


@contextlib.contextmanager
def scene_of(bundle: Path, seed: int, share: float = 1.0) -> Iterator[Scene]:
    """Yield a scene with a folder that goes with it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Scene(bundle, Path(folder), seed, share)
