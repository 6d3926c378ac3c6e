"""The attention encoder–decoder: bidirectional GRU encoder, GRU decoder, bilinear attention in Luong's order.

The query is the decoder's state *after* it has read the previous token, and the context is not fed back into the
recurrence (Aitken et al. 2021, arXiv 2110.15253, "AED"; Luong et al. 2015, arXiv 1508.04025, "general" score).
"""

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from training.models.interface import Encoded, GivenAttention, StateTensor, Stepped, TeacherForced, TranslationModel
from training.models.recurrence import BidirectionalLayer, gru_step


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AttentionEncoderDecoderConfig:
    """Sizes of the model. ``key`` is at most 128, the width up to which attention is bit-identical in any batch."""

    vocabulary: int
    embedding: int = 256
    hidden: int = 512
    key: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    dropout: float = 0.1
    tied_embeddings: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work."""
        if self.hidden % 2:
            raise ValueError(f"hidden is {self.hidden}; two reading directions share it, so it must be even")
        if not 1 <= self.key <= 128:
            raise ValueError(f"key is {self.key}; allowed 1 to 128 (wider keys break batch invariance)")
        if min(self.vocabulary, self.embedding, self.hidden, self.encoder_layers, self.decoder_layers) < 1:
            raise ValueError("sizes and layer counts must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; allowed from 0 to below 1")


class AttentionEncoderDecoder(TranslationModel):
    """Two stacks of GRU layers (each layer above the first adds to what it reads) joined by bilinear attention."""

    architecture = "aed"
    score_kind = "bilinear"
    decoder_token_offset = 1

    def __init__(self, config: AttentionEncoderDecoderConfig) -> None:
        """Make the layers with torch's own initialization, embeddings with standard deviation 0.1."""
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.source_embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.target_embedding = (
            self.source_embedding if config.tied_embeddings else nn.Embedding(config.vocabulary, config.embedding)
        )
        self.encoder = nn.ModuleList(
            BidirectionalLayer(hidden if layer else config.embedding, hidden) for layer in range(config.encoder_layers)
        )
        self.bridge = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(config.decoder_layers))
        self.decoder = nn.ModuleList(
            nn.GRU(hidden if layer else config.embedding, hidden, batch_first=True)
            for layer in range(config.decoder_layers)
        )
        self.query = nn.Linear(hidden, config.key, bias=False)
        self.key = nn.Linear(hidden, config.key, bias=False)
        self.readout = nn.Linear(2 * hidden, config.embedding)
        self.output = nn.Linear(config.embedding, config.vocabulary)
        self.dropout = nn.Dropout(config.dropout)
        for embedding in {self.source_embedding, self.target_embedding}:
            nn.init.normal_(embedding.weight, std=0.1)
        if config.tied_embeddings:
            self.output.weight = self.target_embedding.weight
        else:
            nn.init.normal_(self.output.weight, std=0.1)
        nn.init.zeros_(self.output.bias)

    @property
    def state(self) -> tuple[StateTensor, ...]:
        """One vector a decoder layer."""
        return tuple(
            StateTensor(f"decoder_state_{layer}", self.config.hidden) for layer in range(self.config.decoder_layers)
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Vocabulary, embedding, hidden, key and layer counts."""
        names = ("vocabulary", "embedding", "hidden", "key", "encoder_layers", "decoder_layers")
        return {name: getattr(self.config, name) for name in names}

    def encode(self, source_ids: Int[Tensor, "batch source"], source_lengths: Int[Tensor, " batch"]) -> Encoded:
        """Return encoder states, their keys and the decoder's first state."""
        encoded = self._encode(source_ids, source_lengths)
        states = encoded.encoder_side["encoder_states"]
        encoded.encoder_side["emission_context"] = nn.functional.linear(states, self._readout_halves[1])
        return encoded

    def step(
        self,
        previous_token_ids: Int[Tensor, "batch beam"],
        state: dict[str, Tensor],
        encoded: Encoded,
        given: GivenAttention | None = None,
    ) -> Stepped:
        """Read one token, attend, and return the next token's log-probabilities."""
        inputs = self.target_embedding(previous_token_ids)
        next_state = {}
        for index, (tensor, cell) in enumerate(zip(self.state, self.decoder, strict=True)):
            next_state[tensor.name] = gru_step(cell, inputs, state[tensor.name])
            inputs = inputs + next_state[tensor.name] if index else next_state[tensor.name]
        query, scores, weights, context = self._attend(inputs, encoded, given)
        logits = self._predict(inputs, context)
        emission = self._emission(previous_token_ids, state, encoded)
        return Stepped(torch.log_softmax(logits, dim=-1), next_state, scores, weights, query, context, emission)

    def forward(
        self,
        source_ids: Int[Tensor, "batch source"],
        source_lengths: Int[Tensor, " batch"],
        target_input_ids: Int[Tensor, "batch target"],
    ) -> TeacherForced:
        """Return what ``step`` would, target known: no step waits for attention, so each layer runs as one sequence."""
        encoded = self._encode(source_ids, source_lengths)
        states = self.dropout(self.target_embedding(target_input_ids))
        for index, (tensor, cell) in enumerate(zip(self.state, self.decoder, strict=True)):
            read, _ = cell(states, encoded.initial_state[tensor.name][None])
            states = states + self.dropout(read) if index else self.dropout(read)
        _, _, weights, context = self._attend(states, encoded)
        return TeacherForced(self._predict(states, context), weights)

    def _encode(self, source_ids: Int[Tensor, "batch source"], source_lengths: Int[Tensor, " batch"]) -> Encoded:
        """Return what training needs of ``encode``."""
        states = self.dropout(self.source_embedding(source_ids))
        for index, layer in enumerate(self.encoder):
            read, final = layer(states, source_lengths)
            states = states + self.dropout(read) if index else self.dropout(read)
        return Encoded(
            source_lengths,
            {"encoder_states": states, "attention_keys": self.key(states)},
            {tensor.name: torch.tanh(bridge(final)) for tensor, bridge in zip(self.state, self.bridge, strict=True)},
        )

    @property
    def _readout_halves(self) -> tuple[Tensor, Tensor]:
        """What the read-out multiplies the decoder's state with, and the context."""
        state, context = torch.split(self.readout.weight, self.config.hidden, dim=1)
        return state, context

    def _attend(
        self, states: Float[Tensor, "batch target hidden"], encoded: Encoded, given: GivenAttention | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return query, scores, weights and context; the scale 1/√key is folded into the query."""
        keys, values = encoded.encoder_side["attention_keys"], encoded.encoder_side["encoder_states"]
        query = self.query(states) * self.config.key**-0.5
        scores = query @ keys.transpose(1, 2)
        inside = torch.arange(keys.shape[1], device=keys.device) < encoded.source_lengths[:, None]
        weights = torch.softmax(scores.masked_fill(~inside[:, None], float("-inf")), dim=-1)
        if given is not None:
            weights = torch.where(given.replaced, given.weights, weights)
        return query, scores, weights, weights.to(values.dtype) @ values

    def _emission(
        self, token_ids: Int[Tensor, "batch beam"], state: dict[str, Tensor], encoded: Encoded
    ) -> Float[Tensor, "batch beam source"]:
        """Return the logit of ``token_ids``, emitted from ``state``, with each source position alone as context."""
        states = torch.stack([state[tensor.name] for tensor in self.state]).sum(0)  # layers add to what they read
        # The read-out is linear up to its tanh, so what a source position adds to it does not depend on the step.
        of_state = nn.functional.linear(states, self._readout_halves[0], self.readout.bias)
        readout = torch.tanh(of_state[:, :, None] + encoded.encoder_side["emission_context"][:, None])
        emitted = nn.functional.embedding(token_ids, self.output.weight)
        logits: Tensor = (readout * emitted[:, :, None]).sum(-1)
        return logits + nn.functional.embedding(token_ids, self.output.bias[:, None])

    def _predict(
        self, states: Float[Tensor, "batch target hidden"], context: Float[Tensor, "batch target hidden"]
    ) -> Float[Tensor, "batch target vocabulary"]:
        readout = torch.tanh(self.readout(torch.cat([states, context], dim=-1)))
        logits: Tensor = self.output(self.dropout(readout))
        return logits
