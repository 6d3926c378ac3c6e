"""Given targets being scored, each at its own step: what a batch drives instead of beams.

Axes: ``batch`` sentences; ``beam``, of size 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from bundle.manifest import SpecialIds
from bundle.search import Hypothesis, StepOutput
from bundle.step import token_log_probabilities


@dataclass(frozen=True)
class ForcedTargets:
    """Given targets being scored: the counterpart of ``Beams`` where there is nothing to search for.

    Attributes:
        targets: Tokens of each target; end of sentence last, but for one that was cut.
        steps: Tokens scored so far.
        special_ids: The first step reads ``bos``.
    """

    targets: tuple[tuple[int, ...], ...]
    steps: Int[np.ndarray, "batch"]
    special_ids: SpecialIds
    _length_penalties: tuple[float, ...]
    _scores: tuple[tuple[float, ...], ...]

    @classmethod
    def start(
        cls, targets: Sequence[tuple[int, ...]], length_penalties: Sequence[float], special_ids: SpecialIds
    ) -> "ForcedTargets":
        """Return targets of which nothing is scored."""
        steps, scores = np.zeros(len(targets), np.int64), ((),) * len(targets)
        return cls(tuple(targets), steps, special_ids, tuple(length_penalties), scores)

    @property
    def width(self) -> int:
        """Candidates that matter: the given token is looked up, not searched for."""
        return 1

    @property
    def previous_token_ids(self) -> Int[np.ndarray, "batch beam"]:
        """What the next step reads; the beam axis has size 1."""
        return self.emitted(1)

    def emitted(self, steps_back: int) -> Int[np.ndarray, "batch beam"]:
        """Return the token that stands ``steps_back`` before the one to be scored; bos before the first."""
        rows, bos = zip(self.targets, self.steps, strict=True), self.special_ids.bos
        return np.array([[target[step - steps_back] if step >= steps_back else bos] for target, step in rows], np.int64)

    def keep(self, rows: Sequence[int]) -> "ForcedTargets":
        """Return the targets of ``rows``, in that order."""
        return replace(
            self,
            targets=tuple(self.targets[row] for row in rows),
            steps=self.steps[list(rows)],
            _length_penalties=tuple(self._length_penalties[row] for row in rows),
            _scores=tuple(self._scores[row] for row in rows),
        )

    def join(self, other: "ForcedTargets") -> "ForcedTargets":
        """Return these targets followed by ``other``."""
        return replace(
            self,
            targets=self.targets + other.targets,
            steps=np.concatenate([self.steps, other.steps]),
            _length_penalties=self._length_penalties + other._length_penalties,
            _scores=self._scores + other._scores,
        )

    def advance(
        self, output: StepOutput
    ) -> "tuple[ForcedTargets, Int[np.ndarray, 'batch beam'], dict[int, list[Hypothesis]]]":
        """Return the targets one token further, the rows they continue (their own), and those now done, by row."""
        wanted = np.array([[target[step]] for target, step in zip(self.targets, self.steps, strict=True)], np.int64)
        found = token_log_probabilities(output, wanted)[:, 0].tolist()
        scores = tuple((*known, new) for known, new in zip(self._scores, found, strict=True))
        moved = replace(self, steps=self.steps + 1, _scores=scores)
        done = [row for row, target in enumerate(self.targets) if moved.steps[row] == len(target)]
        return moved, np.zeros_like(wanted), {row: [moved._scored(row)] for row in done}

    def _scored(self, row: int) -> Hypothesis:
        target, scores = self.targets[row], self._scores[row]
        return Hypothesis(
            token_ids=target,
            log_probability=sum(scores),
            normalized_score=sum(scores) / len(target) ** self._length_penalties[row],
            token_log_probabilities=scores,
            finish_reason="eos" if target[-1] == self.special_ids.eos else "max_length",
            beam_path=(0,) * len(target),
        )
