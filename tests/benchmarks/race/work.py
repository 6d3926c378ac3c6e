"""What every contender does, whoever it is: the same tokens in and out. Standard library alone, as rivals import it.

Weights are random: they make no difference to speed, and no model of exactly these sizes could be had otherwise.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOURCE_TOKENS = 15  # end of sentence included
TARGET_TOKENS = 15  # of every hypothesis, none of them an end of sentence
VOCABULARY = 8000
BATCHES = (1, 8, 32, 128)
BEAM_SIZES = (1, 4, 5)


@dataclass(frozen=True)
class Turn:
    """One contender's turn.

    Attributes:
        batch: Sentences handed over at once; callers at a time, for a service.
        beam_size: 1 is greedy search.
        alignment: Whether attention is to be returned.
        seconds: How long to go on; at least one batch is translated.
        settings: What else the contender is told.
    """

    batch: int
    beam_size: int
    alignment: bool
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """What became of a turn.

    Attributes:
        tokens: Target tokens of the best hypotheses.
        seconds: All of it.
        latencies: Seconds of each batch; of each call, for a service.
        peak_mib: Largest resident size of the process so far.
    """

    tokens: int
    seconds: float
    latencies: list[float]
    peak_mib: float

    @property
    def tokens_per_second(self) -> float:
        """Target tokens a second."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Transformer:
    """Sizes of a Transformer with one embedding table for source, target and output."""

    width: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    heads: int

    @property
    def parameters(self) -> int:
        """Learned numbers; position encodings are none."""
        attention = 4 * (self.width * self.width + self.width)
        feed_forward = 2 * self.width * self.feed_forward + self.width + self.feed_forward
        norm = 2 * self.width
        encoder = self.encoder_layers * (attention + feed_forward + 2 * norm) + norm
        decoder = self.decoder_layers * (2 * attention + feed_forward + 3 * norm) + norm
        return VOCABULARY * self.width + VOCABULARY + encoder + decoder


# As deep as small Transformers for fast decoding are: the decoder, which runs once a token, has the fewer layers.
EQUAL = Transformer(width=256, feed_forward=576, encoder_layers=6, decoder_layers=2, heads=4)
OPUS = Transformer(width=512, feed_forward=2048, encoder_layers=6, decoder_layers=6, heads=8)


def gru_parameters(inputs: int, hidden: int) -> int:
    """Return the learned numbers of a GRU layer: three gates, each with two matrices and two biases."""
    return 3 * hidden * (inputs + hidden + 2)


def recurrent_parameters(sizes: Mapping[str, int]) -> int:
    """Return the learned numbers of our architecture, given the sizes of a bundle's manifest."""
    hidden, embedding = sizes["hidden"], sizes["embedding"]
    bridges = sizes["decoder_layers"] * (hidden * hidden + hidden)
    attention = 2 * hidden * sizes["key"]
    readout = 2 * hidden * embedding + embedding
    return sizes["vocabulary"] * (embedding + 1) + _stacks(sizes) + bridges + attention + readout


def toolkit_parameters(sizes: Mapping[str, int]) -> int:
    """Return those of Joey NMT's recurrent model of the same sizes, whose output projection is as wide as a state."""
    hidden = sizes["hidden"]
    bridge = hidden * hidden + hidden
    attention = hidden * hidden
    readout = 2 * hidden * hidden + hidden
    return sizes["vocabulary"] * (sizes["embedding"] + hidden) + _stacks(sizes) + bridge + attention + readout


def _stacks(sizes: Mapping[str, int]) -> int:
    hidden, embedding = sizes["hidden"], sizes["embedding"]
    encoder = [
        2 * gru_parameters(hidden if layer else embedding, hidden // 2) for layer in range(sizes["encoder_layers"])
    ]
    decoder = [gru_parameters(hidden if layer else embedding, hidden) for layer in range(sizes["decoder_layers"])]
    return sum(encoder) + sum(decoder)


def sentences(count: int, first_id: int, vocabulary: int, seed: int = 4) -> list[list[int]]:
    """Return sources as ids, ``SOURCE_TOKENS`` each but for the end of sentence, which is the contender's own."""
    chosen = random.Random(seed)
    return [[chosen.randrange(first_id, vocabulary) for _ in range(SOURCE_TOKENS - 1)] for _ in range(count)]
