import copy
import math

import numpy as np
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic

from bundle.search import SearchResult
from exporters.fitting import TableSizes, collect
from exporters.forcing import Explained, force
from exporters.parity import (
    Contender,
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
from training.translation import Translator

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


def answers(narrow: Exported, precision: str) -> list[SearchResult]:
    return narrow.translator(precision).translate(TEXT.sources, 4)


def test_int8_is_measured_in_translations_attention_and_decomposition(narrow: Exported) -> None:
    sizes = TableSizes(41, 41, 40, 16, 1)
    tables = collect(narrow.int8, random_corpus(40, 40, seed=1), sizes).tables("t", "text", minimum_count=1)
    exact = Contender(narrow.float32, answers(narrow, "float32"), scores(20.0))
    rounded = Contender(narrow.int8, answers(narrow, "int8"), scores(18.5))
    section = compare_precisions(exact, rounded, TEXT, Explained(tables, 1, SPECIAL_IDS.bos))
    assert 0 < section["alignment_drift"]["value"] < 0.05
    assert 0 < section["decomposition_drift"]["value"] < 0.05
    assert 0.8 < section["token_agreement"]["value"] <= 1
    assert refusals({"int8": section}) == ["int8: bleu_int8 is 18.5; at least 19 is required"]
    same = compare_precisions(exact, exact, TEXT, Explained(tables, 1, SPECIAL_IDS.bos))
    figures = {name: figure["value"] for name, figure in same.items() if isinstance(figure, dict)}
    assert figures["alignment_drift"] == figures["decomposition_drift"] == 0
    assert figures["identical_translations"] == figures["token_agreement"] == 1


def test_every_figure_out_of_its_bounds_is_named_and_one_that_is_no_number_too() -> None:
    ledger: dict[str, Section] = {
        "float32": {"sentences": 3, "gap": {"value": 0.2, "at_most": 0.1}, "tied": {"value": 7}},
        "int8": {"bleu": {"value": math.nan, "at_least": 1.0}, "drift": {"value": 0.05, "at_most": 0.05}},
    }
    assert refusals(ledger) == [
        "float32: gap is 0.2; at most 0.1 is allowed",
        "int8: bleu is nan; at least 1 is required",
    ]


def test_forcing_gives_each_sentence_its_own_rows_and_columns(narrow: Exported) -> None:
    for answer, source, target in zip(
        force(narrow.float32, TEXT.sources, TEXT.targets), TEXT.sources, TEXT.targets, strict=True
    ):
        assert answer.weights.shape == answer.scores.shape == (len(target), len(source))
        np.testing.assert_allclose(answer.weights.sum(axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(answer.queries @ answer.keys.T, answer.scores, rtol=1e-4, atol=1e-5)
