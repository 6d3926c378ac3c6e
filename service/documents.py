"""Sentences translated in order, a bounded number at once: what a document is given, and how fast it is read.

Whoever takes the answers sets the pace: while nobody does, no more than a window of sentences is translated ahead, and
nothing further is read.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from service.errors import Busy
from service.segmentation import Segmenter, Sentence

AnswerT = TypeVar("AnswerT")

_SLICE_CHARACTERS = 16 << 10  # of a message, cut into sentences at once: milliseconds, whatever it holds
_SHARE = 4  # a document gets at most one of so many parts of a batch, however many sentences it has


def window(batch_hypotheses: int, beam_size: int) -> int:
    """Return how many sentences of one document may be translated at once: so few that others find a place.

    >>> window(128, beam_size=4)
    8
    """
    return max(1, batch_hypotheses // (_SHARE * max(1, beam_size)))


async def sentences(
    texts: AsyncGenerator[str, None], segmenter: Segmenter, after: int
) -> AsyncGenerator[Sentence, None]:
    """Yield the sentences of a document that comes in parts, but for the first ``after`` of them.

    Raises:
        StreamInvalid: As for ``Segmenter.feed``.
    """
    async with aclosing(texts):
        async for text in texts:
            for start in range(0, len(text), _SLICE_CHARACTERS):
                await asyncio.sleep(0)  # a long document must not hold up the loop, also where it has no sentence
                for sentence in segmenter.feed(text[start : start + _SLICE_CHARACTERS]):
                    if sentence.sequence_id > after:
                        yield sentence
                    else:
                        await asyncio.sleep(0)
    for sentence in segmenter.finish():
        if sentence.sequence_id > after:
            yield sentence


async def in_order(
    given: AsyncGenerator[Sentence, None], answer: Callable[[str], Coroutine[Any, Any, AnswerT]], most: int
) -> AsyncGenerator[tuple[Sentence, AnswerT], None]:
    """Yield every sentence with its answer, each as soon as it and all before it are there.

    Args:
        given: Read only while fewer than ``most`` sentences are being answered or wait to be taken.
        answer: What to do with the text of a sentence; where it raises, that ends the document in its turn.
        most: How many at once.
    """
    room = asyncio.Semaphore(most)
    started: asyncio.Queue[tuple[Sentence, asyncio.Task[AnswerT]] | None] = asyncio.Queue()
    tasks: set[asyncio.Task[AnswerT]] = set()

    async def start() -> None:
        try:
            while await room.acquire() and (sentence := await anext(given, None)) is not None:
                task = asyncio.create_task(answer(sentence.text))
                tasks.add(task)
                started.put_nowait((sentence, task))
        finally:
            started.put_nowait(None)

    starter = asyncio.create_task(start())
    try:
        while (item := await started.get()) is not None:
            sentence, task = item
            yield sentence, await task
            tasks.discard(task)
            room.release()
        await starter  # raises what reading failed with
    finally:
        for unfinished in (starter, *tasks):
            unfinished.cancel()
        await asyncio.gather(starter, *tasks, return_exceptions=True)
        await given.aclose()


async def patiently(ask: Callable[[], Awaitable[AnswerT]], deadline: float | None) -> AnswerT:
    """Return what ``ask`` returns, asked again for as long as the service is busy.

    Raises:
        DeadlinePassed: Raised by ``ask`` once there is no time left.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            return await ask()
        except Busy as busy:
            left = busy.retry_after_seconds if deadline is None else deadline - loop.time()
            await asyncio.sleep(min(busy.retry_after_seconds, left))
