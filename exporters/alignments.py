"""How well a bundle's attention aligns, and at which decoder step to read it: measured against gold alignments."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from bundle.alignment import CONFIDENT, AlignmentQuality, links, posterior, shifted
from bundle.gold import GoldPair, diagonal_quality, gold_matrix, quality, uniform_quality
from bundle.tokenizer import TokenizedText, Tokenizer
from exporters.forcing import target_inputs
from exporters.runtime import OnnxModel
from training.translation import by_length


def measure(
    model: OnnxModel, tokenizer: Tokenizer, gold: Sequence[GoldPair], shifts: Sequence[int] = (0, 1, 2)
) -> dict[str, Any]:
    """Return the error rates of links on forced gold targets, by argmax of attention for each shift, as JSON.

    Returns:
        ``shift``, the one of least error, the first of equals; ``sentences``; ``table``, a row for each of ``shifts``
        (``shift``, ``alignment_error_rate``, ``precision``, ``recall``, ``links``). Then rows without a shift:
        ``posterior`` (``bundle.alignment.posterior``, links of at least ``CONFIDENT``) and ``posterior_argmax``, None
        where the model does not give it, and what knowing only lengths, or nothing, would reach: ``diagonal`` and
        ``uniform``.
    """
    texts = [(tokenizer.encode(pair.target_text), tokenizer.encode(pair.source_text)) for pair in gold]
    attention, emission = _forced(model, texts)

    def row(weights: Sequence[Float[np.ndarray, "target source"]], threshold: float | None = None) -> dict[str, Any]:
        answers = []
        for pair, (target, source), matrix in zip(gold, texts, weights, strict=True):
            words = gold_matrix(matrix, target, source, pair)
            answers.append([link.pair for link in links(words, len(pair.target), threshold)])
        return _row(quality(answers, gold))

    posteriors = list(map(posterior, attention, emission))
    table = [{"shift": shift, **row([shifted(matrix, shift) for matrix in attention])} for shift in shifts]
    return {
        "shift": min(table, key=lambda measured: measured["alignment_error_rate"])["shift"],
        "sentences": len(gold),
        "table": table,
        "posterior": row(posteriors, CONFIDENT) if posteriors else None,
        "posterior_argmax": row(posteriors) if posteriors else None,
        "diagonal": _row(diagonal_quality(gold)),
        "uniform": _row(uniform_quality(gold)),
    }


def _forced(
    model: OnnxModel, texts: Sequence[tuple[TokenizedText, TokenizedText]]
) -> tuple[list[Float[np.ndarray, "target source"]], list[Float[np.ndarray, "target source"]]]:
    """Return attention weights and, where the model gives them, emission scores behind each (target, source)."""
    names = [name for name in ("attention_weights", "emission_scores") if name in model.step_outputs]
    target_ids, source_ids = ([[*pair[side].token_ids, model.special_ids.eos] for pair in texts] for side in (0, 1))

    def answer(rows: Sequence[int]) -> list[list[np.ndarray]]:
        encoded = model.encode([source_ids[row] for row in rows])
        inputs = target_inputs([target_ids[row] for row in rows], model.special_ids)
        steps = list(model.forced(encoded, inputs, names))
        stacked = [np.concatenate([step[name] for step in steps], axis=1) for name in names]
        sizes = [(len(target_ids[row]), len(source_ids[row])) for row in rows]
        return [[array[place, :target, :source] for array in stacked] for place, (target, source) in enumerate(sizes)]

    found = by_length(source_ids, answer)
    return [parts[0] for parts in found], [parts[1] for parts in found if len(parts) > 1]


def _row(measured: AlignmentQuality) -> dict[str, Any]:
    return {name: round(value, 4) for name, value in asdict(measured).items()}
