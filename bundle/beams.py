"""The running beams of many sentences: what a batch starts, advances, joins and keeps, as pure functions.

Axes: ``batch`` sentences, ``beam`` hypotheses of a sentence, ``k`` candidates of a hypothesis, ``time`` steps taken.

The rules, which a test restates by brute force. A candidate is one more token for a live hypothesis; banned tokens,
padding and beginning of sentence are no candidates, nor is one that would repeat a run of ``no_repeat_ngram_size``
tokens; while a forced prefix lasts only its next token is, whatever it repeats. At each step candidates are ordered by
summed log-probability, then beam row, then token id. Ends of sentence among the first ``beam_size`` finish; the first
``beam_size`` others live on. A sentence is done when ``beam_size`` hypotheses have finished, when the last allowed step
is taken (its live hypotheses then finish as ``max_length``), or when no live one can matter any more: log-probabilities
are not positive, so nothing that grows out of a live hypothesis scores above its log-probability over
``max_target_tokens ** length_penalty``; once ``n_best`` finished ones reach that bound, going on cannot change the
answer. Equal scores rank in the order in which they finished.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bundle.errors import InvalidSearchOptions
from bundle.manifest import SpecialIds
from bundle.ragged import padded, stacked
from bundle.step import (
    ALL_CANDIDATES,
    FinishReason,
    Hypothesis,
    SearchOptions,
    State,
)


@dataclass(frozen=True)
class End:
    """A finished hypothesis before it is traced back: its scores, and the emission it ends with."""

    normalized_score: float
    log_probability: float
    token_id: int
    token_log_probability: float
    row: int  # of the beam that emitted the last token
    step: int  # at which it did
    finish_reason: FinishReason


@dataclass(frozen=True)
class Beams:
    """The running searches of many sentences of one beam size, each at its own step.

    Attributes:
        special_ids: Ids of padding, beginning and end of sentence.
        steps: Tokens emitted so far by each sentence.
        scores: Log-probability of each live hypothesis in nats; -inf for a row that holds none.
        previous_token_ids: What the next step reads.
    """

    special_ids: SpecialIds
    steps: Int[np.ndarray, "batch"]
    scores: Float[np.ndarray, "batch beam"]
    previous_token_ids: Int[np.ndarray, "batch beam"]
    _max_target_tokens: Int[np.ndarray, "batch"]
    _length_penalties: Float[np.ndarray, "batch"]
    _n_best: Int[np.ndarray, "batch"]
    _prefix_lengths: Int[np.ndarray, "batch"]
    _prefixes: Int[np.ndarray, "batch prefix"]
    _banned: Int[np.ndarray, "batch banned"]
    _no_repeat_ngram_sizes: Int[np.ndarray, "batch"]
    _emitted: Int[np.ndarray, "batch time beam"]  # by each live hypothesis, in order; kept where runs are blocked
    _blocked: Int[np.ndarray, "batch blocked beam"]  # what would repeat a run
    _tokens: Int[np.ndarray, "batch time beam"]  # of the row it was put in
    _parents: Int[np.ndarray, "batch time beam"]  # the row that emitted it
    _token_scores: Float[np.ndarray, "batch time beam"]
    _finished_scores: Float[np.ndarray, "batch beam"]  # normalized, the best first, -inf where there is none yet
    _ends: tuple[tuple[End, ...], ...]

    @classmethod
    def start(cls, options: Sequence[SearchOptions], special_ids: SpecialIds) -> "Beams":
        """Return searches that have emitted nothing.

        Raises:
            InvalidSearchOptions: No sentence, different beam sizes, or a special token in a forced prefix.
        """
        sizes = sorted({o.beam_size for o in options})
        if len(sizes) != 1:
            raise InvalidSearchOptions(f"beam sizes are {sizes}; a batch has at least one sentence and one beam size")
        silent = {special_ids.pad, special_ids.bos}
        for o in options:
            if special := sorted({*silent, special_ids.eos} & set(o.forced_prefix)):
                raise InvalidSearchOptions(f"forced_prefix holds the special token ids {special}; leave them out")
        batch, beam = len(options), sizes[0]
        return cls(
            special_ids=special_ids,
            steps=np.zeros(batch, dtype=np.int64),
            scores=np.where(np.arange(beam) == 0, 0.0, np.full((batch, beam), -np.inf)),
            previous_token_ids=np.full((batch, beam), special_ids.bos, dtype=np.int64),
            _max_target_tokens=np.array([o.max_target_tokens for o in options]),
            _length_penalties=np.array([o.length_penalty for o in options], dtype=np.float64),
            _n_best=np.array([o.n_best for o in options]),
            _prefix_lengths=np.array([len(o.forced_prefix) for o in options]),
            _prefixes=padded([o.forced_prefix for o in options]),
            _banned=padded([sorted(silent.union(o.banned_token_ids)) for o in options]),
            _no_repeat_ngram_sizes=np.array([o.no_repeat_ngram_size for o in options]),
            _emitted=np.zeros((batch, 0, beam), dtype=np.int64),
            _blocked=np.zeros((batch, 0, beam), dtype=np.int64),
            _tokens=np.zeros((batch, 0, beam), dtype=np.int64),
            _parents=np.zeros((batch, 0, beam), dtype=np.int64),
            _token_scores=np.zeros((batch, 0, beam)),
            _finished_scores=np.full((batch, beam), -np.inf),
            _ends=((),) * batch,
        )

    @property
    def beam_size(self) -> int:
        """Rows of a sentence."""
        return int(self.scores.shape[1])

    @property
    def width(self) -> int:
        """Candidates of one hypothesis that can matter: one for each row, end of sentence, and one for each ban."""
        return self.beam_size + 1 + int(self._banned.shape[1]) + int(self._blocked.shape[1])

    @property
    def candidates(self) -> int:
        """Candidates of one hypothesis to ask the next step for: ``width``, or all while a forced prefix lasts."""
        return ALL_CANDIDATES if (self.steps < self._prefix_lengths).any() else self.width

    def emitted(self, steps_back: int) -> Int[np.ndarray, "batch beam"]:
        """Return what each hypothesis emitted ``steps_back`` steps ago, 1 being the last; bos before its first."""
        token_ids = np.full(self.scores.shape, self.special_ids.bos, dtype=np.int64)
        for sentence, steps in enumerate(self.steps.tolist()):
            if steps >= steps_back:
                rows = np.arange(self.beam_size)
                for step in range(steps - 1, steps - steps_back, -1):
                    rows = self._parents[sentence, step, rows]
                token_ids[sentence] = self._tokens[sentence, steps - steps_back, rows]
        return token_ids

    def keep(self, rows: Sequence[int] | Int[np.ndarray, "kept"]) -> "Beams":
        """Return the searches of the sentences ``rows``, in that order."""
        index = np.asarray(rows, dtype=np.int64)
        arrays = {name: array[index] for name, array in self._arrays().items()}
        return replace(self, **arrays, _ends=tuple(self._ends[row] for row in index))

    def join(self, other: "Beams") -> "Beams":
        """Return these searches followed by ``other``.

        Raises:
            InvalidSearchOptions: The beam sizes differ.
        """
        if self.beam_size != other.beam_size:
            raise InvalidSearchOptions(f"beams of {self.beam_size} and {other.beam_size} rows cannot share a batch")
        theirs = other._arrays()
        arrays = {name: stacked(array, theirs[name]) for name, array in self._arrays().items()}
        return replace(self, **arrays, _ends=self._ends + other._ends)

    def _arrays(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def reorder(state: State, parents: Int[np.ndarray, "batch beam"]) -> State:
    """Return the state whose every row is that of the hypothesis it continues."""
    batch, beam = parents.shape
    if (parents == np.arange(beam)).all():
        return state
    rows = (np.arange(batch)[:, None] * beam + parents).ravel()
    return {
        name: array.reshape(batch * beam, -1).take(rows, axis=0).reshape(array.shape) for name, array in state.items()
    }


def certain_prefix(beams: Beams, sentence: int, known: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Return the tokens that the best hypothesis of a sentence begins with, however its search goes on.

    They are what all hypotheses begin with that may still be the best: the best of the finished ones, and those alive
    that can still beat it. Two rows of one step never hold the same tokens, so hypotheses agree up to where their paths
    meet. What the answer ends with, such as end of sentence, is not told before it is there.

    Args:
        beams: After some step.
        sentence: Its row.
        known: What this returned after an earlier step; only what came since is looked at.
    """
    best = max(beams._ends[sentence], key=lambda end: end.normalized_score, default=None)
    bounds = beams.scores[sentence] / beams._max_target_tokens[sentence] ** beams._length_penalties[sentence]
    rows = set(np.flatnonzero(bounds > (-np.inf if best is None else best.normalized_score)).tolist())
    steps = range(len(known), int(beams.steps[sentence]))
    tokens, parents = (
        history[sentence, steps.start : steps.stop].tolist() for history in (beams._tokens, beams._parents)
    )
    token_ids: list[int] = []
    for step in reversed(steps):
        if best is not None and best.step == step + 1:
            rows.add(best.row)
        if len(rows) == 1 and (best is None or step < best.step):
            token_ids.append(tokens[step - steps.start][min(rows)])
        rows = {parents[step - steps.start][row] for row in rows}
    return (*known, *reversed(token_ids))


def answer(beams: Beams, sentence: int) -> list[Hypothesis]:
    """Return the hypotheses that a sentence has finished, the best first, as many as were asked for."""
    best = sorted(beams._ends[sentence], key=lambda end: -end.normalized_score)  # stable: the earlier one first
    return [_traced(beams, sentence, end) for end in best[: int(beams._n_best[sentence])]]


def _traced(beams: Beams, sentence: int, end: End) -> Hypothesis:
    """Follow the parents from the last emission back to the first."""
    token_ids, token_scores, path = [end.token_id], [end.token_log_probability], [end.row]
    for step in range(end.step - 1, -1, -1):
        here = (sentence, step, path[-1])
        token_ids.append(int(beams._tokens[here]))
        token_scores.append(float(beams._token_scores[here]))
        path.append(int(beams._parents[here]))
    return Hypothesis(
        token_ids=tuple(reversed(token_ids)),
        log_probability=end.log_probability,
        normalized_score=end.normalized_score,
        token_log_probabilities=tuple(reversed(token_scores)),
        finish_reason=end.finish_reason,
        beam_path=tuple(reversed(path)),
    )
