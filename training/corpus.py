"""Parallel text to length-bucketed batches of token ids.

Axes: batch = sentence pairs, source / target = tokens, padded to the longest of the batch.
"""

import gzip
import itertools
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import sentencepiece
from jaxtyping import Int

from training.config import CorpusConfig, DataConfig
from training.errors import InvalidCorpus
from training.vocabulary import BOS_ID, EOS_ID, PAD_ID

_POOL_BATCHES = 200  # pairs are sorted by length inside pools of about this many batches, so that order stays random
_OPENERS = {".gz": gzip.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Links:
    """Which source token each target token of a corpus stands for, as an aligner says; pair i spans offsets [i, i + 1).

    Positions count tokens of their own sentence, from 0. A pair that was not aligned has no links.
    """

    target_positions: Int[np.ndarray, " links"]
    source_positions: Int[np.ndarray, " links"]
    offsets: Int[np.ndarray, " pairs_plus_one"]


@dataclass(frozen=True)
class Batch:
    """A padded batch. Decoder inputs begin with the begin mark; targets and sources end with the end mark.

    ``links`` are (row, target position, source position), of the pairs that an aligner has seen.
    """

    source_ids: Int[np.ndarray, "batch source"]
    source_lengths: Int[np.ndarray, " batch"]
    target_input_ids: Int[np.ndarray, "batch target"]
    target_ids: Int[np.ndarray, "batch target"]
    links: Int[np.ndarray, "links 3"]


@dataclass(frozen=True)
class TokenizedCorpus:
    """Sentence pairs as ids without marks, end to end in two flat arrays; pair i spans offsets [i, i + 1)."""

    source_ids: Int[np.ndarray, " tokens"]
    source_offsets: Int[np.ndarray, " pairs_plus_one"]
    target_ids: Int[np.ndarray, " tokens"]
    target_offsets: Int[np.ndarray, " pairs_plus_one"]
    weight: float
    links: Links | None = None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.source_offsets) - 1


def read_pairs(config: CorpusConfig) -> tuple[list[tuple[str, str]], Counter[str]]:
    """Return the usable pairs of a corpus, and how many lines were left out for each reason.

    A line has two columns, or three of which the last is ignored (Tatoeba's downloads carry an attribution there). Left
    out are lines that are not UTF-8, have another number of columns, or lack a side.

    Raises:
        InvalidCorpus: A file is missing or damaged, the two files differ in length, or no pair is usable.
    """
    left_out: Counter[str] = Counter()
    pairs = []
    try:
        for line in _lines(config):
            if line is None:
                left_out["not UTF-8"] += 1
            elif not 2 <= len(line) <= 3:
                left_out["not two or three columns"] += 1
            elif not (line[0].strip() and line[1].strip()):
                left_out["empty side"] += 1
            else:
                pairs.append((line[0].strip(), line[1].strip()))
            if config.limit is not None and len(pairs) >= config.limit:
                break
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InvalidCorpus(f"cannot read {config.source}: {error}. Check the path and that it is complete.") from error
    if not pairs:
        raise InvalidCorpus(
            f"{config.source} holds no usable pair ({dict(left_out)}); one line is source, TAB, target."
        )
    return pairs, left_out


def tokenize(
    pairs: list[tuple[str, str]], weight: float, vocabulary: sentencepiece.SentencePieceProcessor, data: DataConfig
) -> tuple[TokenizedCorpus, Counter[str]]:
    """Return the pairs as ids, and how many were left out for their length.

    Raises:
        InvalidCorpus: Nothing is left.
    """
    left_out: Counter[str] = Counter()
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(pairs), 50_000):
        chunk = pairs[start : start + 50_000]
        sources = vocabulary.encode([source for source, _ in chunk], num_threads=-1)
        targets = vocabulary.encode([target for _, target in chunk], num_threads=-1)
        for source, target in zip(sources, targets, strict=True):
            reason = _misfit(len(source), len(target), data)
            if reason:
                left_out[reason] += 1
            else:
                kept.append((np.array(source, np.int32), np.array(target, np.int32)))
    if not kept:
        raise InvalidCorpus(f"no pair is left after the length limits ({dict(left_out)}); raise them in [data].")
    source_ids, source_offsets = _flatten([source for source, _ in kept])
    target_ids, target_offsets = _flatten([target for _, target in kept])
    return TokenizedCorpus(source_ids, source_offsets, target_ids, target_offsets, weight), left_out


def epoch_batches(
    corpora: list[TokenizedCorpus], batch_tokens: int, seed: int, epoch: int
) -> list[Int[np.ndarray, "pairs 2"]]:
    """Return one epoch as batches of (corpus, pair) indices: shuffled, weighted, similar lengths together.

    A batch holds at most ``batch_tokens`` tokens on its longer side, padding and marks included (a single longer
    pair makes a batch of its own). The result depends on the arguments alone, so a resumed run sees the same.
    """
    random = np.random.default_rng((seed, epoch))
    chosen = np.concatenate([_weighted_pairs(index, corpus, random) for index, corpus in enumerate(corpora)])
    chosen = chosen[random.permutation(len(chosen))]
    lengths = np.empty((len(chosen), 2), np.int64)
    for index, corpus in enumerate(corpora):
        rows = chosen[:, 0] == index
        pairs = chosen[rows, 1]
        lengths[rows, 0] = corpus.target_offsets[pairs + 1] - corpus.target_offsets[pairs] + 1
        lengths[rows, 1] = corpus.source_offsets[pairs + 1] - corpus.source_offsets[pairs] + 1
    longer = lengths.max(axis=1)
    pool = max(1, round(_POOL_BATCHES * batch_tokens / longer.mean()))
    batches: list[Int[np.ndarray, "pairs 2"]] = []
    for start in range(0, len(chosen), pool):
        order = start + _by_length(lengths[start : start + pool])
        batches.extend(np.split(chosen[order], _cuts(longer[order], batch_tokens)))
    return [batches[index] for index in random.permutation(len(batches))]


def assemble(corpora: list[TokenizedCorpus], chosen: Int[np.ndarray, "pairs 2"] | Sequence[tuple[int, int]]) -> Batch:
    """Return the padded batch of these (corpus, pair) indices."""
    pairs = np.asarray(chosen)
    source_ids, source_lengths = _padded([(corpus.source_ids, corpus.source_offsets) for corpus in corpora], pairs)
    target_ids, _ = _padded([(corpus.target_ids, corpus.target_offsets) for corpus in corpora], pairs)
    target_input_ids = np.concatenate([np.full((len(pairs), 1), BOS_ID), target_ids[:, :-1]], axis=1)
    links = [np.zeros((0, 3), np.int64)]
    for index, corpus in enumerate(corpora):
        if corpus.links is not None:
            rows = np.flatnonzero(pairs[:, 0] == index)
            links.append(_links_by_row(corpus.links, rows, pairs[rows, 1]))
    return Batch(source_ids, source_lengths, target_input_ids, target_ids, np.concatenate(links))


def _lines(config: CorpusConfig) -> Iterator[list[str] | None]:
    """Yield the columns of each line; None for a line that is not UTF-8."""
    with _open(config.source) as source_file:
        if config.target is None:
            for line in source_file:
                yield _columns(line)
            return
        with _open(config.target) as target_file:
            for source, target in itertools.zip_longest(source_file, target_file):
                if source is None or target is None:
                    raise InvalidCorpus(f"{config.source} and {config.target} differ in length; pairs go line by line.")
                sides = [_columns(source), _columns(target)]
                yield None if None in sides else [" ".join(side) for side in sides if side is not None]


def _open(path: Path) -> IO[bytes]:
    return _OPENERS.get(path.suffix, open)(path, "rb")  # type: ignore[operator,no-any-return]


def _columns(line: bytes) -> list[str] | None:
    try:
        return line.decode("utf-8").rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        return None


def _misfit(source_length: int, target_length: int, data: DataConfig) -> str | None:
    if source_length == 0 or target_length == 0:
        return "nothing left after normalization"
    if source_length > data.max_source_tokens:
        return f"source over {data.max_source_tokens} tokens"
    if target_length > data.max_target_tokens:
        return f"target over {data.max_target_tokens} tokens"
    # A few tokens of grace: "Hi." against four tokens says nothing about a bad alignment.
    longer, shorter = max(source_length, target_length), min(source_length, target_length)
    return f"length ratio over {data.max_length_ratio:g}" if longer > data.max_length_ratio * (shorter + 2) else None


def _flatten(sentences: list[np.ndarray]) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " pairs_plus_one"]]:
    offsets = np.cumsum([0, *map(len, sentences)])
    return np.concatenate(sentences), offsets


def _weighted_pairs(index: int, corpus: TokenizedCorpus, random: np.random.Generator) -> Int[np.ndarray, "pairs 2"]:
    """Return (corpus, pair) rows: every pair ⌊weight⌋ times, and a random part of them once more."""
    whole = int(corpus.weight)
    extra = random.permutation(len(corpus))[: round((corpus.weight - whole) * len(corpus))]
    pairs = np.concatenate([np.tile(np.arange(len(corpus)), whole), extra])
    return np.stack([np.full(len(pairs), index), pairs], axis=1)


def _by_length(lengths: Int[np.ndarray, "pairs 2"]) -> Int[np.ndarray, " pairs"]:
    """Return an order in which neighbours have similar lengths on both sides: as little padding as one order gives.

    The longer side decides, then how much longer the target is than the source, rising and falling in turns: where the
    longer side grows by one, the other does not jump from its longest to its shortest.
    """
    longer = lengths.max(axis=1)
    lead = lengths[:, 0] - lengths[:, 1]
    return np.lexsort((np.where(longer % 2, -lead, lead), longer))


def _cuts(longer: Int[np.ndarray, " pairs"], batch_tokens: int) -> list[int]:
    """Return where to cut pairs whose longer sides are given, so that each batch takes all the pairs it may hold."""
    cuts: list[int] = []
    begin = 0
    while True:
        longest = np.maximum.accumulate(longer[begin : begin + max(1, batch_tokens // int(longer[begin]))])
        tokens = longest * np.arange(1, len(longest) + 1)
        begin += max(1, int(np.searchsorted(tokens, batch_tokens, side="right")))
        if begin >= len(longer):
            return cuts
        cuts.append(begin)


def _padded(
    sides: list[tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " pairs_plus_one"]]],
    pairs: Int[np.ndarray, "pairs 2"],
) -> tuple[Int[np.ndarray, "batch time"], Int[np.ndarray, " batch"]]:
    """Return one side of the pairs, end marks included, padded, and its lengths; ``sides`` are ids and offsets."""
    begins, lengths = np.empty((2, len(pairs)), np.int64)
    for index, (_, offsets) in enumerate(sides):
        rows = pairs[:, 0] == index
        begins[rows] = offsets[pairs[rows, 1]]
        lengths[rows] = offsets[pairs[rows, 1] + 1] - begins[rows]
    inside = np.arange(lengths.max() + 1) < lengths[:, None]
    padded = np.full(inside.shape, PAD_ID, np.int64)
    for index, (ids, _) in enumerate(sides):
        here = inside & (pairs[:, 0] == index)[:, None]
        rows, positions = np.nonzero(here)
        padded[here] = ids[begins[rows] + positions]
    padded[np.arange(len(pairs)), lengths] = EOS_ID
    return padded, lengths + 1


def _links_by_row(
    links: Links, rows: Int[np.ndarray, " pairs"], pairs: Int[np.ndarray, " pairs"]
) -> Int[np.ndarray, "links 3"]:
    """Return (row, target position, source position) of the links of these pairs."""
    begins = links.offsets[pairs]
    counts = links.offsets[pairs + 1] - begins
    places = np.repeat(begins - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return np.stack([np.repeat(rows, counts), links.target_positions[places], links.source_positions[places]], axis=1)
