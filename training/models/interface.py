"""What every architecture offers: encode a batch, take one decoding step, and score given targets.

Axes: batch = sentences, source / target = tokens, beam = hypotheses kept for a sentence, hidden / key = vector sizes.
Every method is a pure function of its arguments: no tensor is kept on a module between calls.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Encoded:
    """The encoder side of a batch, shared by all hypotheses of a sentence.

    ``encoder_side`` holds what the decoder reads at every step, by tensor name, batch first;
    ``initial_state`` the decoder's first state, [batch size] a tensor.
    """

    source_lengths: Int[Tensor, " batch"]
    encoder_side: dict[str, Tensor]
    initial_state: dict[str, Tensor]


class GivenAttention(NamedTuple):
    """Attention weights to use instead of the model's own in the rows where ``replaced`` is true."""

    replaced: Bool[Tensor, "batch beam 1"]
    weights: Float[Tensor, "batch beam source"]


@dataclass(frozen=True)
class Stepped:
    """One decoding step. An architecture without attention leaves the attention tensors out.

    ``attention_scores`` are the inner products of ``attention_query`` and ``attention_keys``, before the softmax.
    ``emission_scores`` look back: the logit that the token just read would have had, had the step that emitted it
    attended to one source position alone. At the first step, where nothing was emitted, they mean nothing.
    """

    log_probabilities: Float[Tensor, "batch beam vocabulary"]
    state: dict[str, Tensor]
    attention_scores: Float[Tensor, "batch beam source"] | None = None
    attention_weights: Float[Tensor, "batch beam source"] | None = None
    attention_query: Float[Tensor, "batch beam key"] | None = None
    context: Float[Tensor, "batch beam hidden"] | None = None
    emission_scores: Float[Tensor, "batch beam source"] | None = None


class TeacherForced(NamedTuple):
    """What a model makes of given targets: ``logits`` of every next token, and where it looked to find them.

    An architecture without attention leaves ``attention_weights`` out. (A tuple, as Fabric must rebuild it.)
    """

    logits: Float[Tensor, "batch target vocabulary"]
    attention_weights: Float[Tensor, "batch target source"] | None = None


@dataclass(frozen=True)
class StateTensor:
    """Name and size of one tensor of the decoder's state."""

    name: str
    size: int


class TranslationModel(nn.Module, ABC):
    """An architecture. Source ids end with the end mark; decoder inputs begin with the begin mark."""

    architecture: str
    score_kind: str
    decoder_token_offset: int
    alignment_shift: int = 0

    @property
    @abstractmethod
    def state(self) -> tuple[StateTensor, ...]:
        """The tensors of the decoder's state, in order."""

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """The sizes a reader of the bundle needs: vocabulary, embedding, hidden, key and layer counts."""

    @abstractmethod
    def encode(self, source_ids: Int[Tensor, "batch source"], source_lengths: Int[Tensor, " batch"]) -> Encoded:
        """Return the encoder side; positions from ``source_lengths`` on never influence the others."""

    @abstractmethod
    def step(
        self,
        previous_token_ids: Int[Tensor, "batch beam"],
        state: dict[str, Tensor],
        encoded: Encoded,
        given: GivenAttention | None = None,
    ) -> Stepped:
        """Return log-probabilities (nats) of the next token and the next state, [batch beam size] a tensor.

        ``given`` attention is used, and returned, in place of the model's own; the scores stay what they were. An
        architecture without attention does not look at it.
        """

    @abstractmethod
    def forward(
        self,
        source_ids: Int[Tensor, "batch source"],
        source_lengths: Int[Tensor, " batch"],
        target_input_ids: Int[Tensor, "batch target"],
    ) -> TeacherForced:
        """Return logits of every next token with the true previous tokens as decoder input (teacher forcing)."""
