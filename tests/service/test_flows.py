import random
from collections import Counter
from collections.abc import Hashable

from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.search import SearchOptions
from service.batch import Job, Seat
from service.flows import TURN, Flows, work_of


def seat(tokens: int = 10, beam_size: int = 1) -> Seat:
    return Seat(Job(tuple(range(tokens)), SearchOptions(8, beam_size, beam_size)))


def taken(flows: Flows[Seat]) -> list[Seat]:
    return [flows.take() for _ in range(len(flows))]


def test_sentences_of_different_calls_are_taken_in_the_order_in_which_they_came() -> None:
    flows: Flows[Seat] = Flows()
    seats = [seat(tokens, beam) for tokens, beam in ((3, 1), (500, 16), (40, 4), (1, 1), (300, 4))]
    for each in seats:
        flows.add(each, each)
    assert taken(flows) == seats


def test_one_sentence_does_not_wait_for_a_call_of_many() -> None:
    flows: Flows[Seat] = Flows()
    many, one = [seat(16) for _ in range(100)], seat(16)
    for each in many:
        flows.add(each, "many")
    flows.add(one, "one")
    first = TURN // 16
    assert taken(flows) == [*many[:first], one, *many[first:]]


def test_calls_of_many_are_served_alike_whatever_their_sentences_are_like() -> None:
    flows: Flows[Seat] = Flows()
    kinds = {"short": (4, 1), "long": (80, 1), "wide": (20, 12)}
    key_of = {}
    for key, (tokens, beam_size) in kinds.items():
        for _ in range(60_000 // (tokens * beam_size)):
            each = seat(tokens, beam_size)
            flows.add(each, key)
            key_of[each] = key
    work: Counter[str] = Counter()
    while sum(work.values()) < 60_000:
        each = flows.take()
        work[key_of[each]] += work_of(each.job)
    assert max(work.values()) - min(work.values()) <= TURN + 20 * 12


def test_who_leaves_is_forgotten_with_his_call() -> None:
    flows: Flows[Seat] = Flows()
    one, other, third = seat(7), seat(9, 4), seat(5)
    for each, key in ((one, "a"), (other, "b"), (third, "a")):
        flows.add(each, key)
    assert (len(flows), flows.tokens, flows.hypotheses, flows.work) == (3, 21, 6, 48)
    flows.remove(one)
    assert one not in flows and other in flows
    flows.remove(other)
    assert (len(flows), flows.tokens, flows.hypotheses, flows.work) == (1, 5, 1, 5)
    assert flows.first() is third
    flows.clear()
    assert (len(flows), flows.tokens, flows.hypotheses, flows.work) == (0, 0, 0, 0)
    assert flows.first() is None


ARRIVALS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 120), st.sampled_from([1, 4, 16]), st.booleans()),
    min_size=1,
    max_size=120,
)


@settings(deadline=None)
@given(arrivals=ARRIVALS, random_=st.randoms(use_true_random=False))
def test_order_within_a_call_is_kept_and_nobody_is_lost(
    arrivals: list[tuple[int, int, int, bool]], random_: random.Random
) -> None:
    flows: Flows[Seat] = Flows()
    came: dict[int, list[Seat]] = {}
    left: set[Seat] = set()
    key_of, order = {}, []
    for key, tokens, beam_size, leaves in arrivals:
        each = seat(tokens, beam_size)
        flows.add(each, key)
        key_of[each] = key
        came.setdefault(key, []).append(each)
        if leaves:
            victim = random_.choice([other for others in came.values() for other in others if other in flows])
            flows.remove(victim)
            left.add(victim)
        if random_.random() < 0.3 and len(flows):
            order.append(flows.take())
    order += taken(flows)
    for key, seats in came.items():
        assert [each for each in order if key_of[each] == key] == [each for each in seats if each not in left]


MOST = 300  # work of a sentence


@settings(deadline=None)
@given(
    present=st.lists(st.lists(st.integers(1, MOST), min_size=1, max_size=20), max_size=6),
    served=st.integers(0, 30),
    own=st.lists(st.integers(1, MOST), min_size=1, max_size=5),
    later=st.lists(st.integers(1, MOST), min_size=1, max_size=3),
)
def test_nobody_starves_whatever_others_bring(
    present: list[list[int]], served: int, own: list[int], later: list[int]
) -> None:
    """Others may have one turn each before a call has its first, and then as many more as its last sentence cost."""
    flows: Flows[Seat] = Flows()
    key_of: dict[Seat, Hashable] = {}

    def add(tokens: int, key: Hashable) -> Seat:
        each = seat(tokens)
        flows.add(each, key)
        key_of[each] = key
        return each

    for number, lengths in enumerate(present):
        for tokens in lengths:
            add(tokens, number)
    for _ in range(min(served, len(flows))):
        flows.take()
    mine = [add(tokens, "mine") for tokens in own]
    work: Counter[Hashable] = Counter()
    turns = 1
    for wanted in mine:
        while True:
            for key, tokens in enumerate(later):  # calls that never stop bringing sentences
                add(tokens, ("later", key))
            if len(flows) < 200:
                add(later[0], ("new", len(key_of)))  # and ever new ones
            each = flows.take()
            if each is wanted:
                break
            work[key_of[each]] += work_of(each.job)
            assert work[key_of[each]] <= turns * TURN + MOST
        turns += 1 + work_of(wanted.job) // TURN


@settings(deadline=None)
@given(
    present=st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=30), max_size=6),
    own=st.lists(st.integers(1, 200), max_size=5),
)
def test_the_work_ahead_of_a_sentence_is_foretold(present: list[list[int]], own: list[int]) -> None:
    flows: Flows[Seat] = Flows()
    for number, lengths in enumerate(present):
        for tokens in lengths:
            flows.add(seat(tokens), number)
    for tokens in own:
        flows.add(seat(tokens), "mine")
    foretold, total = flows.ahead("mine"), flows.work
    wanted = seat(1)
    flows.add(wanted, "mine")
    ahead = 0
    while (each := flows.take()) is not wanted:
        ahead += work_of(each.job)
    assert foretold <= total
    assert abs(foretold - ahead) <= len(present) * (TURN + 200)
