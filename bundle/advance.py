"""One step of running beams: from what a decoder's step answers to the beams one token further.

Axes are those of ``bundle.beams``, where the rules stand too. Pure functions.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bundle.beams import Beams, End, answer
from bundle.blocking import completing
from bundle.ragged import recorded
from bundle.step import FinishReason, Hypothesis, StepOutput, token_log_probabilities


def advance(
    beams: Beams, output: StepOutput
) -> tuple[Beams, Int[np.ndarray, "batch beam"], dict[int, list[Hypothesis]]]:
    """Return the beams one token further, the row each new row continues, and the answers of the sentences now done.

    Reorder the state by the second (``reorder``); drop the rows of the third with ``Beams.keep`` before the next step.
    A sentence that no token may continue (its forced token is outside the vocabulary) is done with what it has.
    """
    if beams.beam_size == 1 and (best := _best_allowed(beams, output)) is not None:
        return _advance_greedily(beams, *best)
    token_ids, log_probabilities = _allowed(beams, output)
    batch, beam, width = token_ids.shape
    totals = (beams.scores[:, :, None] + log_probabilities).reshape(batch, beam * width)
    # Flat order is row, then the step's own order, so a stable sort breaks ties by row and token id. Each row has one
    # end of sentence, so the first 2 * beam hold every one that may finish and every other that may live.
    sentences = np.arange(batch)[:, None]
    order = (-totals).argsort(axis=1, kind="stable")[:, : 2 * beam]
    totals = totals[sentences, order]
    tokens = token_ids.reshape(batch, -1)[sentences, order]
    token_scores = log_probabilities.reshape(batch, -1)[sentences, order]
    rows = order // width

    is_eos = tokens == beams.special_ids.eos
    ends = is_eos & (totals > -np.inf) & (np.arange(totals.shape[1]) < beam)
    live = is_eos.argsort(axis=1, kind="stable")[:, :beam]
    scores = np.where(is_eos, -np.inf, totals)[sentences, live]
    at_limit = beams.steps + 1 == beams._max_target_tokens
    cut = np.zeros_like(ends)
    cut[sentences, live] = at_limit[:, None] & (scores > -np.inf)

    normalized = totals / ((beams.steps + 1.0) ** beams._length_penalties)[:, None]
    all_ends = list(beams._ends)
    reasons: tuple[tuple[FinishReason, Any], ...] = (("eos", ends), ("max_length", cut))
    for reason, chosen in reasons:
        for sentence, place in np.argwhere(chosen).tolist():
            here = (sentence, place)
            end = End(
                normalized_score=float(normalized[here]),
                log_probability=float(totals[here]),
                token_id=int(tokens[here]),
                token_log_probability=float(token_scores[here]),
                row=int(rows[here]),
                step=int(beams.steps[sentence]),
                finish_reason=reason,
            )
            all_ends[sentence] = (*all_ends[sentence], end)

    parents, live_tokens = rows[sentences, live], tokens[sentences, live]
    new_scores = np.where(ends | cut, normalized, -np.inf)
    advanced = replace(
        beams,
        steps=beams.steps + 1,
        scores=scores,
        previous_token_ids=live_tokens,
        _finished_scores=-np.sort(np.concatenate([-beams._finished_scores, -new_scores], axis=1), axis=1)[:, :beam],
        _ends=tuple(all_ends),
        **_remembered(beams, parents, live_tokens, token_scores[sentences, live]),
    )
    done = np.flatnonzero(at_limit | _settled(advanced)).tolist()
    return advanced, parents, {sentence: answer(advanced, sentence) for sentence in done}


def _best_allowed(
    beams: Beams, output: StepOutput
) -> tuple[Int[np.ndarray, "batch"], Float[np.ndarray, "batch"]] | None:
    """Return the best token of each sentence and its log-probability, or None where that takes a closer look."""
    if beams._blocked.shape[1] or beams._no_repeat_ngram_sizes.any() or (beams.steps < beams._prefix_lengths).any():
        return None
    token_ids = output.candidate_token_ids[:, 0]
    allowed = (token_ids[:, :, None] != beams._banned[:, None]).all(axis=2)
    sentences, place = np.arange(len(token_ids)), allowed.argmax(axis=1)
    log_probabilities = output.candidate_log_probabilities[sentences, 0, place].astype(np.float64)
    if not (allowed[sentences, place] & (log_probabilities > -np.inf)).all():
        return None
    return token_ids[sentences, place], log_probabilities


def _advance_greedily(
    beams: Beams, tokens: Int[np.ndarray, "batch"], log_probabilities: Float[np.ndarray, "batch"]
) -> tuple[Beams, Int[np.ndarray, "batch beam"], dict[int, list[Hypothesis]]]:
    """Return what ``advance`` does for beams of one row, of which each goes on with its best token or ends with it."""
    scores, steps = beams.scores[:, 0] + log_probabilities, beams.steps + 1
    ended, at_limit = tokens == beams.special_ids.eos, steps == beams._max_target_tokens
    normalized = scores / (beams.steps + 1.0) ** beams._length_penalties
    parents = np.zeros((len(tokens), 1), np.int64)
    all_ends = list(beams._ends)
    done = np.flatnonzero(ended | at_limit).tolist()
    for sentence in done:
        end = End(
            normalized_score=float(normalized[sentence]),
            log_probability=float(scores[sentence]),
            token_id=int(tokens[sentence]),
            token_log_probability=float(log_probabilities[sentence]),
            row=0,
            step=int(beams.steps[sentence]),
            finish_reason="eos" if ended[sentence] else "max_length",
        )
        all_ends[sentence] = (end,)
    advanced = replace(
        beams,
        steps=steps,
        scores=scores[:, None],
        previous_token_ids=tokens[:, None],
        _ends=tuple(all_ends),
        _tokens=recorded(beams._tokens, beams.steps, tokens[:, None]),
        _parents=recorded(beams._parents, beams.steps, parents),
        _token_scores=recorded(beams._token_scores, beams.steps, log_probabilities[:, None]),
    )
    return advanced, parents, {sentence: answer(advanced, sentence) for sentence in done}


def _allowed(
    beams: Beams, output: StepOutput
) -> tuple[Int[np.ndarray, "batch beam width"], Float[np.ndarray, "batch beam width"]]:
    """Return as many candidates as can matter, with -inf for those that are banned or leave a forced prefix."""
    width = min(output.candidate_token_ids.shape[2], beams.width)
    token_ids = output.candidate_token_ids[:, :, :width]
    banned = (token_ids[:, :, :, None] == beams._banned[:, None, None, :]).any(axis=3)
    if beams._blocked.shape[1]:
        banned |= (token_ids[:, :, :, None] == beams._blocked.swapaxes(1, 2)[:, :, None, :]).any(axis=3)
    log_probabilities = np.where(banned, -np.inf, output.candidate_log_probabilities[:, :, :width].astype(np.float64))
    forced = beams.steps < beams._prefix_lengths
    if forced.any():
        place = np.minimum(beams.steps, beams._prefixes.shape[1] - 1)
        wanted = beams._prefixes[np.arange(len(place)), place][:, None].repeat(beams.beam_size, axis=1)
        found = token_log_probabilities(output, wanted)
        token_ids = token_ids.copy()
        token_ids[forced, :, 0] = wanted[forced]
        log_probabilities[forced] = -np.inf
        log_probabilities[forced, :, 0] = found[forced]
    return token_ids, log_probabilities


def _remembered(beams: Beams, parents: Any, live_tokens: Any, live_scores: Any) -> dict[str, Any]:
    """Return the fields that keep what was emitted, and say what each new row may not emit, to not repeat a run."""
    steps, sizes = beams.steps, beams._no_repeat_ngram_sizes
    emitted, blocked = beams._emitted, beams._blocked[:, :0]
    if sizes.any():
        emitted = recorded(np.take_along_axis(emitted, parents[:, None], axis=2), steps, live_tokens)
        blocked = completing(emitted, steps + 1, sizes)
    return {
        "_tokens": recorded(beams._tokens, steps, live_tokens),
        "_parents": recorded(beams._parents, steps, parents),
        "_token_scores": recorded(beams._token_scores, steps, live_scores),
        "_emitted": emitted,
        "_blocked": blocked,
    }


def _settled(beams: Beams) -> Any:
    """Return for each sentence whether enough hypotheses have finished, by number or by the bound of the rules."""
    bounds = beams.scores[:, 0] / beams._max_target_tokens**beams._length_penalties
    worst_kept = beams._finished_scores[np.arange(len(bounds)), beams._n_best - 1]
    enough = np.isfinite(beams._finished_scores).all(axis=1)
    return enough | (worst_kept >= bounds)
