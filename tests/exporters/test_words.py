import pytest

from bundle.tokenizer import Tokenizer
from exporters.words import WordClass, function_words, word_classes
from training.config import VocabularyConfig
from training.vocabulary import train_vocabulary

SENTENCE = "L'homme qu'il voit n'est pas d\u2019ici, Marie !"
EXPECTED = {
    "l": "function",
    "homme": "content",
    "qu": "function",
    "il": "function",
    "voit": "content",
    "n": "function",
    "est": "function",
    "pas": "function",
    "d": "function",
    "ici": "function",
    "marie": "content",
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    config = VocabularyConfig(size=60, character_coverage=1.0)
    return Tokenizer(train_vocabulary([SENTENCE, SENTENCE.lower()] * 40, config, 1))


def test_every_token_has_the_class_of_the_word_it_is_part_of(tokenizer: Tokenizer) -> None:
    token_ids = [*tokenizer.encode_ids(SENTENCE), tokenizer.eos_id]
    text = tokenizer.decode_with_spans(token_ids)
    classes = word_classes(tokenizer, token_ids, function_words("fr"))
    assert len(classes) == len(token_ids)
    assert classes[-1] is WordClass.END_OF_SENTENCE
    for piece, found in zip(text.pieces, classes, strict=False):
        word = "" if piece.word_index is None else text.words[piece.word_index].text.casefold().rstrip("'\u2019")
        assert found == EXPECTED.get(word, "punctuation"), word


def test_a_translation_that_was_cut_has_a_class_for_every_token_too(tokenizer: Tokenizer) -> None:
    token_ids = tokenizer.encode_ids(SENTENCE)[:5]
    assert len(word_classes(tokenizer, token_ids, function_words("fr"))) == 5


def test_without_a_list_words_are_words_and_nothing_is_made_up(tokenizer: Tokenizer) -> None:
    assert function_words("x-reversed") == frozenset()
    assert function_words("fr-CA") == function_words("fr") > {"le", "de"}
    classes = word_classes(tokenizer, tokenizer.encode_ids(SENTENCE), frozenset())
    assert set(classes) == {WordClass.WORD, WordClass.PUNCTUATION}
