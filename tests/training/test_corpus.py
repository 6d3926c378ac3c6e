import gzip
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from training.config import CorpusConfig, DataConfig, VocabularyConfig
from training.corpus import TokenizedCorpus, assemble, epoch_batches, read_pairs, tokenize
from training.errors import InvalidCorpus
from training.vocabulary import BOS_ID, EOS_ID, PAD_ID, train_vocabulary

LINES = [f"{'a b c ' * (1 + n % 5)}{n}\t{'d e ' * (1 + n % 7)}{n}" for n in range(300)]


def data_config(**limits: object) -> DataConfig:
    corpus = CorpusConfig(Path("unused"))
    return DataConfig("en", "fr", (corpus,), (corpus,), **limits)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def vocabulary() -> sentencepiece.SentencePieceProcessor:
    model = train_vocabulary([line.replace("\t", " ") for line in LINES], VocabularyConfig(size=20), seed=1)
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module")
def corpora(vocabulary: sentencepiece.SentencePieceProcessor) -> list[TokenizedCorpus]:
    pairs = [(line.split("\t")[0], line.split("\t")[1]) for line in LINES]
    return [
        tokenize(pairs[:100], 2.5, vocabulary, data_config())[0],
        tokenize(pairs[100:], 0.5, vocabulary, data_config())[0],
    ]


def realistic_lengths(pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """As Europarl's are in tokens: log-normal, about 22 of the source, and a target a sixth longer, give or take."""
    random = np.random.default_rng(5)
    source = random.lognormal(2.98, 0.49, pairs)
    target = source * random.lognormal(0.16, 0.20, pairs)
    return np.clip(source, 1, 100).astype(np.int64), np.clip(target, 1, 100).astype(np.int64)


def corpus_of_lengths(source: np.ndarray, target: np.ndarray) -> TokenizedCorpus:
    ids = np.full(max(source.sum(), target.sum()), EOS_ID + 1)
    return TokenizedCorpus(ids, np.cumsum([0, *source]), ids, np.cumsum([0, *target]), 1.0)


def test_plain_gz_and_xz_files_and_paired_files_give_the_same_pairs(tmp_path: Path) -> None:
    text = ("\n".join(LINES) + "\n").encode()
    (tmp_path / "a.tsv").write_bytes(text)
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.tsv.xz").write_bytes(lzma.compress(text))
    for column, name in enumerate(("a.source", "a.target")):
        (tmp_path / name).write_text("\n".join(line.split("\t")[column] for line in LINES), encoding="utf-8")
    plain, _ = read_pairs(CorpusConfig(tmp_path / "a.tsv"))
    assert len(plain) == 300
    for name in ("a.tsv.gz", "a.tsv.xz"):
        assert read_pairs(CorpusConfig(tmp_path / name)) == (plain, Counter())
    assert read_pairs(CorpusConfig(tmp_path / "a.source", tmp_path / "a.target")) == (plain, Counter())


def test_bad_lines_are_counted_by_reason_and_the_good_ones_kept(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"one\tun\nno tab\n\xff\xfe\tx\n \tempty\ntwo\tdeux\tCC BY 2.0\na\tb\tc\td\n")
    pairs, left_out = read_pairs(CorpusConfig(tmp_path / "a.tsv"))
    assert pairs == [("one", "un"), ("two", "deux")]
    assert left_out == {"not two or three columns": 2, "not UTF-8": 1, "empty side": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"no tab\n"), "no usable pair"),
        (b"\x1f\x8b broken", "cannot read"),
        (gzip.compress(b"one\tun\n" * 99)[:-12] + b"\xff" * 12, "cannot read"),
        (gzip.compress(b"one\tun\n" * 99, mtime=0)[:12] + b"\xff" * 40, "cannot read"),
        (None, "cannot read"),
    ],
)
def test_an_unusable_corpus_is_refused_by_name(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "a.tsv.gz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidCorpus, match=message):
        read_pairs(CorpusConfig(file))


def test_paired_files_of_different_length_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    for lines in ("un\n", "un\ndeux\ntrois\n"):
        (tmp_path / "b").write_text(lines)
        with pytest.raises(InvalidCorpus, match="differ in length"):
            read_pairs(CorpusConfig(tmp_path / "a", tmp_path / "b"))


def test_a_limit_keeps_the_first_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("\n".join(LINES))
    assert len(read_pairs(CorpusConfig(tmp_path / "a.tsv", limit=7))[0]) == 7


def test_pairs_out_of_the_length_limits_are_counted_by_reason(
    vocabulary: sentencepiece.SentencePieceProcessor,
) -> None:
    pairs = [("a b", "d e"), ("a " * 50, "d " * 50), ("a", "d " * 20), ("\u00ad", "d")]
    corpus, left_out = tokenize(pairs, 1.0, vocabulary, data_config(max_source_tokens=30, max_target_tokens=60))
    assert len(corpus) == 1
    assert left_out == {
        "source over 30 tokens": 1,
        "length ratio over 4": 1,
        "nothing left after normalization": 1,
    }


def test_an_epoch_holds_every_pair_as_often_as_its_weight_says(corpora: list[TokenizedCorpus]) -> None:
    batches = epoch_batches(corpora, batch_tokens=200, seed=1, epoch=0)
    seen = Counter(tuple(pair) for batch in batches for pair in batch.tolist())
    first = [seen[0, pair] for pair in range(100)]
    assert set(first) == {2, 3} and sum(first) == 250
    second = [seen[1, pair] for pair in range(200)]
    assert set(second) <= {0, 1} and sum(second) == 100


def test_no_batch_is_over_its_token_budget(corpora: list[TokenizedCorpus]) -> None:
    for pairs in epoch_batches(corpora, batch_tokens=200, seed=1, epoch=0):
        batch = assemble(corpora, pairs)
        assert max(batch.source_ids.size, batch.target_ids.size) <= 200


@pytest.mark.parametrize("batch_tokens", [2048, 16384])
def test_less_than_a_tenth_of_either_side_is_padding(batch_tokens: int) -> None:
    corpus = corpus_of_lengths(*realistic_lengths(150_000))
    batches = [assemble([corpus], pairs) for pairs in epoch_batches([corpus], batch_tokens, seed=1, epoch=0)]
    for side in ("source_ids", "target_ids"):
        padding = sum(int((getattr(batch, side) == PAD_ID).sum()) for batch in batches)
        assert padding < 0.1 * sum(getattr(batch, side).size for batch in batches)


def test_batches_take_as_many_pairs_as_they_may_hold() -> None:
    source, target = realistic_lengths(20_000)
    batches = epoch_batches([corpus_of_lengths(source, target)], 2048, seed=1, epoch=0)
    longer = np.maximum(source, target) + 1
    full = [len(batch) * longer[batch[:, 1]].max() > 2048 - longer.max() for batch in batches]
    assert sum(full) > 0.95 * len(full)  # the last of a pool holds what is left


def test_epochs_differ_but_each_can_be_made_again(corpora: list[TokenizedCorpus]) -> None:
    def batches(seed: int, epoch: int) -> list[object]:
        return [batch.tolist() for batch in epoch_batches(corpora, 200, seed, epoch)]

    assert batches(seed=1, epoch=0) == batches(seed=1, epoch=0)
    assert batches(seed=1, epoch=0) != batches(seed=1, epoch=1)
    assert batches(seed=1, epoch=0) != batches(seed=2, epoch=0)


def test_a_batch_is_padded_with_the_marks_in_their_places(corpora: list[TokenizedCorpus]) -> None:
    batch = assemble(corpora, [(0, 0), (0, 4), (1, 2)])
    for row, length in enumerate(batch.source_lengths):
        assert batch.source_ids[row, length - 1] == EOS_ID
        assert (batch.source_ids[row, length:] == PAD_ID).all()
    for inputs, targets in zip(batch.target_input_ids, batch.target_ids, strict=True):
        length = int((targets != PAD_ID).sum())
        assert inputs[0] == BOS_ID and targets[length - 1] == EOS_ID
        np.testing.assert_array_equal(inputs[1:length], targets[: length - 1])
