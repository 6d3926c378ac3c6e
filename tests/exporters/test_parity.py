import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic

from exporters import parity
from exporters.evaluation import Evaluation
from exporters.fitting import TableSizes, collect
from exporters.forcing import Explained, Forced, force
from exporters.parity import (
    ParityText,
    Section,
    check_batch_invariance,
    compare_precisions,
    compare_with_torch,
    refusals,
)
from exporters.runtime import OnnxModel
from tests.exporters.conftest import Exported
from tests.exporters.text import random_corpus, random_sources
from training.evaluation import SPECIAL_IDS, Scores
from training.translation import Ids, Translator

LENGTHS = np.random.default_rng(0).integers(1, 40, 24).tolist()
TEXT = ParityText(random_sources(40, LENGTHS, seed=8), random_sources(40, LENGTHS[::-1], seed=9))


def scores(bleu: float) -> Scores:
    return Scores(bleu, "a signature", 2 * bleu, "another")


def test_the_graphs_of_a_model_pass_its_ledger(narrow: Exported) -> None:
    section = compare_with_torch(narrow.trained, narrow.translator("float32"), TEXT)
    assert refusals({"float32": section}) == []
    assert 0 < section["max_log_probability_difference"]["value"] < 2e-5
    assert section["sentences"] == 24


def test_the_graphs_of_another_model_are_refused_by_name(narrow: Exported) -> None:
    other = copy.deepcopy(narrow.trained)
    with torch.no_grad():
        other.get_parameter("query.weight").mul_(1.5)
    section = compare_with_torch(other, narrow.translator("float32"), TEXT)
    reasons = refusals({"float32": section})
    assert any("max_log_probability_difference" in reason for reason in reasons)
    assert any("different_beam_4" in reason for reason in reasons)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_batches_change_nothing(narrow: Exported, precision: str) -> None:
    section = check_batch_invariance(narrow.translator(precision), TEXT.sources)
    assert refusals({"batch_invariance": section}) == []


def test_quantizing_by_the_batch_is_caught(narrow: Exported, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("dynamic")
    graphs = dict(narrow.float32.graphs)
    (folder / "exact.onnx").write_bytes(graphs["decoder_step"])
    quantize_dynamic(folder / "exact.onnx", folder / "dynamic.onnx", op_types_to_quantize=["MatMul"])
    graphs["decoder_step"] = (folder / "dynamic.onnx").read_bytes()
    translator = Translator(OnnxModel(graphs, SPECIAL_IDS, 1), SPECIAL_IDS, narrow.translator("int8").max_target_tokens)
    reasons = refusals({"batch_invariance": check_batch_invariance(translator, TEXT.sources)})
    assert any("different_beam_4" in reason for reason in reasons)


def evaluation(narrow: Exported, precision: str, bleu: float) -> Evaluation:
    """Return what ``precision`` makes of the text, a token id a word; ``bleu`` is whatever the test wants it to be."""
    results = narrow.translator(precision).translate(TEXT.sources, 4)
    translations, references = (
        [" ".join(map(str, ids)) for ids in sentences]
        for sentences in ([result.hypotheses[0].token_ids for result in results], TEXT.targets)
    )
    model = getattr(narrow, precision)
    return Evaluation(model, TEXT.sources, TEXT.targets, references, translations, scores(bleu))


def test_int8_is_measured_in_translations_attention_and_decomposition(narrow: Exported) -> None:
    sizes = TableSizes(41, 41, 40, 16, 1)
    tables = collect(narrow.int8, random_corpus(40, 40, seed=1), sizes).tables("t", "text", minimum_count=1)
    explained = Explained(tables, 1, SPECIAL_IDS.bos)
    exact, rounded = evaluation(narrow, "float32", 20.0), evaluation(narrow, "int8", 19.5)
    section = compare_precisions("int8", {"easy": exact, "hard": exact}, {"easy": exact, "hard": rounded}, explained)
    easy, hard = section["easy"], section["hard"]
    assert 0 < hard["alignment_drift"]["value"] < 0.05
    assert 0 < hard["posterior_drift"]["value"] < 0.05
    assert 0 < hard["decomposition_drift"]["value"] < 0.05
    assert 0.8 < hard["token_agreement"]["value"] <= 1
    assert hard["bleu_loss"]["value"] == 0.5
    assert easy["bleu_loss"] | {"interval": ""} == {"value": 0, "low": 0, "high": 0, "interval": ""}
    assert (
        easy["alignment_drift"]["value"]
        == easy["posterior_drift"]["value"]
        == easy["decomposition_drift"]["value"]
        == 0
    )
    assert easy["identical_translations"]["value"] == easy["token_agreement"]["value"] == 1
    [reason] = refusals({"int8": {"test_sets": section}})
    assert reason.startswith("int8.test_sets.hard: bleu_int8 is 19.5; at least 19.7 is required")
    assert "as float32 has 20 (loss 0.50, 95 % interval" in reason
    assert "--precision float32" in reason


def test_drift_is_measured_on_sentences_from_all_over_a_large_set(
    narrow: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "_DRIFT_SENTENCES", 3)
    forced: list[Sequence[Ids]] = []

    def noted(model: OnnxModel, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[Forced]:
        forced.append(sources)
        return force(model, sources, targets)

    monkeypatch.setattr("exporters.parity.force", noted)
    exact = evaluation(narrow, "float32", 20.0)
    section = compare_precisions("int8", {"large": exact}, {"large": exact}, None)["large"]
    assert (section["sentences"], section["drift_sentences"]) == (24, 3)
    assert "decomposition_drift" not in section
    assert forced == 2 * [[TEXT.sources[row] for row in (0, 11, 23)]]


def test_every_figure_out_of_its_bounds_is_named_and_one_that_is_no_number_too() -> None:
    ledger: dict[str, Section] = {
        "float32": {"sentences": 3, "gap": {"value": 0.2, "at_most": 0.1}, "tied": {"value": 7}},
        "batch_invariance": {"bits": {"value": math.nan, "at_least": 1.0}, "drift": {"value": 0.05, "at_most": 0.05}},
        "other": {"parts": {"first": {"gap": {"value": 2.0, "at_most": 1.0}}}},
    }
    assert refusals(ledger) == [
        "float32: gap is 0.2; at most 0.1 is allowed",
        "batch_invariance: bits is nan; at least 1 is required",
        "other.parts.first: gap is 2; at most 1 is allowed",
    ]


def test_forcing_gives_each_sentence_its_own_rows_and_columns(narrow: Exported) -> None:
    for answer, source, target in zip(
        force(narrow.float32, TEXT.sources, TEXT.targets), TEXT.sources, TEXT.targets, strict=True
    ):
        assert answer.weights.shape == answer.scores.shape == (len(target), len(source))
        np.testing.assert_allclose(answer.weights.sum(axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(answer.queries @ answer.keys.T, answer.scores, rtol=1e-4, atol=1e-5)
