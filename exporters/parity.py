"""The parity ledger: how far what is shipped is from what was trained, and what is too far.

Three sections of figures, each with the value found and the value allowed where there is one:

* ``float32``: ONNX Runtime against torch, the same weights;
* ``int8`` or ``float16``: these graphs against the float32 ones on each test set, in BLEU, attention and decomposition;
* ``batch_invariance``: each sentence alone against the same sentence in a random batch, bit for bit; not in float16.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from bundle.decomposition import AttentionRecord
from bundle.search import SearchResult
from bundle.sessions import encoder_inputs
from exporters.evaluation import INTERVAL, Evaluation, bleu_loss
from exporters.forcing import Explained, Forced, force, target_inputs
from exporters.runtime import OnnxModel
from training.models.interface import TranslationModel
from training.translation import Ids, TorchStep, Translator, by_length

MAX_LOG_PROBABILITY_DIFFERENCE = 1e-4  # nats
MAX_BLEU_LOSS = 0.3  # on any test set
MAX_ALIGNMENT_DRIFT = 0.05  # total variation
MAX_DECOMPOSITION_DRIFT = 0.05  # of a share
_DRIFT_SENTENCES = 200  # of a test set

# What a person can do about a figure out of its bounds, where a choice of theirs can mend it.
_ADVICE = {
    "int8": "calibrate on text like this (--tables-corpus) or make a float32 bundle (--precision float32)",
    "float16": "make a float32 bundle (--precision float32)",
}

Section = dict[str, Any]


@dataclass(frozen=True)
class ParityText:
    """Sentence pairs as ids, end of sentence included."""

    sources: Sequence[Ids]
    targets: Sequence[Ids]


def refusals(ledger: dict[str, Section]) -> list[str]:
    """Return one sentence for every figure of ``ledger`` out of its bounds."""
    return [
        f"{reason}; {_ADVICE[section]}" if section in _ADVICE else reason
        for section, figures in ledger.items()
        for reason in _out_of_bounds(section, figures)
    ]


def _out_of_bounds(place: str, figures: Section) -> Iterator[str]:
    for name, figure in figures.items():
        if not isinstance(figure, dict):
            continue
        if "value" not in figure:
            yield from _out_of_bounds(f"{place}.{name}", figure)
            continue
        value, at_most, at_least = (figure.get(key) for key in ("value", "at_most", "at_least"))
        # Written so that a value that is no number is refused too.
        if at_most is not None and not value <= at_most:
            yield f"{place}: {name} is {value:.6g}; at most {at_most:g} is allowed"
        if at_least is not None and not value >= at_least:
            beside = _beside_float32(figures) if "bleu_loss" in figures else ""
            yield f"{place}: {name} is {value:.6g}; at least {at_least:.6g} is required{beside}"


def _beside_float32(figures: Section) -> str:
    loss = figures["bleu_loss"]
    return (
        f", as float32 has {figures['bleu_float32']['value']:.6g} "
        f"(loss {loss['value']:.2f}, 95 % interval {loss['low']:.2f} to {loss['high']:.2f})"
    )


def compare_with_torch(model: TranslationModel, translator: Translator, text: ParityText) -> Section:
    """Return the ``float32`` section; ``translator`` runs the exported graphs.

    Answers that differ are counted as ties where the two scores are within ``MAX_LOG_PROBABILITY_DIFFERENCE``.
    """
    onnx_model = translator.model
    assert isinstance(onnx_model, OnnxModel)
    trained = Translator(TorchStep(model), translator.special_ids, translator.max_target_tokens)
    section: Section = {"sentences": len(text.sources)}
    difference = max(_log_probability_differences(model, onnx_model, text))
    section["max_log_probability_difference"] = _entry(difference, at_most=MAX_LOG_PROBABILITY_DIFFERENCE)
    for name, beam_size in (("greedy", 1), ("beam_4", 4)):
        pairs = zip(
            trained.translate(text.sources, beam_size), translator.translate(text.sources, beam_size), strict=True
        )
        gaps = [_score(one) - _score(other) for one, other in pairs if _tokens(one) != _tokens(other)]
        ties = sum(abs(gap) <= MAX_LOG_PROBABILITY_DIFFERENCE for gap in gaps)
        section[f"different_{name}"] = _entry(len(gaps) - ties, at_most=0)
        section[f"tied_{name}"] = _entry(ties)
    return section


def check_batch_invariance(translator: Translator, sources: Sequence[Ids], seed: int = 0) -> Section:
    """Return the ``batch_invariance`` section: tokens, scores and attention of random batches against one by one."""
    section: Section = {"sentences": len(sources)}
    for name, beam_size in (("greedy", 1), ("beam_4", 4)):
        alone = [translator.translate([source], beam_size)[0] for source in sources]
        order = np.random.default_rng(seed + beam_size).permutation(len(sources))
        batched: dict[int, SearchResult] = {}
        for rows in np.array_split(order, max(1, len(sources) // 13)):
            results = translator.translate([sources[row] for row in rows], beam_size, batch_sentences=len(rows))
            batched |= zip(rows.tolist(), results, strict=True)
        different = sum(not _identical(alone[row], batched[row]) for row in range(len(sources)))
        section[f"different_{name}"] = _entry(different, at_most=0)
    return section


def compare_precisions(
    precision: str, exact: Mapping[str, Evaluation], rounded: Mapping[str, Evaluation], explained: Explained | None
) -> dict[str, Section]:
    """Return the figures of ``precision`` on each test set: ``rounded`` against ``exact``, both by names of the sets.

    Attention is compared on some of the references, and both decompositions use the same tables, so that only the model
    differs.
    """
    return {name: _compare_on_set(precision, one, rounded[name], explained) for name, one in exact.items()}


def _compare_on_set(precision: str, exact: Evaluation, rounded: Evaluation, explained: Explained | None) -> Section:
    same = [one == other for one, other in zip(exact.translations, rounded.translations, strict=True)]
    text = _spread(exact)
    forced = [force(evaluation.model, text.sources, text.targets) for evaluation in (exact, rounded)]
    agreement = np.concatenate([one.best_token_ids == other.best_token_ids for one, other in zip(*forced, strict=True)])
    drift = np.concatenate([_total_variation(one.weights, other.weights) for one, other in zip(*forced, strict=True)])
    section: Section = {
        "sentences": len(exact.references),
        "bleu_float32": _entry(exact.scores.bleu),
        f"bleu_{precision}": _entry(rounded.scores.bleu, at_least=exact.scores.bleu - MAX_BLEU_LOSS),
        "bleu_signature": rounded.scores.bleu_signature,
        "bleu_loss": {**bleu_loss(exact, rounded), "interval": INTERVAL},
        "identical_translations": _entry(float(np.mean(same))),
        "drift_sentences": len(text.sources),
        "token_agreement": _entry(float(agreement.mean())),
        "alignment_drift": _entry(float(drift.mean()), at_most=MAX_ALIGNMENT_DRIFT),
    }
    posteriors = [[answer.posterior for answer in answers if answer.posterior is not None] for answers in forced]
    if posteriors[0]:
        moved = [_total_variation(one, other) for one, other in zip(*posteriors, strict=True)]
        section["posterior_drift"] = _entry(float(np.concatenate(moved).mean()))
    if explained is not None:
        shares = [_shares(answers, text, explained) for answers in forced]
        section["decomposition_drift"] = _entry(
            float(np.abs(shares[0] - shares[1]).mean()), at_most=MAX_DECOMPOSITION_DRIFT
        )
    return section


def _spread(evaluation: Evaluation) -> ParityText:
    """Return ``_DRIFT_SENTENCES`` of the pairs at even distances, or all if there are fewer."""
    pairs = len(evaluation.sources)
    rows = np.linspace(0, pairs - 1, min(pairs, _DRIFT_SENTENCES)).astype(int)
    return ParityText([evaluation.sources[row] for row in rows], [evaluation.targets[row] for row in rows])


def _entry(value: float, at_most: float | None = None, at_least: float | None = None) -> dict[str, float]:
    """Return a figure as the manifest keeps it: the value found, and the bound it must keep if there is one."""
    bounds = {"at_most": at_most, "at_least": at_least}
    return {"value": value, **{name: bound for name, bound in bounds.items() if bound is not None}}


def _log_probability_differences(model: TranslationModel, onnx_model: OnnxModel, text: ParityText) -> list[float]:
    """Return the largest gap between all log-probabilities of both frameworks, a sentence batch; targets are forced."""

    def largest(rows: Sequence[int]) -> list[float]:
        sources = [text.sources[row] for row in rows]
        inputs = target_inputs([text.targets[row] for row in rows], onnx_model.special_ids)
        padded = encoder_inputs(sources, onnx_model.special_ids.pad)
        steps = onnx_model.forced(onnx_model.encode(sources), inputs, ["log_probabilities"])
        gaps = []
        with torch.no_grad():
            encoded = model.encode(*(torch.from_numpy(array) for array in padded.values()))
            state = {name: tensor[:, None] for name, tensor in encoded.initial_state.items()}
            for position, step in enumerate(steps):
                stepped = model.step(torch.from_numpy(inputs[:, position : position + 1].copy()), state, encoded)
                state = stepped.state
                gaps.append(float(np.abs(stepped.log_probabilities.numpy() - step["log_probabilities"]).max()))
        return [max(gaps)] * len(rows)

    return by_length(text.sources, largest)


def _identical(one: SearchResult, other: SearchResult) -> bool:
    """Return whether two answers agree to the last bit: tokens, log-probabilities, attention scores and weights."""
    same = one.hypotheses == other.hypotheses
    for first, second in zip(one.traces, other.traces, strict=True):
        for name in ("attention_scores", "attention_weights", "attention_queries"):
            same = same and np.array_equal(getattr(first, name), getattr(second, name))
    return same


def _shares(answers: Sequence[Forced], text: ParityText, explained: Explained) -> Float[np.ndarray, "sentence 3 3"]:
    records = (
        AttentionRecord(answer.scores, answer.queries, answer.keys, source, target)
        for answer, source, target in zip(answers, text.sources, text.targets, strict=True)
    )
    return np.array([explained.decompose(record).shares for record in records])


def _total_variation(
    one: Float[np.ndarray, "target source"], other: Float[np.ndarray, "target source"]
) -> Float[np.ndarray, "target"]:
    return np.asarray(np.abs(one - other).sum(axis=1) / 2)


def _tokens(result: SearchResult) -> tuple[int, ...]:
    return result.hypotheses[0].token_ids


def _score(result: SearchResult) -> float:
    return result.hypotheses[0].log_probability
