"""One set of links from two: those that a model draws from target to source, and those its reverse draws back.

A pair is ``(target_index, source_index)`` on both sides. The results are those of Moses' ``symal``, which looks at the
links of the forward set first.

Source: Koehn, Och and Marcu 2003, "Statistical Phrase-Based Translation", section 4.1.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Set
from types import MappingProxyType

Pair = tuple[int, int]
Rule = Callable[[Set[Pair], Set[Pair]], Set[Pair]]

_NEIGHBORS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


def symmetrized(forward: Iterable[Pair], reverse: Iterable[Pair], method: str) -> list[Pair]:
    """Return the links of ``method`` in order.

    Example:
        >>> symmetrized([(0, 0), (1, 1)], [(0, 0), (1, 0)], "intersection")
        [(0, 0)]

    Args:
        forward: A link for each target word that has one.
        reverse: A link for each source word that has one.
        method: A key of ``RULES``.
    """
    return sorted(RULES[method](set(forward), set(reverse)))


def _intersection(forward: Set[Pair], reverse: Set[Pair]) -> Set[Pair]:
    return forward & reverse


def _union(forward: Set[Pair], reverse: Set[Pair]) -> Set[Pair]:
    return forward | reverse


def _grow_diag(forward: Set[Pair], reverse: Set[Pair]) -> Set[Pair]:
    """Return the intersection with the neighbors of links, diagonal ones too, that link a word that has none yet."""
    union = forward | reverse
    links = set(forward & reverse)
    targets, sources = _covered(links)
    growing = True
    while growing:
        growing = False
        waiting = sorted(links)  # a sorted list is a heap: links added ahead are visited in the same round
        while waiting:
            target, source = heapq.heappop(waiting)
            for down, right in _NEIGHBORS:
                near = (target + down, source + right)
                if near in union and not (near[0] in targets and near[1] in sources):
                    links.add(near)
                    targets.add(near[0])
                    sources.add(near[1])
                    growing = True
                    if near > (target, source):
                        heapq.heappush(waiting, near)
    return links


def _grow_diag_final_and(forward: Set[Pair], reverse: Set[Pair]) -> Set[Pair]:
    """Return the grown links with those of either direction between two words that have none yet."""
    links = set(_grow_diag(forward, reverse))
    targets, sources = _covered(links)
    for target, source in [*sorted(forward), *sorted(reverse)]:
        if target not in targets and source not in sources:
            links.add((target, source))
            targets.add(target)
            sources.add(source)
    return links


def _covered(links: Iterable[Pair]) -> tuple[set[int], set[int]]:
    """Return the target and the source words of ``links``."""
    pairs = list(links)
    return {target for target, _ in pairs}, {source for _, source in pairs}


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "intersection": _intersection,
        "union": _union,
        "grow_diag": _grow_diag,
        "grow_diag_final_and": _grow_diag_final_and,
    }
)
