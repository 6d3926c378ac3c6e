from pathlib import Path

import numpy as np
import pytest

from exporters.sampling import TrainingSample, batches, development_pairs, halves, subset, training_sample
from tests.exporters.text import random_corpus
from training.config import CorpusConfig, DataConfig, VocabularyConfig
from training.vocabulary import train_vocabulary


@pytest.fixture
def corpora(tmp_path: Path) -> tuple[CorpusConfig, ...]:
    for name, count in (("long", 50), ("short", 5)):
        lines = [f"{name} {number}\t{number} {name}\n" for number in range(count)]
        (tmp_path / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    return CorpusConfig(tmp_path / "long.tsv"), CorpusConfig(tmp_path / "short.tsv")


def test_development_pairs_come_in_equal_parts_and_always_the_same(corpora: tuple[CorpusConfig, ...]) -> None:
    pairs = development_pairs(corpora, 9)
    assert pairs == development_pairs(corpora, 9)
    assert sum(source.startswith("long") for source, _ in pairs) == 4
    assert len(set(pairs)) == 9


def test_a_training_sample_holds_what_there_is_and_names_its_files_without_their_place(
    corpora: tuple[CorpusConfig, ...], tmp_path: Path
) -> None:
    vocabulary = train_vocabulary(["long 0123456789 short"] * 20, VocabularyConfig(size=30, character_coverage=0.99), 1)
    data = DataConfig("en", "fr", train=corpora, dev=corpora)
    sample = training_sample(corpora, 40, vocabulary, data)
    assert len(sample.corpus) == 25
    place = tmp_path.name
    assert sample.description == f"{place}/long.tsv: 20 sentences; {place}/short.tsv: 5 sentences"


def test_batches_hold_every_pair_once() -> None:
    corpus = random_corpus(40, 57, seed=6)
    found = sorted(
        tuple(row[:length].tolist())
        for batch in batches(corpus, 100)
        for row, length in zip(batch.source_ids, batch.source_lengths, strict=True)
    )
    expected = sorted(
        (*corpus.source_ids[corpus.source_offsets[pair] : corpus.source_offsets[pair + 1]].tolist(), 3)
        for pair in range(57)
    )
    assert found == expected
    assert list(batches(subset(corpus, np.arange(0)), 100)) == []


def test_two_halves_hold_every_pair_once() -> None:
    corpus = random_corpus(40, 57, seed=6)
    first, second = halves(TrainingSample(corpus, "text"))
    assert (len(first.corpus), len(second.corpus)) == (29, 28)
    assert (first.description, second.description) == ("half 1 of text", "half 2 of text")
    parts = [
        half.corpus.source_ids[slice(*half.corpus.source_offsets[pair : pair + 2])].tolist()
        for pair in range(29)
        for half in (first, second)
        if pair < len(half.corpus)
    ]
    assert np.concatenate(parts).tolist() == corpus.source_ids.tolist()
