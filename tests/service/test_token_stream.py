import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.tokenizer import Tokenizer
from service.client import Client
from service.errors import DeadlinePassed, SourceEmpty
from service.metrics import Metrics
from service.models.loading import loaded
from service.models.served_model import ServedModel
from service.pb import interlinear_pb2 as pb
from service.token_stream import GrowingText, told
from service.translation import Translation, TranslationOptions
from tests.service.edge import metric_value, settings_of

EMBEDDED = settings_of().bundle
TEXTS = (
    "The house is small, but the garden is big.",
    "Mr President, I should like to thank the rapporteur for 3.5 % and €20; it was a very good report.",
    "Where are you? I don't know.",
    "ok",
    "!",
    "zxqv zxqv zxqv zxqv zxqv zxqv",
)


@pytest.fixture
async def model(metrics: Metrics) -> AsyncIterator[ServedModel]:
    async with loaded(settings_of(), metrics) as model:
        yield model


def same(one: Translation, other: Translation) -> bool:
    """Bit by bit, but for how long it took and with whom it was made."""
    return replace(one, timings=other.timings, batch_size=other.batch_size) == other


@pytest.mark.parametrize("beam_size", [1, 2, 4, 16])
async def test_the_parts_are_the_text_of_the_translation_and_it_is_that_of_translate(
    model: ServedModel, beam_size: int
) -> None:
    for text in TEXTS:
        options = TranslationOptions(beam_size=beam_size)
        *parts, translation = [part async for part in told(model.translator, text, options, None)]
        assert isinstance(translation, Translation)
        assert "".join(map(str, parts)) == translation.hypotheses[0].text
        assert all(parts)
        assert same(translation, await model.translator.translate(text, options))


@pytest.mark.parametrize(("beam_size", "least"), [(1, 0.8), (4, 0.15)])
async def test_a_translation_is_told_before_its_end(model: ServedModel, beam_size: int, least: float) -> None:
    lengths = []
    for text in TEXTS[:3]:
        parts = [part async for part in told(model.translator, text, TranslationOptions(beam_size=beam_size), None)]
        texts = [part for part in parts if isinstance(part, str)]
        lengths.append(1 - len(texts[-1]) / len("".join(texts)))
    assert sum(lengths) / len(lengths) > least


async def test_streams_and_others_share_batches_and_change_nothing_for_each_other(model: ServedModel) -> None:
    options = TranslationOptions()

    async def streamed(text: str) -> Translation:
        *_, translation = [part async for part in told(model.translator, text, options, None)]
        assert isinstance(translation, Translation)
        return translation

    alone = [await model.translator.translate(text, options) for text in TEXTS]
    together = await asyncio.gather(
        *map(streamed, TEXTS), *(model.translator.translate(text, options) for text in TEXTS)
    )
    assert all(same(found, alone[index % len(TEXTS)]) for index, found in enumerate(together))
    assert max(translation.batch_size for translation in together) > 1


async def test_whoever_stops_listening_stops_the_search(model: ServedModel, metrics: Metrics) -> None:
    async with aclosing(told(model.translator, TEXTS[1], TranslationOptions(), None)) as parts:
        await anext(parts)
    assert metric_value(metrics, "interlinear_cancellations_total") == 1
    assert metric_value(metrics, "interlinear_sentences_total") == 0


async def test_what_is_wrong_with_a_text_is_told_before_anything_else(model: ServedModel) -> None:
    with pytest.raises(SourceEmpty):
        await anext(told(model.translator, " ", TranslationOptions(), None))
    with pytest.raises(DeadlinePassed):
        await anext(told(model.translator, "One.", TranslationOptions(), asyncio.get_running_loop().time() - 1))


async def test_over_grpc_the_parts_come_one_by_one(client: Client) -> None:
    request = pb.StreamTokensRequest(text="My father's car is older.", options=pb.DecodingOptions(beam_size=1))
    *parts, last = [reply async for reply in client.stream_tokens(request)]
    assert len(parts) > 1
    assert "".join(part.text for part in parts) == last.translation.hypotheses[0].text
    assert last.metadata.request_id and last.metadata.total_seconds > 0


class ByteTokenizer(Tokenizer):
    """A tokenizer with a token for each byte, as models with byte fallback have; every byte string decodes."""

    def __init__(self) -> None: ...

    def decode(self, token_ids: object) -> str:
        return bytes(token_ids).decode("utf-8", "replace").strip()  # type: ignore[call-overload, no-any-return]


@given(st.text(max_size=30), st.lists(st.integers(0, 120), max_size=8))
def test_a_character_in_several_tokens_is_told_when_it_is_whole(text: str, places: list[int]) -> None:
    growing = GrowingText(ByteTokenizer())
    token_ids = tuple(text.encode())
    parts = [growing.grow(token_ids[:place]) for place in sorted(place % (len(token_ids) + 1) for place in places)]
    assert "".join(parts) + growing.finish(text.strip()) == text.strip()


EMBEDDED_TOKENIZER = Tokenizer(EMBEDDED / "tokenizer.model")
ORDINARY = [
    token_id for token_id in range(EMBEDDED_TOKENIZER.vocabulary_size) if not EMBEDDED_TOKENIZER.is_unknown(token_id)
]


@given(st.lists(st.sampled_from(ORDINARY), max_size=20))
@settings(max_examples=300)
def test_whatever_the_tokens_what_was_told_is_never_taken_back(token_ids: list[int]) -> None:
    growing = GrowingText(EMBEDDED_TOKENIZER)
    parts = [growing.grow(tuple(token_ids[:length])) for length in range(len(token_ids) + 1)]
    text = EMBEDDED_TOKENIZER.decode_with_spans(token_ids).text
    assert "".join(parts) + growing.finish(text) == text
    for earlier, later in itertools.pairwise(itertools.accumulate(parts)):
        assert later.startswith(earlier)
