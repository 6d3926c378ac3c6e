import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.documents import in_order, patiently, sentences, window
from service.errors import DeadlinePassed, QueueFull, StreamInvalid
from service.segmentation import Segmenter, Sentence


async def arriving(parts: list[str], read: list[str] | None = None) -> AsyncGenerator[str, None]:
    for part in parts:
        if read is not None:
            read.append(part)
        yield part


def document(parts: list[str], read: list[str] | None = None, after: int = 0) -> AsyncGenerator[Sentence, None]:
    return sentences(arriving(parts, read), Segmenter("en", lambda text: True), after)


LINES = [f"Line number {number}.\n" for number in range(100)]


@given(st.lists(st.floats(0, 0.002), min_size=1, max_size=30), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_answers_come_in_the_order_of_the_sentences_and_no_more_at_once_than_allowed(
    delays: list[float], most: int
) -> None:
    at_once = [0, 0]

    async def answer(text: str) -> str:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await asyncio.sleep(delays[int(text.split()[-1][:-1])])
        at_once[0] -= 1
        return text.upper()

    async def run() -> list[tuple[str, str]]:
        given = document(LINES[: len(delays)])
        return [(sentence.text, answered) async for sentence, answered in in_order(given, answer, most)]

    found = asyncio.run(run())
    assert found == [(line.strip(), line.strip().upper()) for line in LINES[: len(delays)]]
    assert at_once[1] <= most


async def test_nothing_further_is_read_while_nobody_takes_the_answers() -> None:
    read: list[str] = []
    started: list[str] = []

    async def answer(text: str) -> str:
        started.append(text)
        return text

    async with aclosing(in_order(document(LINES, read), answer, most=5)) as answers:
        await anext(answers)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(started) == 5  # the one taken, whose room is given when the next is asked for, and four ahead
        assert len(read) <= 5 + 1
        await anext(answers)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(started) == 6


async def test_an_answer_does_not_wait_for_the_rest_of_the_document() -> None:
    async def slowly() -> AsyncGenerator[str, None]:
        yield "One.\nTwo."
        await asyncio.Event().wait()

    async def answer(text: str) -> str:
        return text

    given = sentences(slowly(), Segmenter("en", lambda text: True), 0)
    async with aclosing(in_order(given, answer, 8)) as answers:
        sentence, _ = await asyncio.wait_for(anext(answers), 5)
        assert sentence.text == "One."


@pytest.mark.parametrize("line", ["*\n", "* ", "\n", "*"])
async def test_a_document_without_a_word_does_not_hold_up_the_loop(line: str) -> None:
    """Another caller of the loop gets a turn at least after every 16 Ki characters."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    text = line * (1_000_000 // len(line))
    caller = asyncio.create_task(others())
    [sentence] = [sentence async for sentence in document([text, "\nOne."])]
    assert sentence.text == "One."
    caller.cancel()
    assert turns >= len(text) >> 14


async def test_a_million_characters_without_a_word_are_refused_however_they_come() -> None:
    for part in ("*\n", "\n", "*"):
        with pytest.raises(StreamInvalid, match="in a row"):
            async for _ in document([part * 600_000, part * 600_000]):
                raise AssertionError


async def test_sentences_that_arrived_before_are_not_answered_again() -> None:
    every = [sentence async for sentence in document(LINES)]
    for after in (0, 1, 57, 99, 100, 101):
        assert [sentence async for sentence in document(LINES, after=after)] == every[after:]


async def test_whoever_leaves_early_stops_what_was_started() -> None:
    stopped = []

    async def answer(text: str) -> str:
        try:
            await asyncio.sleep(0 if text == "Line number 0." else 60)
        except asyncio.CancelledError:
            stopped.append(text)
            raise
        return text

    async with aclosing(in_order(document(LINES), answer, 4)) as answers:
        await anext(answers)
        await asyncio.sleep(0.01)
    assert sorted(stopped) == ["Line number 1.", "Line number 2.", "Line number 3."]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@pytest.mark.parametrize("where", ["reading", "answering"])
async def test_a_failure_ends_the_document_after_what_came_before_it(where: str) -> None:
    async def failing() -> AsyncGenerator[str, None]:
        for line in LINES[:3]:
            yield line
        raise ValueError(where)

    async def answer(text: str) -> str:
        await asyncio.sleep(random.Random(text).random() / 100)
        if where == "answering" and text == "Line number 3.":
            raise ValueError(where)
        return text

    texts = failing() if where == "reading" else arriving(LINES)
    found = []
    with pytest.raises(ValueError, match=where):
        async for sentence, _ in in_order(sentences(texts, Segmenter("en", lambda text: True), 0), answer, 8):
            found.append(sentence.sequence_id)
    assert found == [1, 2, 3]


def busy(times: int, seconds: float) -> Callable[[], Awaitable[str]]:
    left = [times]

    async def ask() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise QueueFull("full", seconds)
        return "done"

    return ask


async def test_a_full_queue_is_waited_for() -> None:
    assert await patiently(busy(3, 0.001), None) == "done"
    assert await patiently(busy(3, 0.001), asyncio.get_running_loop().time() + 60) == "done"


async def test_the_deadline_ends_the_wait_for_a_full_queue() -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 0.02

    async def ask() -> str:
        if loop.time() >= deadline:
            raise DeadlinePassed("too late")
        raise QueueFull("full", 30.0)

    with pytest.raises(DeadlinePassed):
        await asyncio.wait_for(patiently(ask, deadline), 5)


def test_a_document_takes_a_part_of_a_batch_whatever_its_beam() -> None:
    assert {beam: window(128, beam) for beam in (1, 2, 4, 8, 16)} == {1: 32, 2: 16, 4: 8, 8: 4, 16: 2}
    assert window(16, 16) == 1
    assert window(128, 0) == 32  # refused when the first sentence is
