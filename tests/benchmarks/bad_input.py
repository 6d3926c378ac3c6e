"""Text to try the guard on: held-out pairs that should translate well, and everything else that callers send.

Random, but the same in every run. Read from ``../shared/data``; docs/data.md says where to get the same files.
"""

import gzip
import random
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle.tokenizer import Tokenizer

DATA = Path("../shared/data")
_SETS = DATA / "testsets"
_EACH = 200  # texts of a kind of bad input
_LONGEST = 100  # tokens
_GOODS = "apples pears plums cherries bananas lemons grapes peaches potatoes carrots onions leeks beans peas".split()
_SCRAPS = (
    ". ? ! ... - 1 a I OK Yes No. Hi x * \" ' () — … 0 A. B & Oh So? Go % $5 € 1. II Mr. e.g. N/A tbd 1) - !!! ???"
).split()
_LOOPS = ("ha", "no", "bla", "la", "1", "!", "I love you", "really,", "again and", "very very good")
_HEADINGS = (
    "CHAPTER I",
    "TABLE OF CONTENTS",
    "ALL RIGHTS RESERVED",
    "HOW TO INSTALL THE SOFTWARE",
    "WARNING: HIGH VOLTAGE",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
)


@dataclass(frozen=True)
class Kind:
    """Texts of one kind.

    Attributes:
        name: What they are.
        texts: The sources.
        references: Their translations; empty where there are none.
    """

    name: str
    texts: list[str]
    references: list[str]


def pairs() -> Iterator[Kind]:
    """Yield held-out text of the domain, then good text of other domains, with references."""
    chance = random.Random(1)
    with gzip.open(DATA / "europarl-en-fr" / "test.tsv.gz", "rt", encoding="utf-8") as lines:
        yield _kind("Europarl test", [tuple(line.rstrip("\n").split("\t")[:2]) for line in lines])
    tatoeba = _aligned("tatoeba/tatoeba-test-v2020-07-28.eng-fra.eng", "tatoeba/tatoeba-test-v2020-07-28.eng-fra.fra")
    yield _kind("Tatoeba test", chance.sample(tatoeba, 2000))
    yield _kind("newstest2014", _aligned("wmt/newstest2014.eng-fra.eng", "wmt/newstest2014.eng-fra.fra")[:1000])
    flores = _aligned("flores200-devtest/eng_Latn.devtest", "flores200-devtest/fra_Latn.devtest")
    yield _kind("FLORES devtest", flores[:500])


def bad_input(tokenizer: Tokenizer, good: Mapping[str, Kind]) -> Iterator[Kind]:
    """Yield what no model translates well, made in part of the sentences of ``good``, by name."""
    chance = random.Random(2)
    plain = [text for text in good["Tatoeba test"].texts if 5 <= len(text.split()) <= 14]
    speech = [text for text in good["Europarl test"].texts if 10 <= len(text.split()) <= 30]
    words = sorted({word for text in plain for word in text.split() if word.isalpha()})

    def letters(most: int) -> str:
        return "".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, most)))

    def shuffled(text: str) -> str:
        return " ".join(chance.sample(text.split(), len(text.split())))

    def made(name: str, texts: Iterator[str]) -> Kind:
        return Kind(name, [text for text, _ in zip(texts, range(_EACH), strict=False)], [])

    def url() -> str:
        return f"https://{letters(10)}.{chance.choice(['com', 'fr'])}/{letters(9)}/{letters(9)}?id={_number(chance)}"

    def forever(text: Callable[[], str]) -> Iterator[str]:
        while True:
            yield text()

    vocabulary = range(4, tokenizer.vocabulary_size)
    yield made("random letters", forever(lambda: " ".join(letters(9) for _ in range(chance.randint(3, 12)))))
    yield made("random tokens", forever(lambda: tokenizer.decode(chance.sample(vocabulary, chance.randint(4, 30)))))
    yield made("shuffled words", forever(lambda: shuffled(chance.choice(chance.choice([plain, speech])))))
    yield made("one word repeated", forever(lambda: " ".join([chance.choice(words)] * chance.randint(5, 40))))
    yield made("a phrase repeated", forever(lambda: " ".join(chance.choice(plain).split()[:3] * chance.randint(4, 12))))
    yield made("a sentence repeated", forever(lambda: " ".join([chance.choice(plain)] * chance.randint(2, 5))))
    yield made("very long", forever(lambda: _very_long(tokenizer, chance, speech)))
    for name, files in (
        ("German", ("tatoeba/tatoeba-test-v2021-08-07.deu-eng.deu", "wmt/newstest2014.eng-deu.deu")),
        ("Chinese", ("tatoeba/tatoeba-test-v2020-07-28.eng-zho.zho", "flores200-devtest/zho_Hans.devtest")),
    ):
        lines = [line for file in files for line in chance.sample(_lines(file), _EACH // 2)]
        yield Kind(name, lines, [])
    french = [chance.sample(good[name].references, _EACH // 2) for name in ("Tatoeba test", "Europarl test")]
    yield Kind("French", [*french[0], *french[1]], [])
    yield made("URLs", forever(lambda: f"{chance.choice(plain)} {url()} {chance.choice(['', url()])}".strip()))
    yield made("numbers", forever(lambda: " ".join(_number(chance) for _ in range(chance.randint(2, 12)))))
    yield Kind("next to nothing", _SCRAPS, [])
    yield Kind("invites loops", [*_invitations(), *_HEADINGS, *(text.upper() for text in chance.sample(plain, 40))], [])


def _kind(name: str, aligned: list[tuple[str, ...]]) -> Kind:
    sources, references = (list(side) for side in zip(*aligned, strict=True))
    return Kind(name, sources, references)


def _lines(file: str) -> list[str]:
    return [line for line in (_SETS / file).read_text("utf-8").split("\n") if line.strip()]


def _aligned(source: str, target: str) -> list[tuple[str, ...]]:
    return list(zip(_lines(source), _lines(target), strict=True))


def _very_long(tokenizer: Tokenizer, chance: random.Random, sentences: list[str]) -> str:
    """Return as many sentences as fit into one text."""
    text = longer = chance.choice(sentences)
    while len(tokenizer.encode_ids(longer)) < _LONGEST:
        text, longer = longer, f"{longer} {chance.choice(sentences)}"
    return text


def _number(chance: random.Random) -> str:
    number = chance.randrange(10 ** chance.randint(1, 9))
    return chance.choice(
        [f"{number}", f"{number / 100:.2f}", f"{number:,}", f"{number % 100} %", f"12/3/{number % 2030}"]
    )


def _invitations() -> Iterator[str]:
    for times in (5, 12, 20, 30):
        for text in _LOOPS:
            yield " ".join([text] * max(times // len(text.split()), 3))
        yield ", ".join(string.ascii_lowercase[:times])
        yield ", ".join(map(str, range(1, times)))
        yield f"We sell {', '.join(_GOODS[:times])}."
        yield f"Buy {' and '.join(_GOODS[:times])}."
