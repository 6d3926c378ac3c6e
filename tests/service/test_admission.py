import random
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.search import SearchOptions
from service.admission import Limits, Load, Pace, Queue
from service.batch import Job, Seat
from service.errors import DeadlineTooShort, QueueFull


def seat(tokens: int, *, beam_size: int = 1, follows: bool = False) -> Seat:
    return Seat(Job(tuple(range(tokens)), SearchOptions(8, beam_size, beam_size), follows=follows))


def moving(seconds_a_seat: float, limits: Limits | None = None) -> Queue[Seat]:
    """A queue that seats of 10 tokens leave at that pace, and that holds one."""
    queue: Queue[Seat] = Queue(limits or Limits())
    for _ in range(30):
        queue.pace.stepped(1, seconds_a_seat / 10)
        queue.pace.finished(seat(10).job, 10)
    queue.admit(seat(10), None)
    return queue


def decodes(lane: Load, seats: Sequence[Seat]) -> None:
    """Let ``lane`` have ``seats`` and nobody else."""
    ordered = sorted(seats, key=lambda each: each.job.kind)
    lane.count((kind, list(of_it)) for kind, of_it in groupby(ordered, lambda each: each.job.kind))


def emptied(queue: Queue[Seat], lane: int = 0) -> list[Seat]:
    """What a lane takes that has nothing to decode; somebody waits for it."""
    decodes(queue.lanes[lane], [])
    return queue.take(queue.lanes[lane])


def test_those_who_came_first_are_taken_first_as_far_as_there_is_room() -> None:
    queue: Queue[Seat] = Queue(Limits(batch_hypotheses=12))
    seats = [seat(5, beam_size=beam_size) for beam_size in (4, 4, 8, 1)]
    for each in seats:
        assert queue.admit(each, None) is None
    assert emptied(queue) == seats[:2], "8 do not fit into 4, and nobody overtakes"
    assert queue.take(queue.lanes[0]) == []
    assert emptied(queue) == seats[2:]
    assert queue.take(queue.lanes[0]) == []


def test_no_more_tokens_are_encoded_at_once_than_should_be_but_always_somebody() -> None:
    queue: Queue[Seat] = Queue(Limits(encode_tokens=64))
    for tokens in (100, 16, 17, 17, 16):
        queue.admit(seat(tokens), None)
    assert [len(each.job.source_ids) for each in emptied(queue)] == [100]
    assert [len(each.job.source_ids) for each in emptied(queue)] == [16, 17], "17 tokens are padded to 32"


@pytest.mark.parametrize(("running", "taken"), [(0, 40), (1, 4), (16, 4), (40, 10)])
def test_those_who_are_decoded_wait_for_few_to_be_encoded(running: int, taken: int) -> None:
    queue: Queue[Seat] = Queue(Limits())
    decodes(queue.lanes[0], [seat(16) for _ in range(running)])
    for _ in range(40):
        queue.admit(seat(16), None)
    assert len(queue.take(queue.lanes[0])) == taken


def test_what_a_step_attends_over_is_bounded_but_a_single_sentence_is_always_taken() -> None:
    queue: Queue[Seat] = Queue(Limits(step_tokens=1000))
    for tokens in (300, 40, 33, 200):
        queue.admit(seat(tokens, beam_size=4), None)
    assert [len(each.job.source_ids) for each in emptied(queue)] == [300]
    assert queue.take(queue.lanes[0]) == []
    assert [len(each.job.source_ids) for each in emptied(queue)] == [40, 33], "4 times 48, twice; not 12 times 208"


def test_sentences_that_share_no_step_are_not_padded_to_each_others_length() -> None:
    queue: Queue[Seat] = Queue(Limits(step_tokens=1000))
    queue.admit(seat(400), None)
    queue.admit(seat(16, beam_size=4), None)
    assert len(emptied(queue)) == 2


def test_what_comes_at_once_is_shared_out_evenly() -> None:
    queue: Queue[Seat] = Queue(Limits(lanes=2))
    for _ in range(32):
        queue.admit(seat(16), None)
    assert [len(emptied(queue, lane)) for lane in (0, 1)] == [16, 16]


def test_a_crowd_is_shared_out_evenly_too_as_far_as_there_is_room() -> None:
    queue: Queue[Seat] = Queue(Limits(lanes=4, batch_hypotheses=64))
    for _ in range(500):
        queue.admit(seat(16), None)
    assert [len(emptied(queue, lane)) for lane in range(4)] == [16, 16, 16, 16]
    assert queue.take(queue.lanes[2]) == []


def test_a_lane_leaves_a_sentence_to_one_that_has_less_to_do() -> None:
    queue: Queue[Seat] = Queue(Limits(lanes=2))
    decodes(queue.lanes[0], [seat(16), seat(16)])
    decodes(queue.lanes[1], [seat(16)])
    queue.admit(one := seat(16, beam_size=4), None)
    assert queue.take(queue.lanes[0]) == []
    assert queue.take(queue.lanes[1]) == [one]


def attended(seats: Sequence[Seat]) -> int:
    """Source tokens, padded, that the hypotheses of a step of every batch of ``seats`` attend over."""
    kinds = {each.job.kind for each in seats}
    of_kind = [[each for each in seats if each.job.kind == kind] for kind in kinds]
    longest = [max(-(-len(each.job.source_ids) // 16) * 16 for each in those) for those in of_kind]
    return sum(len(those) * those[0].job.hypotheses * most for those, most in zip(of_kind, longest, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    lanes=st.integers(1, 4),
    room=st.sampled_from([16, 40, 128]),
    step_tokens=st.sampled_from([256, 2000, 8192]),
    encode_tokens=st.sampled_from([16, 200, 2048]),
    seed=st.integers(0, 1 << 30),
)
def test_no_lane_rests_while_somebody_waits_and_there_is_room(
    lanes: int, room: int, step_tokens: int, encode_tokens: int, seed: int
) -> None:
    limits = Limits(10_000, room, step_tokens, encode_tokens, queue_tokens=10**8, lanes=lanes)
    queue: Queue[Seat] = Queue(limits)
    generator = random.Random(seed)
    running: list[list[Seat]] = [[] for _ in range(lanes)]
    came: dict[Hashable, list[Seat]] = {}
    taken: list[Seat] = []
    pending = 100
    while pending or len(queue) or any(running):
        for _ in range(min(pending, generator.choice([0, 1, 3, 30]))):
            pending -= 1
            each = seat(generator.randint(1, 120), beam_size=generator.choice([1, 1, 4, 16]))
            flow = generator.choice(["document", "texts", each])
            assert queue.admit(each, None, flow) is None
            came.setdefault(flow, []).append(each)
        took = 0
        for load, seats in zip(queue.lanes, running, strict=True):
            decodes(load, seats)
        for lane in generator.sample(range(lanes), lanes):
            load = queue.lanes[lane]
            if running[lane] or queue._next_for(load):  # else it rests
                new = queue.take(load)
                running[lane] += new
                taken += new
                took += len(new)
                assert len(running[lane]) == 1 or not new or attended(running[lane]) <= step_tokens
        used = [sum(each.job.hypotheses for each in seats) for seats in running]
        assert sum(used) <= room
        head = queue._flows.first()
        if head is not None and not took and sum(used) + head.job.hypotheses <= room:
            least = [seats for seats, hypotheses in zip(running, used, strict=True) if hypotheses == min(used)]
            assert all(seats and attended([*seats, head]) > step_tokens for seats in least)
        running = [[each for each in seats if generator.random() < 0.7] for seats in running]
    for seats in came.values():
        assert sorted(seats, key=taken.index) == seats


def test_sentences_and_tokens_that_wait_are_bounded_and_the_refusal_says_which() -> None:
    queue: Queue[Seat] = Queue(Limits(queue_capacity=3, queue_tokens=100))
    assert queue.admit(seat(90), None) is None
    refused = queue.admit(seat(11), None)
    assert refused is not None and refused.reason == "queue_tokens" and isinstance(refused.error, QueueFull)
    assert "sentences of 90 tokens wait already, of at most 100; try again in 1.0 s" in str(refused.error)
    assert queue.admit(seat(5), None) is None and queue.admit(seat(5), None) is None
    refused = queue.admit(seat(1), None)
    assert refused is not None and refused.reason == "queue_full"
    assert "3 sentences wait already" in str(refused.error)


def test_where_nobody_waits_a_sentence_of_any_length_is_taken_whatever_its_deadline() -> None:
    queue = moving(100.0, Limits(queue_tokens=50))
    emptied(queue)
    assert queue.admit(seat(1000), 1e-9) is None


def test_a_job_that_follows_another_of_its_call_is_taken_whatever_waits() -> None:
    queue = moving(100.0, Limits(queue_capacity=30))
    assert queue.admit(seat(10, follows=True), 0.01) is None
    assert len(queue) == 2


def test_who_leaves_makes_room_and_shortens_the_wait() -> None:
    queue = moving(1.0)
    leaving = seat(1000)
    queue.admit(leaving, None)
    assert queue.tokens == 1010 and queue.wait_seconds == pytest.approx(101.0)
    assert queue.remove(leaving) and not queue.remove(leaving)
    assert queue.tokens == 10 and queue.wait_seconds == pytest.approx(1.0)


def test_a_deadline_that_the_queue_will_outlast_is_refused_and_says_so() -> None:
    queue = moving(1.0)
    for _ in range(9):
        queue.admit(seat(10), None)
    refused = queue.admit(seat(10), 2.0)
    assert refused is not None and refused.reason == "deadline" and isinstance(refused.error, DeadlineTooShort)
    assert "10 sentences wait already, this one would for some 10.0 s, and the deadline is in 2.00 s" in str(
        refused.error
    )
    assert queue.admit(seat(10), 6.0) is None, "callers ahead may leave"
    assert queue.admit(seat(10), None) is None


def test_a_deadline_is_not_too_short_for_what_comes_after_it_in_turn() -> None:
    """Of a call of 100 sentences, those of one turn come before another call."""
    queue = moving(1.0)
    emptied(queue)
    for _ in range(100):
        queue.admit(seat(10), None, "many")
    refused = queue.admit(seat(10), 2.0, "one")
    assert refused is not None and "this one would for some 6.4 s" in str(refused.error)
    assert queue.admit(seat(10), 4.0, "one") is None
    refused = queue.admit(seat(10), 20.0, "many")
    assert refused is not None and "102 sentences" not in str(refused.error)
    assert "101 sentences wait already, this one would for some 101.0 s" in str(refused.error)


def test_hypotheses_count_as_well_as_tokens() -> None:
    queue = moving(1.0)
    queue.admit(seat(10, beam_size=16), None)
    assert queue.wait_seconds == pytest.approx(17.0)


def test_a_full_queue_says_when_it_will_have_moved() -> None:
    queue = moving(0.5, Limits(queue_capacity=30))
    for _ in range(29):
        queue.admit(seat(10), None)
    refused = queue.admit(seat(10), None)
    assert refused is not None and isinstance(refused.error, QueueFull)
    assert refused.error.retry_after_seconds == pytest.approx(15.0)


@pytest.mark.parametrize(("seconds_a_seat", "said"), [(1e-6, 0.1), (1000.0, 30.0)])
def test_nobody_is_told_to_come_back_at_once_or_tomorrow(seconds_a_seat: float, said: float) -> None:
    queue = moving(seconds_a_seat, Limits(queue_capacity=30))
    for _ in range(29):
        queue.admit(seat(10), None)
    refused = queue.admit(seat(10), None)
    assert refused is not None and isinstance(refused.error, QueueFull)
    assert refused.error.retry_after_seconds == said


def test_the_pace_is_not_known_before_some_steps_and_a_whole_sentence() -> None:
    pace = Pace()
    for _ in range(100):
        assert pace.seconds == 0.0
        pace.stepped(8, 0.04)
    pace.finished(seat(10).job, 12)
    assert pace.seconds == pytest.approx(0.006)
    hasty = Pace()
    hasty.finished(seat(10).job, 10)
    hasty.stepped(1, 99.0)  # the first may be slow, as first steps are
    assert hasty.seconds == 0.0


def test_the_pace_follows_an_engine_that_gets_slower_or_faster() -> None:
    pace = Pace()
    pace.finished(seat(10).job, 10)
    for seconds in (1.0, 4.0, 0.5):
        for _ in range(100):
            pace.stepped(10, seconds)
        assert pace.seconds == pytest.approx(seconds / 10, rel=0.05)


def test_a_thread_that_waits_is_woken_by_the_first_seat_and_by_the_end() -> None:
    queue: Queue[Seat] = Queue(Limits())
    woken = threading.Semaphore(0)

    def work() -> None:
        for _ in range(2):
            emptied(queue)
            woken.release()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert not woken.acquire(timeout=0.05)
    assert queue.idle
    queue.admit(seat(3), None)
    assert woken.acquire(timeout=20)
    assert not woken.acquire(timeout=0.05)
    queue.close()
    assert woken.acquire(timeout=20)
    thread.join(timeout=20)


def test_a_lane_that_rests_is_woken_where_a_sentence_is_left_to_it() -> None:
    queue: Queue[Seat] = Queue(Limits(lanes=2, batch_hypotheses=16))
    decodes(queue.lanes[0], [seat(5) for _ in range(12)])
    woken = threading.Semaphore(0)

    def work() -> None:
        emptied(queue, lane=1)
        woken.release()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    queue.admit(seat(5, beam_size=8), None)
    assert not woken.acquire(timeout=0.05), "there is no room"
    decodes(queue.lanes[0], [seat(5) for _ in range(8)])
    assert queue.take(queue.lanes[0]) == []
    assert woken.acquire(timeout=20)
    thread.join(timeout=20)


@dataclass
class _Sentence:
    """A sentence of the simulated service: when it comes, how long it takes, and what becomes of it."""

    arrives: float
    tokens: int
    steps: int
    beam_size: int
    seconds_left: float
    seat: Seat = field(init=False)
    started: float | None = None
    refused: bool = False

    def __post_init__(self) -> None:
        self.seat = seat(self.tokens, beam_size=self.beam_size)


def _serve(sentences: list[_Sentence], room: int, free: _Sentence | None) -> None:
    """Serve ``sentences`` in simulated steps of 10 ms; deadlines count, but not that of ``free``."""
    queue: Queue[Seat] = Queue(Limits(queue_capacity=10_000, queue_tokens=10**8, batch_hypotheses=room))
    [lane] = queue.lanes
    by_seat = {id(each.seat): each for each in sentences}
    pending = sorted(sentences, key=lambda each: each.arrives)
    running: list[tuple[_Sentence, int]] = []  # with the steps they have made
    now = 0.0
    while pending or running or len(queue):
        while pending and pending[0].arrives <= now:
            each = pending.pop(0)
            each.refused = queue.admit(each.seat, None if each is free else each.seconds_left) is not None
        decodes(lane, [each.seat for each, _ in running])
        for taken in queue.take(lane) if running or len(queue) else []:
            each = by_seat[id(taken)]
            each.started = now
            running.append((each, 0))
        now += 0.01
        running = [(each, steps + 1) for each, steps in running]
        if len(queue):
            queue.pace.stepped(sum(each.beam_size for each, _ in running), 0.01)
        for each, steps in running:
            if steps == each.steps:
                queue.pace.finished(each.seat.job, steps)
        running = [(each, steps) for each, steps in running if steps < each.steps]


@settings(max_examples=60, deadline=None)
@given(random_=st.randoms(use_true_random=False), room=st.sampled_from([16, 32]), count=st.integers(20, 150))
def test_a_sentence_that_would_have_started_long_before_its_deadline_is_not_refused(
    random_: random.Random, room: int, count: int
) -> None:
    """Sentences of one corpus, whose translations are 0.7 to 1.5 times as long, in a burst."""

    def sentences() -> list[_Sentence]:
        made = []
        for _ in range(count):
            tokens = generator.randint(3, 60)
            steps = round(tokens * generator.uniform(0.7, 1.5))
            beam_size = generator.choice([1, 4])
            arrives, seconds_left = generator.uniform(0, 1), generator.uniform(0.01, 10)
            made.append(_Sentence(arrives, tokens, max(1, steps), beam_size, seconds_left))
        return made

    seed = random_.randrange(1 << 30)
    generator = random.Random(seed)
    served = sentences()
    _serve(served, room, None)
    refused = [index for index, each in enumerate(served) if each.refused]
    for index in random_.sample(refused, min(3, len(refused))):
        generator = random.Random(seed)
        twins = sentences()
        _serve(twins, room, twins[index])
        started = twins[index].started
        assert started is not None
        assert started - twins[index].arrives > 0.5 * twins[index].seconds_left


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=50),
    tokens=st.integers(1, 500),
    seconds_left=st.floats(1e-6, 1.0),
)
def test_a_sentence_that_finds_nobody_waiting_is_never_refused(
    seconds: list[float], tokens: int, seconds_left: float
) -> None:
    queue = moving(50.0)
    emptied(queue)
    for each in seconds:
        assert queue.admit(seat(tokens), seconds_left) is None
        queue.pace.stepped(1, each)
        assert len(emptied(queue)) == 1
