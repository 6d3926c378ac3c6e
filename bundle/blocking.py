"""Which tokens would repeat a run: what a hypothesis may not emit next where no run may come twice; a pure function.

Axes: ``batch`` sentences, ``time`` tokens emitted, ``beam`` hypotheses, ``blocked`` tokens that one must not emit.
"""

import numpy as np
from jaxtyping import Int

from bundle.ragged import NO_TOKEN


def completing(
    emitted: Int[np.ndarray, "batch time beam"], steps: Int[np.ndarray, "batch"], sizes: Int[np.ndarray, "batch"]
) -> Int[np.ndarray, "batch blocked beam"]:
    """Return the tokens with which a run of ``sizes`` tokens would stand in a hypothesis for the second time.

    The list is as long as the longest needs; ``NO_TOKEN`` fills the others.

    Args:
        emitted: What each hypothesis has emitted, in order.
        steps: How much of ``emitted`` counts, for each sentence.
        sizes: Tokens of a run; 0 blocks nothing.

    >>> completing(np.array([[[5], [6], [7], [5], [6]]]), np.array([5]), np.array([3])).ravel().tolist()
    [7]
    """
    batch, longest, beam = emitted.shape
    place = np.arange(longest)[:, None]
    # A run ends at a place, and would end again with its token, if what stands before is what was emitted last.
    ends = np.repeat((sizes > 0)[:, None, None] & (place < steps[:, None, None]), beam, axis=2)
    for back in range(1, min(int(sizes.max(initial=0)), longest + 1)):
        last = emitted[np.arange(batch), np.maximum(steps - back, 0)]
        agrees = np.zeros_like(ends)
        agrees[:, back:] = emitted[:, :-back] == last[:, None]
        ends &= agrees | (back >= sizes)[:, None, None]
    count = int(ends.sum(axis=1).max(initial=0))
    found = np.where(ends, emitted, NO_TOKEN)
    return -np.sort(-found, axis=1)[:, :count]
