"""The kind of word each token of a text belongs to, for figures that differ between kinds.

Function words are those on the stop-word list of the language (package ``stopwordsiso``, 58 languages). The lists are
generous, so some frequent content words count as function words; docs/fidelity.md says how many. Where words are
written without spaces between them, a word here is a run of characters, and few runs are on a list.
"""

from collections.abc import Sequence
from enum import StrEnum

import stopwordsiso

from bundle.tokenizer import Tokenizer


class WordClass(StrEnum):
    """What a token is part of; ``WORD`` stands for function and content where the language has no list."""

    FUNCTION = "function"
    CONTENT = "content"
    WORD = "word"
    PUNCTUATION = "punctuation"
    END_OF_SENTENCE = "end_of_sentence"


def function_words(language: str) -> frozenset[str]:
    """Return the function words of a BCP-47 tag, in lower case; none where there is no list."""
    return frozenset(word.casefold() for word in stopwordsiso.stopwords(language.partition("-")[0]))


def word_classes(tokenizer: Tokenizer, token_ids: Sequence[int], functions: frozenset[str]) -> list[WordClass]:
    """Return the class of every token of a translation; white space alone counts as punctuation."""
    text = tokenizer.decode_with_spans(token_ids)
    words = [_word_class(word.text, functions) for word in text.words]
    found = iter(
        WordClass.PUNCTUATION if piece.word_index is None else words[piece.word_index] for piece in text.pieces
    )
    return [WordClass.END_OF_SENTENCE if token_id == tokenizer.eos_id else next(found) for token_id in token_ids]


def _word_class(word: str, functions: frozenset[str]) -> WordClass:
    if not any(map(str.isalnum, word)):
        return WordClass.PUNCTUATION
    if not functions:
        return WordClass.WORD
    spelling = word.casefold().replace("\u2019", "'").rstrip("'")  # the lists have "l", not "l'"
    return WordClass.FUNCTION if spelling in functions else WordClass.CONTENT
