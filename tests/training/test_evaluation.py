import numpy as np
import pytest
import torch

from bundle.search import ALL_CANDIDATES
from bundle.tokenizer import Tokenizer
from training.config import VocabularyConfig
from training.corpus import TokenizedCorpus, assemble
from training.evaluation import SPECIAL_IDS, corpus_loss, score
from training.models.interface import TranslationModel
from training.models.registry import build_model
from training.translation import TorchStep, Translator, source_ids
from training.vocabulary import EOS_ID, PAD_ID, train_vocabulary

DIGITS = ["0123456789", "314159", "27", "9876543210"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_vocabulary(["0 1 2 3 4 5 6 7 8 9"] * 3, VocabularyConfig(size=15), seed=1))


@pytest.fixture(scope="module")
def model() -> TranslationModel:
    torch.manual_seed(4)
    return build_model({"architecture": "aed", "embedding": 8, "hidden": 12, "key": 4}, 15).eval()


def test_a_translation_does_not_depend_on_its_batch(model: TranslationModel, tokenizer: Tokenizer) -> None:
    translator = Translator(TorchStep(model), SPECIAL_IDS, max_target_tokens=30)
    together = translator.translate(source_ids(tokenizer, DIGITS), beam_size=4)
    for text, found in zip(DIGITS, together, strict=True):
        [alone] = translator.translate(source_ids(tokenizer, [text]), beam_size=4)
        assert alone.hypotheses[0].token_ids == found.hypotheses[0].token_ids
        assert alone.hypotheses[0].log_probability == pytest.approx(found.hypotheses[0].log_probability, abs=1e-5)


def test_candidates_come_best_first_and_ties_by_id(model: TranslationModel, tokenizer: Tokenizer) -> None:
    step = TorchStep(model)
    encoded = step.encode([[5, 6, EOS_ID]])
    state = {name: array[:, None] for name, array in encoded.initial_state.items()}
    full = step(encoded, np.array([[2]]), state, ALL_CANDIDATES)
    assert sorted(full.candidate_token_ids[0, 0]) == list(range(15))
    assert (np.diff(full.candidate_log_probabilities[0, 0]) <= 0).all()
    few = step(encoded, np.array([[2]]), state, 3)
    np.testing.assert_array_equal(few.candidate_token_ids, full.candidate_token_ids[..., :3])
    with torch.no_grad():
        flat = build_model({"architecture": "aed", "embedding": 8, "hidden": 12, "key": 4}, 15)
        for parameter in flat.parameters():
            parameter.zero_()
    even = TorchStep(flat)(encoded, np.array([[2]]), state, 4)
    assert even.candidate_token_ids.tolist() == [[[0, 1, 2, 3]]]


def test_the_loss_is_the_mean_over_target_tokens_whatever_the_batches(model: TranslationModel) -> None:
    generator = np.random.default_rng(3)
    lengths = generator.integers(1, 9, size=12)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(5, 15, size=int(lengths.sum())).astype(np.int32)
    corpus = TokenizedCorpus(ids, offsets, ids[::-1].copy(), offsets, 1.0)
    total, tokens = 0.0, 0
    for pair in range(12):
        batch = assemble([corpus], [(0, pair)])
        with torch.no_grad():
            logits = model(
                *(torch.from_numpy(a) for a in (batch.source_ids, batch.source_lengths, batch.target_input_ids))
            ).logits
        assert (batch.target_ids != PAD_ID).all()
        log_probabilities = torch.log_softmax(logits, -1)[0]
        total -= float(
            log_probabilities[torch.arange(batch.target_ids.size), torch.from_numpy(batch.target_ids[0])].sum()
        )
        tokens += batch.target_ids.size
    assert corpus_loss(model, corpus) == pytest.approx(total / tokens, rel=1e-5)


def test_a_perfect_translation_scores_a_hundred_under_a_stated_signature() -> None:
    scores = score(["le chat dort ici ."], ["le chat dort ici ."])
    assert scores.bleu == pytest.approx(100) and scores.chrf == pytest.approx(100)
    assert "version:" in scores.bleu_signature and "version:" in scores.chrf_signature
    assert score(["tout autre chose ."], ["le chat dort ici ."]).bleu < 50
