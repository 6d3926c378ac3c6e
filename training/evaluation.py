"""Judges a model on held-out text: loss under teacher forcing, BLEU and chrF of its own translations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sacrebleu
import torch

from bundle.manifest import SpecialIds
from bundle.tokenizer import Tokenizer
from training.corpus import TokenizedCorpus, assemble, epoch_batches
from training.models.interface import TranslationModel
from training.preparation import PreparedText
from training.translation import TorchStep, Translator, source_ids
from training.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID

_BATCH_TOKENS = 4096

SPECIAL_IDS = SpecialIds(pad=PAD_ID, unk=UNK_ID, bos=BOS_ID, eos=EOS_ID)


@dataclass(frozen=True)
class Scores:
    """Corpus scores of translations, in percent, each with the signature that says how it was computed."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def score(translations: Sequence[str], references: Sequence[str]) -> Scores:
    """Return BLEU and chrF with sacrebleu's default settings."""
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    bleu_score = bleu.corpus_score(list(translations), [list(references)])
    chrf_score = chrf.corpus_score(list(translations), [list(references)])
    return Scores(bleu_score.score, str(bleu.get_signature()), chrf_score.score, str(chrf.get_signature()))


def validate(model: TranslationModel, text: PreparedText, sentences: int) -> dict[str, Any]:
    """Return the figures of every development set, and their mean loss as ``loss`` (nats a token).

    BLEU and chrF are of greedy translations of the first ``sentences`` of each set.
    """
    tokenizer = Tokenizer(text.vocabulary)
    translator = Translator(TorchStep(model), SPECIAL_IDS, text.max_target_tokens)
    figures: dict[str, Any] = {f"{dev.name}_loss": corpus_loss(model, dev.corpus) for dev in text.dev}
    figures = {"loss": sum(figures.values()) / len(figures), **figures}
    for dev in text.dev:
        pairs = dev.pairs[:sentences]
        results = translator.translate(source_ids(tokenizer, [source for source, _ in pairs]), beam_size=1)
        texts = [tokenizer.decode(result.hypotheses[0].token_ids) for result in results]
        scores = score(texts, [target for _, target in pairs])
        figures |= {f"{dev.name}_bleu": scores.bleu, f"{dev.name}_chrf": scores.chrf}
        figures |= {"bleu_signature": scores.bleu_signature, "chrf_signature": scores.chrf_signature}
    return figures


@torch.no_grad()
def corpus_loss(model: TranslationModel, corpus: TokenizedCorpus) -> float:
    """Return the mean negative log-probability (nats) of a target token, end mark included, not smoothed."""
    model.eval()
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    for pairs in epoch_batches([corpus], _BATCH_TOKENS, seed=0, epoch=0):
        batch = assemble([corpus], pairs)
        source_ids, source_lengths, target_input_ids, target_ids = (
            torch.from_numpy(array).to(device)
            for array in (batch.source_ids, batch.source_lengths, batch.target_input_ids, batch.target_ids)
        )
        logits = model(source_ids, source_lengths, target_input_ids).logits
        total += float(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), target_ids.flatten(), ignore_index=PAD_ID, reduction="sum"
            )
        )
        tokens += int((target_ids != PAD_ID).sum())
    return total / tokens
