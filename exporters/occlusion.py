"""Source tokens taken out of the input, and what that does to the probability of the tokens of a given translation.

Unlike ``exporters.perturbation``, the model reads another sentence here, so its states change too. The end of sentence
always stays. Axes: ``token`` counts source tokens without end of sentence, ``target`` emitted tokens with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from bundle.sessions import padded
from exporters.forcing import target_inputs
from exporters.perturbation import Translated
from exporters.runtime import OnnxModel
from training.translation import Ids

THRESHOLDS = (0.01, 0.05, 0.1, 0.2, 0.5)  # share of the source tokens taken for a rationale (ERASER)
_BATCH_SENTENCES = 64

Importance = Float[np.ndarray, "token"]


@dataclass(frozen=True)
class Rationale:
    """An order in which source tokens are held responsible for one token of a translation.

    Attributes:
        sentence: Which sentence.
        position: Which token of its translation.
        importance: Of each source token; ties go to the earlier.
    """

    sentence: int
    position: int
    importance: Importance


@dataclass(frozen=True)
class _Question:
    """A translation to be forced on a source; log-probabilities are wanted from the token ``first`` on."""

    source_ids: Ids
    target_ids: Ids
    first: int = 0


def occlude(
    model: OnnxModel, sentences: Sequence[Translated], own: Sequence[Float64[np.ndarray, "target"]]
) -> list[Float64[np.ndarray, "target token"]]:
    """Return by how many nats the log-probability of each emitted token changes when a source token is taken out.

    ``own`` are the log-probabilities with the whole source.
    """
    questions = [
        _Question([*sentence.source_ids[:token], *sentence.source_ids[token + 1 :]], sentence.target_ids)
        for sentence in sentences
        for token in range(len(sentence.source_ids) - 1)
    ]
    answers = iter(_log_probabilities(model, questions))
    return [
        np.stack([next(answers) for _ in sentence.source_ids[:-1]], axis=1) - log_probabilities[:, None]
        for sentence, log_probabilities in zip(sentences, own, strict=True)
    ]


def rationale_probabilities(
    model: OnnxModel, sentences: Sequence[Translated], rationales: Sequence[Rationale]
) -> tuple[Float64[np.ndarray, "rationale threshold"], Float64[np.ndarray, "rationale threshold"]]:
    """Return the probability of each explained token without the tokens of its rationale, and with them alone.

    A rationale holds the most important ``THRESHOLDS`` of the source tokens, at least one.
    """
    places: dict[tuple[int, int, bytes], int] = {}
    questions: list[_Question] = []

    def asked(sentence: int, position: int, kept: Bool[np.ndarray, "token"]) -> int:
        key = (sentence, position, kept.tobytes())
        if key not in places:
            source, target = sentences[sentence].source_ids, sentences[sentence].target_ids
            left = [token_id for token_id, stays in zip(source[:-1], kept, strict=True) if stays]
            places[key] = len(questions)
            questions.append(_Question([*left, source[-1]], target[: position + 1], position))
        return places[key]

    rows = []
    for rationale in rationales:
        ranks = (-rationale.importance).argsort(kind="stable").argsort()
        chosen = [ranks < math.ceil(threshold * len(ranks)) for threshold in THRESHOLDS]
        rows.append([[asked(rationale.sentence, rationale.position, kept) for kept in (~c, c)] for c in chosen])
    probabilities = np.exp([answer[0] for answer in _log_probabilities(model, questions)])
    without, alone = np.moveaxis(probabilities[np.array(rows)], 2, 0)
    return without, alone


def kendall_tau(
    one: Float[np.ndarray, "row column"], other: Float[np.ndarray, "row column"]
) -> Float64[np.ndarray, "row"]:
    """Return the rank correlation tau-b of each pair of rows; NaN where a row is constant.

    Example:
        >>> kendall_tau(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 3.0, 2.0]])).round(3).tolist()
        [0.333]
    """
    signs = [np.sign(values[:, :, None] - values[:, None, :]) for values in (one, other)]
    agreement, *untied = ((first * second).sum(axis=(1, 2)) for first, second in [signs, *((s, s) for s in signs)])
    pairs = np.sqrt(untied[0] * untied[1])
    return np.asarray(np.divide(agreement, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))


def _log_probabilities(model: OnnxModel, questions: Sequence[_Question]) -> list[Float64[np.ndarray, "wanted"]]:
    """Return the log-probabilities of the tokens of each question, from its ``first`` on."""

    def cost(row: int) -> tuple[int, int]:
        return padded(len(questions[row].source_ids)), len(questions[row].target_ids)

    order = sorted(range(len(questions)), key=cost)
    found: dict[int, Float64[np.ndarray, "wanted"]] = {}
    for start in range(0, len(order), _BATCH_SENTENCES):
        rows = order[start : start + _BATCH_SENTENCES]
        found |= zip(rows, _batch_log_probabilities(model, [questions[row] for row in rows]), strict=True)
    return [found[row] for row in range(len(questions))]


def _batch_log_probabilities(model: OnnxModel, questions: Sequence[_Question]) -> list[Float64[np.ndarray, "wanted"]]:
    targets = target_inputs([question.target_ids for question in questions], model.special_ids)
    encoded = model.encode([question.source_ids for question in questions])
    state = {name: array[:, None] for name, array in encoded.initial_state.items()}
    start = min(question.first for question in questions)
    found = np.zeros(targets.shape)
    for step in range(targets.shape[1]):
        fetches = ["log_probabilities", *model.next_state] if step >= start else model.next_state
        answers = model.step(encoded, targets[:, step : step + 1], state, fetches)
        state = {name: answers[f"next_{name}"] for name in model.state_names}
        if step >= start:
            found[:, step] = _of_emitted(answers["log_probabilities"][:, 0], questions, step)
    return [row[question.first : len(question.target_ids)] for row, question in zip(found, questions, strict=True)]


def _of_emitted(
    log_probabilities: Float[np.ndarray, "batch vocabulary"], questions: Sequence[_Question], step: int
) -> Float[np.ndarray, "batch"]:
    """Return the log-probability of the token each translation emits at ``step``; anything past its end."""
    emitted: Int[np.ndarray, "batch"] = np.array(
        [question.target_ids[min(step, len(question.target_ids) - 1)] for question in questions]
    )
    return np.take_along_axis(log_probabilities, emitted[:, None], axis=1)[:, 0]
