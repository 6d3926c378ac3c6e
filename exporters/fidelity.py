"""The fidelity report of a bundle: how far its attention and its decomposition can be believed (docs/fidelity.md).

Held-out sentences are translated by beam search and the model is forced to its own translations. Whatever is random is
seeded by the sentence's number, and no figure depends on how sentences are batched.
"""

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bundle.decomposition import COMPONENTS, AttentionRecord, Components, Decomposition
from bundle.tables import ComponentTables
from bundle.tokenizer import Tokenizer
from exporters.errors import InvalidExportOptions
from exporters.figures import BEAM_SIZE
from exporters.forcing import Explained, force
from exporters.occlusion import THRESHOLDS, Rationale, kendall_tau, occlude, rationale_probabilities
from exporters.perturbation import Outcome, Translated, Variants, random_rotation, replay, rotated_attention, variants
from exporters.runtime import OnnxModel
from exporters.words import WordClass, function_words, word_classes
from training.corpus import TokenizedCorpus
from training.translation import Ids, Translator

REPORT_FILE = "fidelity.json"
_SEED = 5
_RESAMPLES = 1000
_EXPLAINED_TOKENS = 3  # of each translation, for rationales: every one is some forty translations forced
_COUNTERFACTUALS = ("permuted", "uniform", "zero_max")

Section = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What is judged: a bundle's graphs, and what its explanations rest on.

    Attributes:
        model: The graphs that are shipped.
        tokenizer: Between text and token ids.
        target_language: BCP-47 tag.
        max_target_tokens: Longest translation.
        explained: With the tables that are shipped.
        half_tables: Tables fitted on either half of the same text.
    """

    model: OnnxModel
    tokenizer: Tokenizer
    target_language: str
    max_target_tokens: int
    explained: Explained
    half_tables: tuple[ComponentTables, ...]


@dataclass(frozen=True)
class HeldOut:
    """Sentences that no table was fitted on.

    Attributes:
        sources: Token ids, end of sentence included; each has one token before it at least.
        corpus: Where they come from.
        left_out: How many were left out because the tables were fitted on them, or because they are empty.
    """

    sources: Sequence[Ids]
    corpus: str
    left_out: int


def held_out(sources: Sequence[Ids], corpus: str, fitting_text: TokenizedCorpus) -> HeldOut:
    """Return ``sources`` without those that the tables were fitted on.

    Raises:
        InvalidExportOptions: None is left.
    """
    ids, offsets = fitting_text.source_ids, fitting_text.source_offsets
    fitted = {tuple(ids[start:end]) for start, end in zip(offsets[:-1], offsets[1:], strict=True)}
    kept = [source for source in sources if len(source) > 1 and tuple(source[:-1]) not in fitted]
    if not kept:
        raise InvalidExportOptions(
            f"none of the {len(sources)} development sentences is held out: the tables were fitted on them, or they "
            "are empty. Give the run other development text, or ask for 0 fidelity_sentences."
        )
    return HeldOut(kept, corpus, len(sources) - len(kept))


def canonical(report: Section) -> bytes:
    """Return the content of the report's file; equal reports give equal bytes."""
    return (json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True) + "\n").encode()


def fidelity_report(subject: Subject, text: HeldOut, tell: Callable[[str], None]) -> Section:
    """Return every section of the report; figures that are no counts hold ``mean`` and a 95 % interval."""
    tell(f"fidelity: translating {len(text.sources):,} held-out sentences")
    sentences = _translated(subject, text)
    functions = function_words(subject.target_language)
    classes = [np.array(word_classes(subject.tokenizer, s.target_ids, functions)) for s in sentences]
    tell("fidelity: changing attention, one step at a time")
    rotation = random_rotation(sentences[0].attention.keys.shape[1], _SEED)
    rotated = [rotated_attention(sentence.attention, rotation) for sentence in sentences]
    changed = [
        variants(sentence, rows, _generator(index))
        for index, (sentence, rows) in enumerate(zip(sentences, rotated, strict=True))
    ]
    outcomes = replay(subject.model, sentences, changed)
    tell("fidelity: taking out one source token at a time")
    own = [outcome.log_probabilities[0] for outcome in outcomes]
    effects = occlude(subject.model, sentences, own)
    tell("fidelity: taking out rationales")
    source_deletion = _source_deletion(subject.model, sentences, own, effects)
    tell("fidelity: decomposing")
    records = [_record(sentence) for sentence in sentences]
    distances = [np.abs(s.attention.weights - r).sum(axis=1) / 2 for s, r in zip(sentences, rotated, strict=True)]
    return {
        "about": _about(text, sentences, classes),
        "attention_deletion": _attention_deletion(outcomes, changed),
        "counterfactual_attention": _counterfactual_attention(outcomes, changed, classes),
        "source_deletion": source_deletion,
        "occlusion_agreement": _occlusion_agreement(sentences, effects),
        "decomposition": _decomposition([subject.explained.decompose(record) for record in records]),
        "stability": _stability(subject, records),
        "parameter_randomization": {"attention_total_variation": _figure(distances)},
        "not_measured": {"seed_variance": "one checkpoint was exported; another seed would take another training"},
    }


def _translated(subject: Subject, text: HeldOut) -> list[Translated]:
    translator = Translator(subject.model, subject.model.special_ids, subject.max_target_tokens)
    targets = [result.hypotheses[0].token_ids for result in translator.translate(text.sources, BEAM_SIZE)]
    answers = force(subject.model, text.sources, targets)
    return [Translated(*parts) for parts in zip(text.sources, targets, answers, strict=True)]


def _about(text: HeldOut, sentences: Sequence[Translated], classes: Sequence[np.ndarray]) -> Section:
    every = np.concatenate(classes)
    return {
        "sentences": len(sentences),
        "corpus": text.corpus,
        "left_out_sentences": text.left_out,
        "source_tokens": sum(len(sentence.source_ids) for sentence in sentences),
        "target_tokens": {"all": len(every), **{c: int((every == c).sum()) for c in WordClass if (every == c).any()}},
        "targets": f"the model's own translations (beam {BEAM_SIZE}), forced",
        "seed": _SEED,
        "interval": f"95 %, bootstrap over sentences, {_RESAMPLES} resamples",
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "onnxruntime", "stopwordsiso")},
    }


def _attention_deletion(outcomes: Sequence[Outcome], changed: Sequence[Variants]) -> Section:
    section: Section = {}
    for row, path in _paths(changed, "deletion"):
        gains = [outcome.log_probabilities[row] - outcome.log_probabilities[0] for outcome in outcomes]
        kept = [gain[variant[path].any(axis=1)] for gain, variant in zip(gains, changed, strict=True)]
        _, place, order, count = path
        figure = {"tokens": sum(map(len, kept)), "log_probability_change_nats": _figure(kept)}
        section.setdefault(place, {}).setdefault(order, {})[count] = figure
    return section


def _counterfactual_attention(
    outcomes: Sequence[Outcome], changed: Sequence[Variants], classes: Sequence[np.ndarray]
) -> Section:
    unchanged, divergences = {}, {}
    for row, (_, name) in _paths(changed, "counterfactual"):
        unchanged[name] = [outcome.best_token_ids[row] == outcome.best_token_ids[0] for outcome in outcomes]
        divergences[name] = [outcome.divergences[row] for outcome in outcomes]
    named = zip(*(unchanged[name] for name in _COUNTERFACTUALS), strict=True)
    unchanged["at_least_one"] = [np.logical_or.reduce(alternatives) for alternatives in named]

    def by_class(values: Sequence[np.ndarray]) -> Section:
        section = {"all": _figure(values)}
        for word_class in WordClass:
            own = [value[kind == word_class] for value, kind in zip(values, classes, strict=True)]
            if any(map(len, own)):
                section[word_class] = _figure(own)
        return section

    section: Section = {name: {"unchanged_share": by_class(values)} for name, values in unchanged.items()}
    for name, values in divergences.items():
        section[name]["divergence_nats"] = by_class(values)
    return section


def _source_deletion(
    model: OnnxModel, sentences: Sequence[Translated], own: Sequence[np.ndarray], effects: Sequence[np.ndarray]
) -> Section:
    orders: dict[str, list[Rationale]] = {}
    for index, (sentence, effect) in enumerate(zip(sentences, effects, strict=True)):
        generator = _generator(index)
        target = len(sentence.target_ids)
        for position in generator.choice(target, min(target, _EXPLAINED_TOKENS), replace=False):
            importance = {name: weights[position] for name, weights in _evidence(sentence).items()}
            importance |= {"random": generator.random(effect.shape[1]), "occlusion": -effect[position]}
            for order, values in importance.items():
                orders.setdefault(order, []).append(Rationale(index, int(position), values))
    explained = orders["attention"]
    whole = np.exp([own[rationale.sentence][rationale.position] for rationale in explained])
    borders = np.cumsum(np.bincount([rationale.sentence for rationale in explained]))[:-1]
    everything = [rationale for rationales in orders.values() for rationale in rationales]
    answers = rationale_probabilities(model, sentences, everything)
    without, alone = (np.split(answer.mean(axis=1), len(orders)) for answer in answers)
    section: Section = {"target_tokens": len(explained), "thresholds": list(THRESHOLDS)}
    for place, order in enumerate(orders):
        section[order] = {
            "comprehensiveness_probability": _figure(np.split(whole - without[place], borders)),
            "sufficiency_probability": _figure(np.split(whole - alone[place], borders)),
        }
    return section


def _occlusion_agreement(sentences: Sequence[Translated], effects: Sequence[np.ndarray]) -> Section:
    compared = [(s, effect) for s, effect in zip(sentences, effects, strict=True) if effect.shape[1] > 1]
    section: Section = {
        "target_tokens": sum(len(effect) for _, effect in compared),
        "same_first_share_by_chance": _figure([np.full(len(effect), 1 / effect.shape[1]) for _, effect in compared]),
    }
    for name in _evidence(sentences[0]):
        rows = [(_evidence(sentence)[name], effect) for sentence, effect in compared]
        taus = [tau[~np.isnan(tau)] for tau in (kendall_tau(weights, -effect) for weights, effect in rows)]
        section[name] = {
            "kendall_tau": _figure(taus) | {"standard_deviation": _rounded(np.std(np.concatenate(taus)))},
            "same_first_share": _figure([weights.argmax(axis=1) == effect.argmin(axis=1) for weights, effect in rows]),
        }
    return section


def _evidence(sentence: Translated) -> dict[str, np.ndarray]:
    """Return the weights ``[target token]`` that a reader may take for an explanation, end of sentence left out."""
    weights = {"attention": sentence.attention.weights, "posterior": sentence.attention.posterior}
    return {name: matrix[:, :-1] for name, matrix in weights.items() if matrix is not None}


def _decomposition(found: Sequence[Decomposition]) -> Section:
    sides = {side: [getattr(decomposition, side) for decomposition in found] for side in ("encoder", "decoder")}
    return {
        "shares": {name: _figure([d.shares[place] for d in found]) for name, place in _terms()},
        "delta_share": _figure([1 - d.shares[:2, :2].sum() for d in found]),
        "subset_total_variation": {
            name: _figure([d.subset_distances[name] for d in found]) for name in found[0].subset_distances
        },
        "delta_norm_share": {side: _figure([_delta_norms(c) for c in parts]) for side, parts in sides.items()},
        "unseen_token_share": {side: _figure([c.unseen for c in parts]) for side, parts in sides.items()},
        "beyond_table_share": {side: _figure([c.beyond_table for c in parts]) for side, parts in sides.items()},
        "largest_reconstruction_error": float(max(d.reconstruction_error for d in found)),
    }


def _delta_norms(components: Components) -> np.ndarray:
    norms = np.stack([np.linalg.norm(getattr(components, name), axis=1) for name in COMPONENTS])
    return np.asarray(norms[2] / norms.sum(axis=0))


def _stability(subject: Subject, records: Sequence[AttentionRecord]) -> Section:
    halves = [
        [replace(subject.explained, tables=tables).decompose(record) for record in records]
        for tables in subject.half_tables
    ]
    pairs = list(zip(*halves, strict=True))
    gaps = sum(((one.terms - other.terms) ** 2).sum(axis=(2, 3)) for one, other in pairs)
    sizes = sum((((one.terms + other.terms) / 2) ** 2).sum(axis=(2, 3)) for one, other in pairs)
    shares = [np.abs(one.shares - other.shares) for one, other in pairs]
    return {
        "sentences_per_half": [tables.sentences for tables in subject.half_tables],
        "relative_term_difference": {
            "all": _rounded(np.sqrt(gaps.sum() / sizes.sum())),
            **{name: _rounded(np.sqrt(gaps[place] / sizes[place])) for name, place in _terms()},
        },
        "share_difference": {
            "all": _figure([share.mean() for share in shares]),
            **{name: _figure([share[place] for share in shares]) for name, place in _terms()},
        },
    }


def _terms() -> list[tuple[str, tuple[int, int]]]:
    """Return the nine terms, encoder's component first, with their places."""
    return [(f"{one}_{other}", (i, j)) for i, one in enumerate(COMPONENTS) for j, other in enumerate(COMPONENTS)]


def _record(sentence: Translated) -> AttentionRecord:
    attention = sentence.attention
    return AttentionRecord(
        attention.scores, attention.queries, attention.keys, sentence.source_ids, sentence.target_ids
    )


def _paths(changed: Sequence[Variants], kind: str) -> list[tuple[int, tuple[str, ...]]]:
    """Return the variants of one kind with the row of their outcomes."""
    return [(row, path) for row, path in enumerate(changed[0], start=1) if path[0] == kind]


def _generator(sentence: int) -> np.random.Generator:
    return np.random.default_rng([_SEED, sentence])


def _figure(values: Sequence[Any]) -> dict[str, float | None]:
    """Return the mean over all tokens, given sentence by sentence, and the interval of resampled sentences."""
    parts = [np.atleast_1d(value) for value in values]
    sums, counts = np.array([part.sum() for part in parts], np.float64), np.array([len(part) for part in parts])
    if not counts.sum():
        return {"mean": None, "low": None, "high": None}
    rows = np.random.default_rng(_SEED).integers(0, len(parts), (_RESAMPLES, len(parts)))
    totals = counts[rows].sum(axis=1)
    means = sums[rows].sum(axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(means, (0.025, 0.975))
    return {"mean": _rounded(sums.sum() / counts.sum()), "low": _rounded(low), "high": _rounded(high)}


def _rounded(value: float) -> float:
    return round(float(value), 6)
