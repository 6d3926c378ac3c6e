import random
import time

import pytest
import sentencex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.errors import StreamInvalid
from service.segmentation import GAP_CHARACTERS, WINDOW_CHARACTERS, Segmenter, Sentence

_BITS = [
    *"aZ é中。！？.!?,;:-–—*>#\"'“”()[]1\t\n\r\v\f\x85\u2028\u2029\xa0\u3000\ufeff\u200b\u0301\u200d😀🇫🇷|।",
    "\r\n",
    "\n\n",
    "\r\n\r\n",
    "Mr. ",
    "J.\xa0Smith",
    "e.g. ",
    "1. ",
    "- ",
    "a) ",
    "The house is small. ",
    "One word",
    " word" * 9,
]
texts = st.lists(st.sampled_from(_BITS) | st.characters(codec="utf-8"), max_size=60).map("".join)
languages = st.sampled_from(["en", "fr", "zh", "ja", "de", "ru", "ar", "hi", "my", "th", "pt-BR", "x-none", ""])
_TWO_SENTENCES = 'Dr. Smith paid $3.50 to J.\xa0Doe. "Really?" she asked.'


def fits(text: str) -> bool:
    return len(text) <= 40


def cut(document: str, places: tuple[int, ...] = (), language: str = "en") -> tuple[list[Sentence], str]:
    """The sentences of a document that arrives in chunks, and what follows the last one."""
    segmenter = Segmenter(language, fits)
    edges = [0, *sorted(place % (len(document) + 1) for place in places), len(document)]
    sentences: list[Sentence] = []
    for start, end in zip(edges, edges[1:], strict=False):
        sentences += segmenter.feed(document[start:end])
    sentences += segmenter.finish()
    assert segmenter.sentences == len(sentences)
    return sentences, segmenter.after


def joined(sentences: list[Sentence], after: str) -> str:
    return "".join(sentence.before + sentence.text for sentence in sentences) + after


@settings(deadline=None, max_examples=300)
@given(texts, st.lists(st.integers(0, 10**6), max_size=12), languages)
@example(f"{_TWO_SENTENCES}\r\n\r\n- one\r\n- two\r", [55, 56, 57, 58], "en")
def test_how_a_document_is_cut_into_chunks_changes_nothing(document: str, places: list[int], language: str) -> None:
    assert cut(document, tuple(places), language) == cut(document, (), language)


@settings(deadline=None, max_examples=300)
@given(texts, languages)
def test_nothing_of_a_document_is_lost(document: str, language: str) -> None:
    assert joined(*cut(document, (), language)) == document


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(texts, st.integers(1, 900)), max_size=6), st.lists(st.integers(0, 10**6), max_size=12))
def test_lines_longer_than_a_window_keep_the_same_promises(bits: list[tuple[str, int]], places: list[int]) -> None:
    document = "".join(text * times for text, times in bits)[: 5 * WINDOW_CHARACTERS]
    sentences, after = cut(document)
    assert joined(sentences, after) == document
    assert cut(document, tuple(places)) == (sentences, after)


@settings(deadline=None, max_examples=200)
@given(texts)
def test_spans_are_those_of_the_document_in_every_unit(document: str) -> None:
    for sentence in cut(document)[0]:
        span = sentence.span
        assert document[span.start_code_point : span.end_code_point] == sentence.text
        assert document.encode()[span.start_byte : span.end_byte] == sentence.text.encode()
        utf16 = document.encode("utf-16-le")[2 * span.start_utf16 : 2 * span.end_utf16]
        assert utf16 == sentence.text.encode("utf-16-le")


@settings(deadline=None, max_examples=200)
@given(texts, languages)
def test_the_model_gets_no_white_space_at_the_ends_no_line_break_and_nothing_without_a_word(
    document: str, language: str
) -> None:
    for sentence in cut(document, (), language)[0]:
        assert sentence.text == sentence.text.strip()
        assert len(sentence.text.splitlines()) == 1 or not set(sentence.text) & set("\n\r\v\f\x85\u2028\u2029")
        assert any(character.isalnum() for character in sentence.text)
        assert fits(sentence.text)


def test_sentences_lists_quotations_and_paragraphs_are_told_apart() -> None:
    document = (
        f"\ufeffTitle\r\n\r\n{_TWO_SENTENCES}\r\n"
        "  - item one. And more.\r\n  2) item two\r\n> - [x] quoted\r\n \t\r\n* * *\r\n\r\n-5 is cold  \r\n"
    )
    sentences, after = cut(document)
    assert [(sentence.paragraph, sentence.before, sentence.text) for sentence in sentences] == [
        (0, "\ufeff", "Title"),
        (1, "\r\n\r\n", "Dr. Smith paid $3.50 to J.\xa0Doe."),
        (1, " ", '"Really?" she asked.'),
        (1, "\r\n  - ", "item one."),
        (1, " ", "And more."),
        (1, "\r\n  2) ", "item two"),
        (1, "\r\n> - [x] ", "quoted"),
        (2, "\r\n \t\r\n* * *\r\n\r\n", "-5 is cold"),
    ]
    assert after == "  \r\n"
    assert [sentence.sequence_id for sentence in sentences] == [*range(1, 9)]


@pytest.mark.parametrize(
    ("language", "document", "expected"),
    [
        ("zh", "你好。我是学生！你呢？", ["你好。", "我是学生！", "你呢？"]),
        ("zh-Hant", "你好。我是學生！", ["你好。", "我是學生！"]),
        ("ja", "「そうです。」と言った。はい。", ["「そうです。」", "と言った。", "はい。"]),
        ("ar", "مرحبا؟ نعم.", ["مرحبا؟", "نعم."]),
        ("pt-BR", "Sr. Silva chegou. Ele viu.", ["Sr. Silva chegou.", "Ele viu."]),
        ("de", "Das ist z. B. Dr. Huber. Ja!", ["Das ist z. B. Dr. Huber.", "Ja!"]),
        ("x-digits", "Mr. Doe left. I know.", ["Mr. Doe left.", "I know."]),
    ],
)
def test_a_line_is_cut_by_the_rules_of_its_language(language: str, document: str, expected: list[str]) -> None:
    assert [sentence.text for sentence in cut(document, (), language)[0]] == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("one two three four, five six seven eight nine ten", ["one two three four,", "five six seven eight nine ten"]),
        ("one two three four five six seven eight nine", ["one two three four five", "six seven eight nine"]),
        ("今天天气很好，" * 7, ["今天天气很好，" * 3, "今天天气很好，" * 4]),
        ("a" * 50, ["a" * 25, "a" * 25]),
        ("e\u0301" * 22 + "x", ["e\u0301" * 11, "e\u0301" * 11 + "x"]),
        ("👨‍👩‍👧a" * 9, ["👨‍👩‍👧a" * 4 + "👨‍👩‍👧", "a" + "👨‍👩‍👧a" * 4]),
        ("e" + "\u0301" * 60, ["e" + "\u0301" * 29]),  # of one character, too long by itself
    ],
)
def test_what_is_too_long_for_the_model_is_cut_at_the_best_place_near_its_middle(
    document: str, expected: list[str]
) -> None:
    assert [sentence.text for sentence in cut(document)[0]][: len(expected)] == expected


def test_what_even_one_character_of_is_too_long_comes_as_it_is_to_be_refused() -> None:
    segmenter = Segmenter("en", lambda text: False)
    assert [sentence.text for sentence in [*segmenter.feed("ab"), *segmenter.finish()]] == ["a", "b"]


def test_a_line_without_end_needs_no_memory_without_end() -> None:
    segmenter = Segmenter("en", lambda text: len(text) < 400)
    held = 0
    sentences = 0
    for _ in range(300):
        for chunk in ("This is a sentence. " * 40, "word " * 200, "x" * 1000):
            sentences += len(list(segmenter.feed(chunk)))
            held = max(held, len(segmenter._rest))
    assert sentences > 300 * 40
    assert held < WINDOW_CHARACTERS


def test_a_gap_too_long_for_one_message_is_refused() -> None:
    segmenter = Segmenter("en", fits)
    list(segmenter.feed("One."))
    with pytest.raises(StreamInvalid, match="more than 1048576 characters in a row with nothing to translate"):
        for _ in range(GAP_CHARACTERS // 1000 + 1):
            list(segmenter.feed(" " * 999 + "\n"))


def test_lines_without_a_word_are_no_work_for_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def segment(language: str, line: str) -> list[str]:
        seen.append(line)
        return [line]

    monkeypatch.setattr(sentencex, "segment", segment)
    document = "\n***\n" * 50 + "_ _" * WINDOW_CHARACTERS + "\r\n(One)\r\n\u2014 \u2014\n- Two.\n...\n"
    sentences, after = cut(document, (7, 99, 5000))
    assert seen == ["(One)", "Two."] == [sentence.text for sentence in sentences]
    assert joined(sentences, after) == document


def test_a_quotation_after_a_long_line_of_signs_keeps_its_mark() -> None:
    [sentence], _ = cut("*" * (2 * WINDOW_CHARACTERS) + " \u201cReally?\u201d")
    assert sentence.text.endswith("\u201cReally?\u201d")


def test_text_that_makes_the_library_panic_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    PanicException = type("PanicException", (BaseException,), {})

    def panicking(language: str, line: str) -> list[str]:
        raise PanicException

    monkeypatch.setattr(sentencex, "segment", panicking)
    assert [sentence.text for sentence in cut("One here. Two.")[0]] == ["One here. Two."]


def test_hostile_lines_take_no_time_to_speak_of() -> None:
    generator = random.Random(4)
    lines = ["“" * 100_000, ". " * 50_000, "1. " * 30_000, "\u0301" * 100_000, "(" * 100_000, "a" * 200_000]
    lines.append("".join(generator.choices("“(\"'. a", k=100_000)))
    lines += [wordless * 250_000 for wordless in ("*\n", ".\r\n", "--\u2028")] + ["*" * 500_000]
    for line in lines:
        began = time.perf_counter()
        assert joined(*cut(line)) == line
        assert time.perf_counter() - began < 5
