"""Reads the corpora of a run and turns them into ids, training the vocabulary on the training side if need be."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import sentencepiece

from training.config import CorpusConfig, RunConfig
from training.corpus import TokenizedCorpus, read_pairs, tokenize
from training.guidance import with_links
from training.progress import Reporter
from training.vocabulary import train_vocabulary

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class DevelopmentSet:
    """A held-out corpus: its ids for the loss, its text for BLEU and chrF. ``name`` is its file's folder and stem."""

    name: str
    corpus: TokenizedCorpus
    pairs: Pairs


@dataclass(frozen=True)
class PreparedText:
    """Everything a run reads: the serialized vocabulary, training corpora and development sets.

    ``max_target_tokens`` is the longest translation, the end mark included, as in the bundle made of the run.
    """

    vocabulary: bytes
    max_target_tokens: int
    train: list[TokenizedCorpus]
    dev: list[DevelopmentSet]


def prepare_text(config: RunConfig, vocabulary: bytes | None, reporter: Reporter) -> PreparedText:
    """Return the text of a run; without the ``vocabulary`` of a checkpoint, one is trained on the training side.

    Raises:
        InvalidCorpus: A corpus is missing, damaged, or empty after filtering.
        AlignerFailed: Attention is to be guided and the aligner is missing or failed.
        TrainingError: The text is too small for the vocabulary asked for.
    """
    data = config.data
    read = [_read(corpus, reporter) for corpus in data.train]
    if vocabulary is None:
        reporter.say(f"training a vocabulary of {config.vocabulary.size} pieces")
        vocabulary = train_vocabulary(_sentences(read), config.vocabulary, config.seed)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)

    def ids(corpus: CorpusConfig, pairs: Pairs) -> TokenizedCorpus:
        tokenized, left_out = tokenize(pairs, corpus.weight, pieces, data)
        _report(corpus, f"{len(tokenized)} pairs tokenized", left_out, reporter)
        return tokenized

    train = [ids(corpus, pairs) for corpus, pairs in zip(data.train, read, strict=True)]
    if config.guidance is not None:
        train = with_links(train, config.guidance, reporter.folder, reporter)
    dev = []
    for corpus in data.dev:
        pairs = _read(corpus, reporter)
        name = f"{corpus.source.parent.name}-{corpus.source.name.split('.')[0]}"
        dev.append(DevelopmentSet(name, ids(corpus, pairs), pairs))
    return PreparedText(vocabulary, data.max_target_tokens + 1, train, dev)


def _read(corpus: CorpusConfig, reporter: Reporter) -> Pairs:
    pairs, left_out = read_pairs(corpus)
    _report(corpus, f"{len(pairs)} pairs read", left_out, reporter)
    return pairs


def _report(corpus: CorpusConfig, what: str, left_out: Counter[str], reporter: Reporter) -> None:
    lost = "".join(f"; left out {count}: {reason}" for reason, count in left_out.items())
    reporter.say(f"{corpus.source}: {what}{lost}")


def _sentences(corpora: list[Pairs]) -> Iterator[str]:
    for pairs in corpora:
        for source, target in pairs:
            yield source
            yield target
