"""Spans into the original text, on a small SentencePiece model trained here the way training does."""

import io
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.errors import InvalidBundle, InvalidText
from bundle.tokenizer import Piece, TokenizedText, Tokenizer, Word, with_words

SENTENCES = """
the cat sat on the mat and the dog sat by the door
l'homme est venu hier avec l'eau et l'huile
fine finesse of the first office, waffles and a final offer
what a day it is today; it's the day that I don't forget
aujourd'hui, qu'est-ce que c'est? c'est l'été et il fait très chaud!
good morning, how are you? I'm fine, thanks...
un garçon français a mangé 3,5 kg de pâté à 10 h 30
""".strip().splitlines()

SHIPPED = Path(__file__).parent.parent.parent / "service" / "bundles" / "en-fr" / "tokenizer.model"
REMOVED = ("\u00ad", "\u200b", "\u200c", "\u2060", "\ufeff")
REPLACED = {"\u2019": "'", "\u02bc": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\n": " ", "\t": " "}


def normalization_rules() -> str:
    """The rules of training in small: NFKC, one apostrophe, one space, nothing invisible."""
    rules = dict(REPLACED) | dict.fromkeys(REMOVED, "")
    for code_point in [*range(0xA0, 0x250), *range(0x2000, 0x2100), *range(0xFB00, 0xFB07)]:
        character = chr(code_point)
        if character not in rules and (folded := unicodedata.normalize("NFKC", character)) != character:
            rules[character] = folded
    for composed in "éèàùêîôûëïç":
        rules[unicodedata.normalize("NFD", composed)] = composed
    lines = (f"{' '.join(f'{ord(c):X}' for c in k)}\t{' '.join(f'{ord(c):X}' for c in v)}\n" for k, v in rules.items())
    return "".join(lines)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    rules = tmp_path_factory.mktemp("rules") / "rules.tsv"
    rules.write_text(normalization_rules())
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=120,
        normalization_rule_tsv=str(rules),
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    return Tokenizer(SHIPPED)


@pytest.fixture(scope="module")
def single() -> Tokenizer:
    """Each character that is not a Latin letter is a piece, so that pieces join nothing; some are two."""
    alphabet = "".join(chr(code) for code in [*range(0x4E00, 0x4E40), *range(0x300, 0x310), *range(0x1F1E6, 0x1F200)])
    alphabet += "日本語猫👩💻👍🏽🏳🌈\ufe0f\u200d\u20e3#!.ไทยกเ"
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SENTENCES * 4, *alphabet]),
        model_writer=model,
        model_type="bpe",
        vocab_size=260,
        character_coverage=1.0,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())


@pytest.fixture(params=["tokenizer", "shipped", "single"])
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found: Tokenizer = request.getfixturevalue(request.param)
    return found


def words(text: TokenizedText) -> list[str]:
    return [word.text for word in text.words]


def check_spans(tokenized: TokenizedText) -> None:
    """Every span says the same place in all three units, in order, and words and pieces agree on who holds whom."""
    text, utf8, utf16 = tokenized.text, tokenized.text.encode(), tokenized.text.encode("utf-16-le")
    items: list[Piece | Word] = [*tokenized.pieces, *tokenized.words]
    for item in items:
        span = item.span
        assert text[span.start_code_point : span.end_code_point] == item.text
        assert utf8[span.start_byte : span.end_byte].decode() == item.text
        assert utf16[2 * span.start_utf16 : 2 * span.end_utf16].decode("utf-16-le") == item.text
    ends = [0]
    for piece in tokenized.pieces:
        assert ends[-1] <= piece.span.start_code_point <= piece.span.end_code_point <= len(text)
        assert piece.zero_width == (piece.text == "")
        ends.append(piece.span.end_code_point)
    places = [(word.span.start_code_point, word.span.end_code_point) for word in tokenized.words]
    assert places == sorted(places) and all(a[1] <= b[0] for a, b in zip(places, places[1:], strict=False))
    for index, word in enumerate(tokenized.words):
        assert word.piece_indices and word.text.strip()
        assert [tokenized.pieces[i].word_index for i in word.piece_indices] == [index] * len(word.piece_indices)
        inside = [tokenized.pieces[i].span for i in word.piece_indices if not tokenized.pieces[i].zero_width]
        assert inside and word.span.start_byte <= inside[0].start_byte and inside[-1].end_byte <= word.span.end_byte
    held = [i for word in tokenized.words for i in word.piece_indices]
    assert held == [i for i, piece in enumerate(tokenized.pieces) if piece.word_index is not None]


def survivors(text: str) -> set[int]:
    """The code points of ``text`` that are neither white space, as U+2581 is here, nor removed by normalization."""
    return {
        i
        for i, c in enumerate(text)
        if not c.isspace() and c not in REMOVED and c != "\u2581" and unicodedata.category(c) != "Cf"
    }


PRINTABLE = st.characters(exclude_categories=["Cs", "Cc"])
SEQUENCES = st.sampled_from(  # what one reader's character can be made of
    ["👩\u200d💻", "👍🏽", "🇫🇷", "🇩🇪", "#\ufe0f\u20e3", "🏳\ufe0f\u200d🌈", "🏴\U000e0067\U000e0062\U000e007f"]
    + ["e\u0301", "\u0928\u093f", "\u1112\u1161\u11ab", "\u05e9\u05c1", "ﬁ", "ﷺ", "½", "…", "日本", "ไทย", "\u2581"]
    + ["l'", "l’", "'s", "a-", "3,", " ", "\u202f", "\u00ad", "\u200b", "\u202b", "\u202c", "\u0301", "\u200d"]
)
texts = st.one_of(st.text(PRINTABLE), st.lists(st.one_of(SEQUENCES, PRINTABLE), max_size=12).map("".join))


def unparted(text: str, place: int) -> bool:
    """Whether one character of a reader's goes on at ``place``, by the rules of UAX 29 that need no tables."""
    before, after = text[place - 1], text[place]
    if before.isspace() or before == "\u2581":
        return False
    flags = 0
    while flags < place and "🇦" <= text[place - 1 - flags] <= "🇿":
        flags += 1
    tone, zwj = "\U0001f3fb" <= after <= "\U0001f3ff", before == "\u200d" and unicodedata.category(after) == "So"
    starts_with_joiner = zwj and (place < 2 or unicodedata.category(text[place - 2]) != "So")
    return (
        unicodedata.category(after)[0] == "M"
        or after == "\u200d"
        or tone
        or (zwj and not starts_with_joiner)
        or (flags % 2 == 1 and "🇦" <= after <= "🇿")
    )


@given(texts)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_word_is_what_its_span_says_whatever_the_text(any_tokenizer: Tokenizer, text: str) -> None:
    tokenized = any_tokenizer.encode(text)
    check_spans(tokenized)
    assert tokenized.token_ids == any_tokenizer.encode_ids(text)
    assert tokenized.blank == any_tokenizer.encode(text).blank == (not tokenized.words)
    silent = {any_tokenizer.pad_id, any_tokenizer.bos_id, any_tokenizer.eos_id}
    assert not silent & set(tokenized.token_ids)
    covered, worded = set[int](), set[int]()
    for piece in tokenized.pieces:
        covered.update(range(piece.span.start_code_point, piece.span.end_code_point))
    for word in tokenized.words:
        worded.update(range(word.span.start_code_point, word.span.end_code_point))
        start = word.span.start_code_point
        assert start == 0 or not unparted(text, start), f"{word.text!r} begins inside of a character"
    assert survivors(text) <= covered <= worded


@given(texts)
@settings(max_examples=200, deadline=None)
def test_words_of_the_shipped_bundle_are_found_again_in_what_it_decodes(shipped: Tokenizer, text: str) -> None:
    """What is decoded has the same words once more: an interlinear page shows both."""
    known = [i for i in shipped.encode_ids(text) if not shipped.is_unknown(i)]
    decoded = shipped.decode_with_spans(known)
    check_spans(decoded)
    assert decoded.token_ids == known
    assert words(shipped.encode(decoded.text)) == words(decoded)


@given(texts, st.data())
@settings(max_examples=200, deadline=None)
def test_pieces_go_under_words_that_others_have_cut(shipped: Tokenizer, text: str, data: st.DataObject) -> None:
    tokenized = shipped.encode(text)
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), min_size=2, max_size=6) if text else st.just({0})))
    stretches = list(zip(places, places[1:], strict=False))
    cut = with_words(tokenized, stretches)
    assert [word.text for word in cut.words] == [text[start:end] for start, end in stretches]
    for index, piece in enumerate(cut.pieces):
        last = piece.span.end_code_point - (not piece.zero_width)
        homes = [number for number, (_, end) in enumerate(stretches) if last < end]
        assert piece.word_index == (homes[0] if homes else None)
        assert [number for number, word in enumerate(cut.words) if index in word.piece_indices] == homes[:1]
    own = [(word.span.start_code_point, word.span.end_code_point) for word in tokenized.words]
    assert with_words(tokenized, own) == tokenized


@given(st.lists(st.integers(0, 119), max_size=12))
@settings(max_examples=150, deadline=None)
def test_decoded_spans_are_exact_with_one_piece_for_every_audible_token(tokenizer: Tokenizer, ids: list[int]) -> None:
    decoded = tokenizer.decode_with_spans(ids)
    check_spans(decoded)
    assert decoded.text == tokenizer.decode(ids) == decoded.text.strip()
    assert decoded.token_ids == [i for i in ids if i not in (0, 2, 3)]


@given(st.lists(st.sampled_from(" ".join(SENTENCES).split()), max_size=12))
@settings(max_examples=100, deadline=None)
def test_text_of_known_words_comes_back_from_its_ids(tokenizer: Tokenizer, chosen: list[str]) -> None:
    text = " ".join(chosen)
    tokenized = tokenizer.encode(text)
    decoded = tokenizer.decode_with_spans([2, *tokenized.token_ids, 3])
    assert decoded.text == text
    assert decoded == tokenized


def test_a_ligature_split_over_pieces_gives_its_span_to_the_last_and_nothing_to_the_first(tokenizer: Tokenizer) -> None:
    tokenized = tokenizer.encode("a…b")
    dots = [piece for piece in tokenized.pieces if "." in piece.piece]
    assert dots[-1].text == "…" and dots[-1].span.start_byte == 1 and dots[-1].span.end_byte == 4
    assert all(piece.zero_width and piece.span.start_byte == 1 for piece in dots[:-1])
    assert words(tokenized) == ["a", "…", "b"]


def test_a_ligature_inside_one_piece_is_covered_by_it(tokenizer: Tokenizer) -> None:
    tokenized = tokenizer.encode("the ﬁrst")
    assert words(tokenized) == ["the", "ﬁrst"]
    assert tokenized.token_ids == tokenizer.encode("the first").token_ids
    assert tokenized.words[1].span.end_byte == len("the ﬁrst".encode())


def test_astral_characters_count_two_utf16_units_and_four_bytes(tokenizer: Tokenizer) -> None:
    span = tokenizer.encode("😀 cat").words[1].span
    assert (span.start_byte, span.start_code_point, span.start_utf16) == (5, 2, 3)


def test_a_narrow_no_break_space_separates_and_belongs_to_no_word(tokenizer: Tokenizer) -> None:
    tokenized = tokenizer.encode("chaud\u202f!")
    assert words(tokenized) == ["chaud", "!"]
    assert tokenized.words[1].span.start_byte == len("chaud\u202f".encode())
    assert tokenized.token_ids == tokenizer.encode("chaud !").token_ids


def test_a_combining_accent_belongs_to_its_letter(tokenizer: Tokenizer) -> None:
    tokenized = tokenizer.encode("l'e\u0301te\u0301")
    assert words(tokenized) == ["l'", "e\u0301te\u0301"]
    assert tokenized.token_ids == tokenizer.encode("l'été").token_ids


def test_removed_characters_stay_inside_the_span_and_leave_the_ids_alone(tokenizer: Tokenizer) -> None:
    tokenized = tokenizer.encode("c\u00adat\u200b sat")
    assert tokenized.token_ids == tokenizer.encode("cat sat").token_ids
    assert [word.text for word in tokenized.words][1] == "sat"
    assert tokenized.words[0].text.startswith("c\u00adat")
    assert "".join(piece.text for piece in tokenizer.encode("cat \u200b sat").pieces) == "catsat"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("l'homme", ["l'", "homme"]),
        ("l’eau", ["l’", "eau"]),
        ("qu'est-ce que c'est?", ["qu'", "est-ce", "que", "c'", "est", "?"]),
        ("s'il", ["s'", "il"]),
        ("aujourd'hui", ["aujourd'hui"]),
        ("d'aujourd'hui", ["d'", "aujourd'hui"]),
        ("it's", ["it", "'s"]),
        ("I don't", ["I", "don", "'t"]),
        ("the dogs' door", ["the", "dogs", "'", "door"]),
        ("3,5 kg...", ["3,5", "kg", "..."]),
        ("fine, thanks!?", ["fine", ",", "thanks", "!", "?"]),
        ("'fine'", ["'", "fine", "'"]),
        ("a\u2581b", ["a", "b"]),
    ],
)
def test_words_are_what_a_reader_sees(tokenizer: Tokenizer, text: str, expected: list[str]) -> None:
    assert words(tokenizer.encode(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("猫猫日本語。", ["猫", "猫", "日", "本", "語", "。"]),
        ("3日 ไก", ["3", "日", "ไ", "ก"]),
        ("🇫🇷🇩🇪🇫🇷", ["🇫🇷", "🇩🇪", "🇫🇷"]),
        ("👩\u200d💻👍🏽!", ["👩\u200d💻", "👍🏽", "!"]),
        ("#\ufe0f\u20e3 !\u0301 l'\u0301eau", ["#\ufe0f\u20e3", "!\u0301", "l'\u0301", "eau"]),
    ],
)
def test_a_word_never_parts_what_a_reader_takes_for_one_character(
    single: Tokenizer, text: str, expected: list[str]
) -> None:
    assert words(single.encode(text)) == expected


def test_words_that_share_an_unknown_piece_are_one_word(tokenizer: Tokenizer) -> None:
    tokenized = tokenizer.encode("日本😀 cat")
    assert words(tokenized) == ["日本😀", "cat"]


@pytest.mark.parametrize("text", ["", "   ", "\u200b", "\u202f\u00a0"])
def test_text_without_anything_to_read_has_no_pieces(tokenizer: Tokenizer, text: str) -> None:
    tokenized = tokenizer.encode(text)
    assert tokenized == TokenizedText.of(text, (), ())


def test_control_names_in_the_text_are_text(tokenizer: Tokenizer) -> None:
    assert not {0, 2, 3} & set(tokenizer.encode("</s><s><pad>").token_ids)


def test_a_lone_surrogate_is_refused_with_its_place(tokenizer: Tokenizer) -> None:
    for call in (tokenizer.encode, tokenizer.encode_ids):
        with pytest.raises(InvalidText, match=r"U\+D800 at code point 3"):
            call("cat\ud800")


def test_a_nul_character_is_refused_with_its_place(tokenizer: Tokenizer) -> None:
    for call in (tokenizer.encode, tokenizer.encode_ids):
        with pytest.raises(InvalidText, match=r"NUL character, U\+0000 at code point 3"):
            call("cat\0s")


def test_unknown_pieces_are_known_as_such(tokenizer: Tokenizer) -> None:
    [piece] = [piece for piece in tokenizer.encode("cat 日").pieces if piece.text == "日"]
    assert tokenizer.is_unknown(piece.token_id) and piece.token_id == tokenizer.unk_id
    assert not tokenizer.is_unknown(tokenizer.eos_id)
    assert tokenizer.vocabulary_size == 120


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"junk")
    with pytest.raises(InvalidBundle, match="not a SentencePiece model"):
        Tokenizer(tmp_path / "tokenizer.model")
