"""What the service is asked: every call of the proto in realistic shares, from a seed, wrong requests among them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import Message

from service.pb import interlinear_pb2 as pb

_WHO = ("My sister", "The old man", "Nobody", "Our neighbor", "A young teacher", "Tom", "She", "The whole family")
_DID = ("bought", "has seen", "wanted to sell", "was looking for", "forgot", "can't find", "used to love", "needs")
_WHAT = ("a small house", "24 books", "the red car", "some bread", "his umbrella", "an answer", "the garden", "work")
_WHEN = ("yesterday", "last week", "in the morning", "before summer", "at noon", "again", "for ten years", "today")

_WORDS = pb.ALIGNMENT_DETAIL_WORDS
_PIECES = pb.ALIGNMENT_DETAIL_PIECES


@dataclass(frozen=True, eq=False)
class Question:
    """One call to make.

    Attributes:
        method: Name of the call in the proto.
        messages: The request; for a call that takes a stream, all of its messages.
    """

    method: str
    messages: tuple[Message, ...]


Maker: TypeAlias = Callable[[random.Random], Question]


def sentence(chance: random.Random) -> str:
    """Return an English sentence; there are four thousand."""
    who, did, what, when = (chance.choice(part) for part in (_WHO, _DID, _WHAT, _WHEN))
    return f"{who} {did} {what} {when}."


def document(chance: random.Random) -> str:
    """Return a few short paragraphs."""
    paragraphs = (" ".join(sentence(chance) for _ in range(chance.randint(1, 3))) for _ in range(chance.randint(1, 3)))
    return "\n\n".join(paragraphs)


def questions(count: int, seed: int) -> list[Question]:
    """Return ``count`` questions of all kinds in their shares; equal seeds give equal questions."""
    chance = random.Random(seed)
    makers, shares = zip(*_SHARES, strict=True)
    return [maker(chance) for maker in chance.choices(makers, shares, k=count)]


def one_of_each(seed: int) -> list[Question]:
    """Return one question of each kind."""
    chance = random.Random(seed)
    return [maker(chance) for maker, _ in _SHARES]


def _translate(beam_size: int = 4, texts: int = 1, **more: Any) -> Maker:
    def make(chance: random.Random) -> Question:
        options = pb.DecodingOptions(beam_size=beam_size)
        sentences = [sentence(chance) for _ in range(texts)]
        return Question("Translate", (pb.TranslateRequest(texts=sentences, options=options, **more),))

    return make


def _explain(chance: random.Random) -> Question:
    return Question("Explain", (pb.ExplainRequest(text=sentence(chance)),))


def _explain_given(chance: random.Random) -> Question:
    views = [pb.EXPLANATION_VIEW_SHARES, pb.EXPLANATION_VIEW_STATES]
    return Question("Explain", (pb.ExplainRequest(text=sentence(chance), target="La maison est ici.", views=views),))


def _what_if(chance: random.Random) -> Question:
    change = pb.Intervention(masked_source_words=[chance.randint(0, 3)])
    return Question("WhatIf", (pb.WhatIfRequest(text=sentence(chance), intervention=change),))


def _contrast(chance: random.Random) -> Question:
    target, alternative = "La maison est petite.", chance.choice(("grande", "rouge", "ici"))
    asked = pb.ContrastRequest(text=sentence(chance), target=target, target_word=3, alternative=alternative)
    return Question("Contrast", (asked,))


def _alternatives(chance: random.Random) -> Question:
    return Question("ListAlternatives", (pb.ListAlternativesRequest(text=sentence(chance), target_word=0, limit=3),))


def _tokens(chance: random.Random) -> Question:
    options = pb.DecodingOptions(beam_size=chance.choice((1, 4)))
    return Question("StreamTokens", (pb.StreamTokensRequest(text=sentence(chance), options=options),))


def _document(chance: random.Random) -> Question:
    text = document(chance)
    cut = chance.randrange(len(text))
    options = pb.DocumentOptions(options=pb.DecodingOptions(beam_size=2))
    parts = [pb.TranslateStreamRequest(text=part) for part in (text[:cut], text[cut:])]
    return Question("TranslateStream", (pb.TranslateStreamRequest(options=options), *parts))


def _models(chance: random.Random) -> Question:
    asked = chance.choice((("ListModels", pb.ListModelsRequest()), ("GetModel", pb.GetModelRequest())))
    return Question(asked[0], (asked[1],))


def _wrong(chance: random.Random) -> Question:
    """Return a request that is refused for what it is."""
    text = sentence(chance)
    wrong: Sequence[tuple[str, Message]] = (
        ("Translate", pb.TranslateRequest()),
        ("Translate", pb.TranslateRequest(texts=[text, "", "\0"])),
        ("Translate", pb.TranslateRequest(texts=[text], model="nobody")),
        ("Translate", pb.TranslateRequest(texts=[text], target_language_code="de")),
        ("Translate", pb.TranslateRequest(texts=[text], options=pb.DecodingOptions(beam_size=99))),
        ("Explain", pb.ExplainRequest(text=text, target="")),
        ("Explain", pb.ExplainRequest(text=text * 100)),
        ("Contrast", pb.ContrastRequest(text=text, target_word=-1, alternative="ici")),
        ("WhatIf", pb.WhatIfRequest(text=text, intervention=pb.Intervention(masked_source_words=[999]))),
        ("StreamTokens", pb.StreamTokensRequest(text=text, options=pb.DecodingOptions(length_penalty=-1.0))),
        ("TranslateStream", pb.TranslateStreamRequest(text=text)),
    )
    method, message = chance.choice(wrong)
    return Question(method, (message,))


_SHARES: Sequence[tuple[Maker, float]] = (
    (_translate(beam_size=1), 26),
    (_translate(), 18),
    (_translate(alignment=_WORDS), 6),
    (_translate(beam_size=1, alignment=_PIECES, guard=pb.TRANSLATION_GUARD_REPORT), 4),
    (_translate(guard=pb.TRANSLATION_GUARD_RETRY), 4),
    (_translate(beam_size=1, texts=8), 4),
    (_explain, 5),
    (_explain_given, 2),
    (_what_if, 3),
    (_contrast, 3),
    (_alternatives, 2),
    (_tokens, 8),
    (_document, 5),
    (_models, 3),
    (_wrong, 7),
)
