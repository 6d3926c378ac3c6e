"""Links of two directions made one: against the algorithm as it is printed, and what must hold whatever it does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.symmetrization import RULES, Pair, symmetrized

SIDE = 6
NEIGHBORS = [(-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)]

pairs = st.sets(st.tuples(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1)), max_size=12)


def brute_force(forward: set[Pair], reverse: set[Pair], final: bool) -> set[Pair]:
    """GROW-DIAG-FINAL-AND on a grid, word by word, as the pseudo-code of textbooks has it."""
    aligned = [[(row, column) in forward & reverse for column in range(SIDE)] for row in range(SIDE)]

    def new(row: int, column: int) -> tuple[bool, bool]:
        return not any(aligned[row]), not any(line[column] for line in aligned)

    changed = True
    while changed:
        changed = False
        for row in range(SIDE):
            for column in range(SIDE):
                for down, right in NEIGHBORS if aligned[row][column] else []:
                    near = (row + down, column + right)
                    if near in forward | reverse and any(new(*near)):
                        aligned[near[0]][near[1]] = changed = True
    for direction in (forward, reverse) if final else ():
        for row in range(SIDE):
            for column in range(SIDE):
                if (row, column) in direction and all(new(row, column)):
                    aligned[row][column] = True
    return {(row, column) for row in range(SIDE) for column in range(SIDE) if aligned[row][column]}


@given(pairs, pairs)
@settings(deadline=None)
def test_growing_is_that_of_the_textbook(forward: set[Pair], reverse: set[Pair]) -> None:
    assert set(symmetrized(forward, reverse, "grow_diag")) == brute_force(forward, reverse, final=False)
    assert set(symmetrized(forward, reverse, "grow_diag_final_and")) == brute_force(forward, reverse, final=True)


@given(pairs, pairs)
@settings(deadline=None)
def test_each_rule_keeps_what_the_stricter_one_has(forward: set[Pair], reverse: set[Pair]) -> None:
    found = [set(symmetrized(forward, reverse, rule)) for rule in RULES]
    intersection, union, grown, final = found
    assert intersection == forward & reverse and union == forward | reverse
    assert intersection <= grown <= final <= union
    assert all(symmetrized(forward, reverse, rule) == sorted(links) for rule, links in zip(RULES, found, strict=True))


@given(pairs, pairs)
@settings(deadline=None)
def test_nothing_more_can_grow_and_no_link_is_left_between_two_free_words(
    forward: set[Pair], reverse: set[Pair]
) -> None:
    grown, final = (set(symmetrized(forward, reverse, rule)) for rule in ("grow_diag", "grow_diag_final_and"))
    targets, sources = {pair[0] for pair in grown}, {pair[1] for pair in grown}
    for target, source in (forward | reverse) - grown:
        near = any((target + down, source + right) in grown for down, right in NEIGHBORS)
        assert not near or (target in targets and source in sources)
    for target, source in (forward | reverse) - final:
        assert target in {pair[0] for pair in final} or source in {pair[1] for pair in final}


@given(pairs, pairs, st.sampled_from(["intersection", "union"]))
@settings(deadline=None)
def test_set_rules_do_not_care_which_side_is_which(forward: set[Pair], reverse: set[Pair], rule: str) -> None:
    def turned(links: set[Pair]) -> set[Pair]:
        return {(source, target) for target, source in links}

    assert turned(set(symmetrized(forward, reverse, rule))) == set(symmetrized(turned(reverse), turned(forward), rule))


@given(pairs, st.sampled_from(list(RULES)))
@settings(deadline=None)
def test_two_equal_directions_are_their_own_result(links: set[Pair], rule: str) -> None:
    assert set(symmetrized(links, links, rule)) == links


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("intersection", [(0, 0)]),
        ("union", [(0, 0), (0, 4), (1, 0), (1, 1), (3, 3), (4, 1)]),
        ("grow_diag", [(0, 0), (1, 0), (1, 1)]),
        ("grow_diag_final_and", [(0, 0), (1, 0), (1, 1), (3, 3)]),
    ],
)
def test_a_sentence_worked_by_hand(rule: str, expected: list[Pair]) -> None:
    """Next to (0, 0): (1, 0), whose row is free, and (1, 1), whose column is. Only (3, 3) has both words free."""
    assert symmetrized({(0, 0), (1, 1), (3, 3), (4, 1)}, {(0, 0), (1, 0), (0, 4)}, rule) == expected
