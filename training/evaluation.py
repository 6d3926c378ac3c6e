"""Judges a model on held-out text: loss under teacher forcing, BLEU and chrF of its own translations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sacrebleu
import torch

from bundle.manifest import SpecialIds
from bundle.search import EncodedBatch, SearchOptions, SearchResult, State, StepOutput, max_target_tokens, search
from bundle.tokenizer import Tokenizer
from training.corpus import TokenizedCorpus, assemble, epoch_batches
from training.models.interface import Encoded, TranslationModel
from training.preparation import PreparedText
from training.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID

_BATCH_TOKENS = 4096
_BATCH_SENTENCES = 64
_MAX_TARGET_TOKENS = 128

SPECIAL_IDS = SpecialIds(pad=PAD_ID, unk=UNK_ID, bos=BOS_ID, eos=EOS_ID)


class TorchStep:
    """A model as ``bundle.search`` drives it: numpy in, numpy out (``bundle.search.StepFunction``)."""

    def __init__(self, model: TranslationModel) -> None:
        """Put ``model`` in evaluation mode."""
        self._model = model.eval()
        self._device = next(model.parameters()).device

    @torch.no_grad()
    def encode(self, sources: Sequence[Sequence[int]]) -> EncodedBatch:
        """Return the encoder side of sentences given as ids, the end mark included."""
        lengths = np.array([len(source) for source in sources])
        source_ids = np.full((len(sources), lengths.max()), PAD_ID)
        for row, source in zip(source_ids, sources, strict=True):
            row[: len(source)] = source
        encoded = self._model.encode(self._tensor(source_ids), self._tensor(lengths))
        return EncodedBatch(lengths, _arrays(encoded.encoder_side), _arrays(encoded.initial_state))

    @torch.no_grad()
    def __call__(
        self, encoded: EncodedBatch, previous_token_ids: np.ndarray, state: State, candidates: int
    ) -> StepOutput:
        """Return the best candidates of every hypothesis, ties to the lower id."""
        stepped = self._model.step(
            self._tensor(previous_token_ids),
            {name: self._tensor(array) for name, array in state.items()},
            Encoded(
                self._tensor(encoded.source_lengths),
                {name: self._tensor(array) for name, array in encoded.encoder_side.items()},
                {},
            ),
        )
        log_probabilities, ids = _best(stepped.log_probabilities, candidates)
        attention = (stepped.attention_scores, stepped.attention_weights, stepped.attention_query)
        return StepOutput(
            ids.cpu().numpy(),
            log_probabilities.cpu().numpy(),
            _arrays(stepped.state),
            *(None if tensor is None else tensor.cpu().numpy() for tensor in attention),
        )

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


@dataclass(frozen=True)
class Scores:
    """Corpus scores of translations, in percent, each with the signature that says how it was computed."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def translate(
    model: TranslationModel, tokenizer: Tokenizer, sources: Sequence[str], beam_size: int = 1
) -> list[SearchResult]:
    """Return the best hypothesis of every source, in order; an empty source is translated like any other."""
    step = TorchStep(model)
    ids = [[*tokenizer.encode_ids(source), EOS_ID] for source in sources]
    results: dict[int, SearchResult] = {}
    by_length = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    for start in range(0, len(by_length), _BATCH_SENTENCES):
        rows = by_length[start : start + _BATCH_SENTENCES]
        options = [
            SearchOptions(
                max_target_tokens=max_target_tokens(len(ids[row]), _MAX_TARGET_TOKENS),
                beam_size=beam_size,
                banned_token_ids=(UNK_ID,),
            )
            for row in rows
        ]
        found = search(step, step.encode([ids[row] for row in rows]), options, SPECIAL_IDS)
        results |= dict(zip(rows, found, strict=True))
    return [results[index] for index in range(len(ids))]


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
    figures: dict[str, Any] = {f"{dev.name}_loss": corpus_loss(model, dev.corpus) for dev in text.dev}
    figures = {"loss": sum(figures.values()) / len(figures), **figures}
    for dev in text.dev:
        pairs = dev.pairs[:sentences]
        results = translate(model, tokenizer, [source for source, _ in pairs])
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
        logits = model(source_ids, source_lengths, target_input_ids)
        total += float(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), target_ids.flatten(), ignore_index=PAD_ID, reduction="sum"
            )
        )
        tokens += int((target_ids != PAD_ID).sum())
    return total / tokens


def _best(log_probabilities: torch.Tensor, candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the highest log-probabilities and their ids, best first, ties to the lower id."""
    values, ids = log_probabilities.topk(min(candidates + 1, log_probabilities.shape[-1]), dim=-1)
    if (values[..., 1:] == values[..., :-1]).any():  # topk leaves the order of ties open; sorting all is slower
        values, ids = log_probabilities.sort(dim=-1, descending=True, stable=True)
    return values[..., :candidates], ids[..., :candidates]


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
