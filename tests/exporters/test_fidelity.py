"""The report of a small model that has half learned to reverse digits."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.decomposition import AttentionRecord
from bundle.tokenizer import Tokenizer
from exporters import fidelity, occlusion, perturbation
from exporters.errors import InvalidExportOptions
from exporters.fidelity import HeldOut, Section, Subject, canonical, fidelity_report, held_out
from exporters.fitting import TableSizes, collect
from exporters.forcing import Explained, force
from exporters.graphs import export_graphs
from exporters.perturbation import Translated, Variants, replay
from exporters.quantization import calibrate, quantize
from exporters.runtime import OnnxModel
from exporters.sampling import TrainingSample, batches, halves
from tests.exporters.text import random_corpus
from tests.reversal import digit_strings
from training.checkpoint import load_checkpoint
from training.evaluation import SPECIAL_IDS
from training.translation import Translator, source_ids

CORPUS = random_corpus(15, 120, seed=4, longest=15)


def silent(_: str) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def subject(checkpoint: Path) -> Subject:
    trained = load_checkpoint(checkpoint)
    graphs = export_graphs(trained.model)
    exact = OnnxModel(graphs.serialized(), SPECIAL_IDS, threads=1)
    bounds = calibrate(graphs, exact, batches(CORPUS, 500))
    model = OnnxModel(quantize(graphs, bounds).serialized(), SPECIAL_IDS, threads=1)
    sizes = TableSizes(21, 21, 15, 16, 1)
    tables = [
        collect(model, corpus, sizes).tables("t", "text", minimum_count=3)
        for corpus in (CORPUS, *(half.corpus for half in halves(TrainingSample(CORPUS, "text"))))
    ]
    explained = Explained(tables[0], 1, SPECIAL_IDS.bos)
    return Subject(model, Tokenizer(trained.vocabulary), "x-reversed", 20, explained, tuple(tables[1:]))


@pytest.fixture(scope="module")
def text(subject: Subject) -> HeldOut:
    return HeldOut(source_ids(subject.tokenizer, digit_strings(9, seed=77)), "digits", left_out=2)


@pytest.fixture(scope="module")
def report(subject: Subject, text: HeldOut) -> Section:
    return fidelity_report(subject, text, silent)


def translations(subject: Subject, text: HeldOut) -> list[list[int]]:
    translator = Translator(subject.model, SPECIAL_IDS, subject.max_target_tokens)
    return [list(result.hypotheses[0].token_ids) for result in translator.translate(text.sources, 4)]


def test_the_report_is_the_same_however_sentences_are_batched(
    subject: Subject, text: HeldOut, report: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert canonical(fidelity_report(subject, text, silent)) == canonical(report)
    monkeypatch.setattr(perturbation, "_BATCH_SENTENCES", 2)
    monkeypatch.setattr(occlusion, "_BATCH_SENTENCES", 5)
    assert canonical(fidelity_report(subject, text, silent)) == canonical(report)


def test_every_emitted_token_is_counted_in_one_class(subject: Subject, text: HeldOut, report: Section) -> None:
    targets = translations(subject, text)
    counts = dict(report["about"]["target_tokens"])
    assert counts.pop("all") == sum(counts.values()) == sum(map(len, targets))
    for figures in report["counterfactual_attention"].values():
        shares = {name: figure["mean"] for name, figure in figures["unchanged_share"].items()}
        pooled = sum(counts[name] * shares[name] for name in counts) / sum(counts.values())
        assert shares["all"] == pytest.approx(pooled, abs=1e-5)
        assert all(0 <= share <= 1 for share in shares.values())


def test_the_figures_of_deletion_and_counterfactuals_are_means_over_tokens(
    subject: Subject, text: HeldOut, report: Section
) -> None:
    changes: list[float] = []
    divergences: list[float] = []
    unchanged: list[bool] = []
    for source, target in zip(text.sources, translations(subject, text), strict=True):
        [attention] = force(subject.model, [source], [target])
        weights = attention.weights.astype(np.float64)
        top = weights.copy()
        for row in top:
            row[np.argmax(row)] = 0
        uniform = np.full_like(weights, 1 / len(source))
        given: Variants = {("top",): top / top.sum(axis=1, keepdims=True), ("uniform",): uniform}
        [outcome] = replay(subject.model, [Translated(source, target, attention)], [given])
        changes += (outcome.log_probabilities[1] - outcome.log_probabilities[0]).tolist()
        divergences += outcome.divergences[2].tolist()
        unchanged += (outcome.best_token_ids[2] == outcome.best_token_ids[0]).tolist()
    deletion = report["attention_deletion"]["any_position"]["top"]["1"]
    assert deletion["tokens"] == len(changes)
    assert deletion["log_probability_change_nats"]["mean"] == pytest.approx(np.mean(changes), abs=1e-5)
    counterfactual = report["counterfactual_attention"]["uniform"]
    assert counterfactual["divergence_nats"]["all"]["mean"] == pytest.approx(np.mean(divergences), abs=1e-5)
    assert counterfactual["unchanged_share"]["all"]["mean"] == pytest.approx(np.mean(unchanged), abs=1e-5)


def test_every_interval_holds_its_mean_and_every_order_is_there(report: Section) -> None:
    def figures(found: Any) -> Iterator[dict[str, float]]:
        if isinstance(found, dict):
            if "mean" in found:
                yield found
            for inner in found.values():
                yield from figures(inner)

    every = list(figures(report))
    assert len(every) > 90
    assert all(figure["low"] <= figure["mean"] <= figure["high"] for figure in every)
    orders = {"top", "least", "random", "randomized_parameters", "top_by_posterior"}
    assert set(report["attention_deletion"]) == {"any_position", "end_of_sentence_kept"}
    assert all(set(found) == orders for found in report["attention_deletion"].values())
    assert {"attention", "posterior", "random", "occlusion"} < set(report["source_deletion"])


def test_what_occlusion_finds_matters_more_than_what_chance_finds(report: Section) -> None:
    by_occlusion, by_chance = (
        report["source_deletion"][order]["comprehensiveness_probability"]["mean"] for order in ("occlusion", "random")
    )
    assert by_occlusion > by_chance


def records(subject: Subject, text: HeldOut) -> list[AttentionRecord]:
    targets = translations(subject, text)
    return [
        AttentionRecord(answer.scores, answer.queries, answer.keys, source, target)
        for answer, source, target in zip(
            force(subject.model, text.sources, targets), text.sources, targets, strict=True
        )
    ]


def test_shares_are_means_over_sentences_and_add_up(subject: Subject, text: HeldOut, report: Section) -> None:
    found = [subject.explained.decompose(record) for record in records(subject, text)]
    shares = report["decomposition"]["shares"]
    assert sum(figure["mean"] for figure in shares.values()) == pytest.approx(1, abs=1e-5)
    assert shares["delta_temporal"]["mean"] == pytest.approx(np.mean([d.shares[2, 0] for d in found]), abs=1e-5)
    with_delta = sum(figure["mean"] for name, figure in shares.items() if "delta" in name)
    assert report["decomposition"]["delta_share"]["mean"] == pytest.approx(with_delta, abs=1e-5)
    distance = report["decomposition"]["subset_total_variation"]["temporal_temporal"]["mean"]
    assert distance == pytest.approx(np.mean([d.subset_distances["temporal_temporal"] for d in found]), abs=1e-5)
    norms = [
        np.linalg.norm(components.delta[row])
        / sum(np.linalg.norm(getattr(components, name)[row]) for name in ("temporal", "input_driven", "delta"))
        for components in (d.decoder for d in found)
        for row in range(len(components.delta))
    ]
    assert report["decomposition"]["delta_norm_share"]["decoder"]["mean"] == pytest.approx(np.mean(norms), abs=1e-5)


def test_stability_is_the_gap_between_the_two_halves(subject: Subject, text: HeldOut, report: Section) -> None:
    gap = size = 0.0
    for record in records(subject, text):
        one, other = (
            replace(subject.explained, tables=tables).decompose(record).terms[1, 2] for tables in subject.half_tables
        )
        for first, second in zip(one.ravel(), other.ravel(), strict=True):
            gap += (first - second) ** 2
            size += ((first + second) / 2) ** 2
    found = report["stability"]["relative_term_difference"]["input_driven_delta"]
    assert found == pytest.approx(math.sqrt(gap / size), abs=1e-5)
    assert report["stability"]["sentences_per_half"] == [60, 60]


def test_equal_halves_are_perfectly_stable(subject: Subject, text: HeldOut) -> None:
    same = replace(subject, half_tables=(subject.explained.tables,) * 2)
    few = replace(text, sources=text.sources[:2])
    stability = fidelity_report(same, few, silent)["stability"]
    assert set(stability["relative_term_difference"].values()) == {0.0}
    assert stability["share_difference"]["all"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_sentences_that_the_tables_know_and_empty_ones_are_not_held_out() -> None:
    first = CORPUS.source_ids[: CORPUS.source_offsets[1]].tolist()
    text = held_out([[*first, SPECIAL_IDS.eos], [SPECIAL_IDS.eos], [5, 6, SPECIAL_IDS.eos]], "some", CORPUS)
    assert (text.sources, text.left_out) == ([[5, 6, SPECIAL_IDS.eos]], 2)
    with pytest.raises(InvalidExportOptions, match="none of the 1 development sentences is held out"):
        held_out([[*first, SPECIAL_IDS.eos]], "some", CORPUS)


def test_an_interval_is_as_wide_as_sentences_differ() -> None:
    assert fidelity._figure([np.ones(3), np.ones(5)]) == {"mean": 1.0, "low": 1.0, "high": 1.0}
    spread = fidelity._figure([np.zeros(4), np.ones(4), np.ones(0)])
    assert (spread["low"], spread["mean"], spread["high"]) == (0.0, 0.5, 1.0)
    assert fidelity._figure([np.zeros(0)]) == {"mean": None, "low": None, "high": None}
