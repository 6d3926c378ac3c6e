import unicodedata

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from training.config import VocabularyConfig
from training.errors import TrainingError
from training.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID, train_vocabulary

SENTENCES = [
    "Où est l'école ? Elle est là-bas, près de la gare.",
    "The school is over there, near the station.",
    "J'aime bien cet été 2024 !",
    "I rather like this summer of 2024!",
] * 5


@pytest.fixture(scope="module")
def processor() -> sentencepiece.SentencePieceProcessor:
    model = train_vocabulary(SENTENCES, VocabularyConfig(size=90, character_coverage=1.0), seed=1)
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("l\u2019\u00e9cole", "l'école"),
        ("O\u00f9\u202f?", "Où ?"),
        ("O\u00f9\u00a0?", "Où ?"),
        ("e\u0301te\u0301", "été"),
        ("\ufb01n", "fin"),
        ("co\u00adop\u200bérer", "coopérer"),
        ("a\tb\nc", "a b c"),
        ("  a   b ", "a b"),
        ("…", "..."),
    ],
)
def test_typographic_variants_are_read_as_one(
    processor: sentencepiece.SentencePieceProcessor, written: str, read: str
) -> None:
    assert processor.normalize(written).replace("▁", " ").strip() == read


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn", "Co", "Cc"], max_codepoint=0x2FFF), max_size=8))
def test_both_unicode_forms_of_a_text_give_the_same_ids(
    processor: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    if unicodedata.normalize("NFC", decomposed) != composed or _has_stacked_marks(decomposed):
        return  # marks in more than one order are read as they stand
    assert processor.encode(composed) == processor.encode(decomposed)


def test_special_ids_are_the_declared_ones(processor: sentencepiece.SentencePieceProcessor) -> None:
    found = (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
    assert found == (PAD_ID, UNK_ID, BOS_ID, EOS_ID)


def test_numbers_are_spelled_digit_by_digit(processor: sentencepiece.SentencePieceProcessor) -> None:
    pieces = processor.encode("2024", out_type=str)
    assert [piece for piece in pieces if piece != "▁"] == ["2", "0", "2", "4"]


def test_the_same_text_and_seed_give_the_same_vocabulary() -> None:
    config = VocabularyConfig(size=90, character_coverage=1.0)
    assert train_vocabulary(SENTENCES, config, seed=3) == train_vocabulary(SENTENCES, config, seed=3)


def test_a_vocabulary_larger_than_the_text_is_refused() -> None:
    with pytest.raises(TrainingError, match="vocabulary of 9000 pieces"):
        train_vocabulary(SENTENCES, VocabularyConfig(size=9000), seed=1)


def _has_stacked_marks(text: str) -> bool:
    marks = [unicodedata.combining(character) > 0 for character in text]
    return any(first and second for first, second in zip(marks, marks[1:], strict=False))
