"""Translates with a model in any framework: the step contract in torch, and batches of similar length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch

from bundle.manifest import SpecialIds
from bundle.search import (
    EncodedBatch,
    SearchOptions,
    SearchResult,
    State,
    StepFunction,
    StepOutput,
    max_target_tokens,
    search,
)
from bundle.sessions import encoder_inputs
from bundle.tokenizer import Tokenizer
from training.models.interface import Encoded, TranslationModel
from training.vocabulary import PAD_ID

_BATCH_SENTENCES = 32

Ids = Sequence[int]
Answer = TypeVar("Answer")


class Searchable(StepFunction, Protocol):
    """A model that bundle.search can drive, in torch or in ONNX Runtime."""

    def encode(self, sources: Sequence[Ids]) -> EncodedBatch:
        """Return the encoder side of sentences given as ids, end of sentence included."""
        ...


class TorchStep:
    """A model as ``bundle.search`` drives it: numpy in, numpy out (``bundle.search.StepFunction``)."""

    def __init__(self, model: TranslationModel) -> None:
        """Put ``model`` in evaluation mode."""
        self._model = model.eval()
        self._device = next(model.parameters()).device

    @torch.no_grad()
    def encode(self, sources: Sequence[Sequence[int]]) -> EncodedBatch:
        """Return the encoder side of sentences given as ids, the end mark included."""
        inputs = encoder_inputs(sources, PAD_ID)
        encoded = self._model.encode(self._tensor(inputs["source_ids"]), self._tensor(inputs["source_lengths"]))
        return EncodedBatch(inputs["source_lengths"], _arrays(encoded.encoder_side), _arrays(encoded.initial_state))

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
class Translator:
    """Translates with the options the service has by default."""

    model: Searchable
    special_ids: SpecialIds
    max_target_tokens: int

    def translate(
        self, sources: Sequence[Ids], beam_size: int, batch_sentences: int = _BATCH_SENTENCES
    ) -> list[SearchResult]:
        """Return the best translation of each source, end of sentence included."""

        def answer(rows: Sequence[int]) -> list[SearchResult]:
            options = [self._options(len(sources[row]), beam_size) for row in rows]
            return search(self.model, self.model.encode([sources[row] for row in rows]), options, self.special_ids)

        return by_length(sources, answer, batch_sentences)

    def _options(self, source_tokens: int, beam_size: int) -> SearchOptions:
        return SearchOptions(
            max_target_tokens=max_target_tokens(source_tokens, self.max_target_tokens),
            beam_size=beam_size,
            banned_token_ids=(self.special_ids.unk,),
        )


def source_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return texts as ids, end of sentence included."""
    return [[*tokenizer.encode_ids(text), tokenizer.eos_id] for text in texts]


def by_length(
    sources: Sequence[Ids],
    answer: Callable[[Sequence[int]], Sequence[Answer]],
    batch_sentences: int = _BATCH_SENTENCES,
) -> list[Answer]:
    """Return the answers for all rows in order, asked for in batches of rows whose sources have similar lengths."""
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), batch_sentences):
        rows = order[start : start + batch_sentences]
        found |= zip(rows, answer(rows), strict=True)
    return [found[row] for row in range(len(sources))]


def _best(log_probabilities: torch.Tensor, candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the highest log-probabilities and their ids, best first, ties to the lower id."""
    values, ids = log_probabilities.topk(min(candidates + 1, log_probabilities.shape[-1]), dim=-1)
    if (values[..., 1:] == values[..., :-1]).any():  # topk leaves the order of ties open; sorting all is slower
        values, ids = log_probabilities.sort(dim=-1, descending=True, stable=True)
    return values[..., :candidates], ids[..., :candidates]


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
