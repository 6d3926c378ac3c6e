"""The calls without transport: streams of documents and tokens, and the cache behind them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from service.access.principals import Principal, Quota, asking
from service.calls import Calls
from service.errors import (
    InvalidRequest,
    LanguagePairNotFound,
    ModelNotFound,
    OptionOutOfRange,
    QueueFull,
    ServiceError,
    StreamInvalid,
)
from service.metrics import Metrics
from service.models.loading import loaded
from service.models.registry import Models
from service.models.served_model import ServedModel
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.service.edge import metric_value, served, settings_of

DOCUMENT = (
    "\ufeffThe house is small. It's raining again!\r\n\r\n"
    "  - How many brothers?\r\n  - I don't know.  \r\n* * *\r\nMy father's car is older than yours."
    " She wants\u00a0to learn French before summer, but the garden is big, and we will see each other tomorrow at noon,"
    " and my father's car is older than yours, and I don't know where he lives; take your umbrella.\r\n\r\n"
)


class Serving:
    """The calls over one model, and what they counted."""

    def __init__(self, model: ServedModel, calls: Calls, metrics: Metrics) -> None:
        self.model = model
        self.calls = calls
        self.metrics = metrics

    def value(self, name: str, **labels: str) -> float:
        return metric_value(self.metrics, f"interlinear_{name}", **labels)


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture
def serve(tiny_bundle: Path) -> Serve:
    @asynccontextmanager
    async def serving(**overrides: object) -> AsyncIterator[Serving]:
        metrics = Metrics.on(CollectorRegistry())
        settings = settings_of(bundle=tiny_bundle, **overrides)
        async with loaded(settings, metrics) as model:
            models = Models(metrics)
            models.add(model)
            yield Serving(model, Calls(models, settings, metrics), metrics)

    return serving


def decoding(**options: Any) -> pb.DocumentOptions:
    return pb.DocumentOptions(options=pb.DecodingOptions(**options))


async def requests(*messages: pb.DocumentOptions | str) -> AsyncGenerator[pb.TranslateStreamRequest, None]:
    for message in messages:
        if isinstance(message, str):
            yield pb.TranslateStreamRequest(text=message)
        else:
            yield pb.TranslateStreamRequest(options=message)


async def replies(
    serving: Serving, *messages: pb.DocumentOptions | str, deadline: float | None = None
) -> tuple[list[pb.DocumentSentence], pb.DocumentEnd]:
    *sentences, end = [reply async for reply in serving.calls.translate_stream(requests(*messages), deadline)]
    assert end.WhichOneof("response") == "end"
    return [reply.sentence for reply in sentences], end.end


def pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def timeless(sentence: pb.DocumentSentence) -> pb.DocumentSentence:
    """The sentence without what differs from one time to the next."""
    copy = pb.DocumentSentence()
    copy.CopyFrom(sentence)
    copy.translation.ClearField("timings")
    copy.translation.ClearField("batch_size")
    copy.translation.ClearField("cached")
    return copy


async def test_a_document_comes_back_whole_in_order_and_as_translate_would_have_it(serve: Serve) -> None:
    options = pb.DocumentOptions(
        options=pb.DecodingOptions(beam_size=2), alignment=pb.ALIGNMENT_DETAIL_PIECES, guard=pb.TRANSLATION_GUARD_REPORT
    )
    async with serve() as serving:
        sentences, end = await replies(serving, options, DOCUMENT)
        texts = [DOCUMENT[sentence.span.start_code_point : sentence.span.end_code_point] for sentence in sentences]
        assert "".join(s.before + text for s, text in zip(sentences, texts, strict=True)) + end.after == DOCUMENT
        assert [sentence.sequence_id for sentence in sentences] == [*range(1, len(sentences) + 1)]
        assert (end.sentences, end.failed, end.after) == (len(sentences), 0, "\r\n\r\n")
        assert (end.metadata.model, end.effective_options.beam_size) == ("tiny", 2)
        translated = await serving.calls.translate(
            pb.TranslateRequest(texts=texts, options=options.options, alignment=options.alignment, guard=options.guard),
            None,
        )
        for sentence, result in zip(sentences, translated.results, strict=True):
            twin = pb.DocumentSentence(translation=result.translation)
            assert timeless(sentence).translation == timeless(twin).translation
        assert serving.value("documents_total", result="ok") == 1
        assert serving.value("document_sentences_total", result="ok") == len(sentences)


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_how_the_client_cuts_a_document_changes_nothing(serve: Serve, size: int) -> None:
    async with serve() as serving:
        whole, end = await replies(serving, pb.DocumentOptions(), DOCUMENT)
        cut, its_end = await replies(serving, pb.DocumentOptions(), *pieces(DOCUMENT, size))
        assert list(map(timeless, cut)) == list(map(timeless, whole))
        assert its_end == end


async def test_a_document_taken_up_again_goes_on_where_it_broke_off_and_translates_nothing_twice(serve: Serve) -> None:
    async with serve() as serving:
        whole, end = await replies(serving, pb.DocumentOptions(), DOCUMENT)
        for last in (1, 4, len(whole)):
            before = serving.value("sentences_total")
            rest, its_end = await replies(serving, pb.DocumentOptions(last_sequence_id=last), DOCUMENT)
            assert list(map(timeless, rest)) == list(map(timeless, whole[last:]))
            assert its_end == end
            assert serving.value("sentences_total") - before == len(whole) - last


async def test_a_sentence_that_cannot_be_translated_has_its_reason_and_its_neighbors_are_translated(
    serve: Serve,
) -> None:
    async with serve() as serving:
        sentences, end = await replies(serving, pb.DocumentOptions(), "One.\nTw\0o.\nThree.")
        assert [sentence.WhichOneof("result") for sentence in sentences] == ["translation", "error", "translation"]
        assert "NUL" in sentences[1].error.message
        assert (end.sentences, end.failed) == (3, 1)
        assert serving.value("document_sentences_total", result="refused") == 1
        assert serving.value("request_errors_total", reason="TEXT_INVALID") == 1


async def test_a_sentence_too_long_for_the_model_is_cut_and_not_refused(serve: Serve) -> None:
    async with serve() as serving:
        for text in ("word, " * 500, "word " * 500, "x" * 3000, "\u4e2d\u6587" * 500):
            sentences, end = await replies(serving, pb.DocumentOptions(), text)
            assert end.failed == 0
            assert len(sentences) > 1
            assert (
                "".join(
                    sentence.before + text[sentence.span.start_code_point : sentence.span.end_code_point]
                    for sentence in sentences
                )
                + end.after
                == text
            )


async def test_a_full_queue_makes_a_document_wait_and_not_fail(serve: Serve) -> None:
    async with serve(queue_capacity=1, batch_hypotheses=16) as serving:
        lines = [f"Number {number}, my father's car.\n" for number in range(20)]
        documents = [replies(serving, pb.DocumentOptions(), "".join(lines)) for _ in range(4)]
        for sentences, end in await asyncio.wait_for(asyncio.gather(*documents), 60):
            assert (len(sentences), end.failed) == (20, 0)


async def test_documents_leave_room_for_single_sentences(serve: Serve) -> None:
    """However many documents there are, they fill no queue, so that a sentence alone is taken at once."""
    async with serve(queue_capacity=8, batch_hypotheses=64) as serving:
        document = "My father's car is older than yours.\n" * 200
        waits = [asyncio.create_task(replies(serving, pb.DocumentOptions(), document)) for _ in range(20)]
        await asyncio.sleep(0.2)
        for _ in range(20):
            reply = await serving.calls.translate(pb.TranslateRequest(texts=["The house is small."]), None)
            assert reply.results[0].WhichOneof("result") == "translation"
            assert serving.value("queue_rejections_total", reason="queue_full") == 0
        assert not any(task.done() for task in waits)
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert serving.value("documents_total", result="cancelled") == 20


@pytest.mark.parametrize(
    ("messages", "error", "field"),
    [
        ((), StreamInvalid, "options"),
        (("text",), StreamInvalid, "options"),
        ((pb.DocumentOptions(), "One.", pb.DocumentOptions()), StreamInvalid, "text"),
        (
            (pb.DocumentOptions(options=pb.DecodingOptions(forced_prefix="a")),),
            OptionOutOfRange,
            "options.forced_prefix",
        ),
        ((pb.DocumentOptions(options=pb.DecodingOptions(beam_size=0)), "One."), OptionOutOfRange, "options.beam_size"),
        ((pb.DocumentOptions(options=pb.DecodingOptions(beam_size=17)), "One."), OptionOutOfRange, "options.beam_size"),
        ((pb.DocumentOptions(last_sequence_id=-1),), OptionOutOfRange, "last_sequence_id"),
        ((pb.DocumentOptions(last_sequence_id=3), "One. Two."), OptionOutOfRange, "last_sequence_id"),
    ],
)
async def test_what_is_wrong_with_a_whole_document_ends_it_and_names_the_field(
    serve: Serve, messages: tuple[pb.DocumentOptions | str, ...], error: type[InvalidRequest], field: str
) -> None:
    async with serve() as serving:
        with pytest.raises(error) as raised:
            await replies(serving, *messages)
        assert raised.value.field == field


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (pb.DocumentOptions(model="other"), ModelNotFound),
        (pb.DocumentOptions(target_language_code="de"), LanguagePairNotFound),
    ],
)
async def test_a_document_for_a_model_that_is_not_there_is_refused(
    serve: Serve, options: pb.DocumentOptions, error: type[ServiceError]
) -> None:
    async with serve() as serving:
        with pytest.raises(error):
            await replies(serving, options, "One.")


async def test_a_client_that_does_not_read_is_not_read_from(serve: Serve) -> None:
    read = 0

    async def endless() -> AsyncGenerator[pb.TranslateStreamRequest, None]:
        nonlocal read
        yield pb.TranslateStreamRequest(options=pb.DocumentOptions())
        while True:
            read += 1
            yield pb.TranslateStreamRequest(text="The house is small.\n")

    async with serve() as serving, aclosing(serving.calls.translate_stream(endless(), None)) as answers:
        await anext(answers)
        await asyncio.sleep(0.5)
        assert read <= 8 + 2  # the window of a document with beams of four, in batches of 128
        translated = serving.value("sentences_total")
        await asyncio.sleep(0.2)
        assert serving.value("sentences_total") == translated


async def test_tokens_are_told_while_they_come_and_the_end_is_what_translate_says(serve: Serve) -> None:
    request = pb.StreamTokensRequest(text="My father's car is older.", options=pb.DecodingOptions(beam_size=1))
    async with serve() as serving:
        *parts, last = [reply async for reply in serving.calls.stream_tokens(request, None)]
        assert len(parts) > 1
        assert not any(part.HasField("translation") or part.HasField("metadata") for part in parts)
        whole = await serving.calls.translate(pb.TranslateRequest(texts=[request.text], options=request.options), None)
        translation = whole.results[0].translation
        assert "".join(part.text for part in [*parts, last]) == translation.hypotheses[0].text
        assert last.translation.hypotheses == translation.hypotheses
        assert last.effective_options == whole.effective_options
        assert last.metadata.model_digest == whole.metadata.model_digest
        assert serving.value("time_to_first_token_seconds_count", model="tiny@1") == 1


async def test_tokens_of_several_hypotheses_are_not_told(serve: Serve) -> None:
    request = pb.StreamTokensRequest(text="One.", options=pb.DecodingOptions(num_hypotheses=2))
    async with serve() as serving:
        with pytest.raises(OptionOutOfRange, match="num_hypotheses is 2"):
            await anext(serving.calls.stream_tokens(request, None))


async def test_a_kept_translation_is_the_same_to_the_bit_but_for_saying_so(serve: Serve) -> None:
    request = pb.TranslateRequest(texts=["The house is small.", "Tw\0o"], alignment=pb.ALIGNMENT_DETAIL_PIECES)
    async with serve(cache_bytes=1 << 20) as serving:
        first = await serving.calls.translate(request, None)
        again = await serving.calls.translate(request, None)
        assert again.results[0].translation.cached and not first.results[0].translation.cached
        again.results[0].translation.cached = False
        assert again.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)
        assert serving.value("sentences_total") == 1
        request.options.beam_size = 4  # as by default
        assert (await serving.calls.translate(request, None)).results[0].translation.cached
        request.options.beam_size = 3
        assert not (await serving.calls.translate(request, None)).results[0].translation.cached


async def test_nobody_learns_from_the_cache_what_somebody_else_has_sent(serve: Serve) -> None:
    request = pb.TranslateRequest(texts=["The house is small."])

    async def cached(name: str) -> bool:
        asking.set(Principal(name, frozenset({"translate"}), Quota()))
        return bool((await serving.calls.translate(request, None)).results[0].translation.cached)

    async with serve(cache_bytes=1 << 20) as serving:
        asked = ["newsroom", "archive", "newsroom", "archive"]
        assert [await asyncio.create_task(cached(name)) for name in asked] == [False, False, True, True]


async def test_an_error_nobody_foresaw_ends_the_call_and_leaves_nothing_running(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(cache_bytes=1 << 20) as serving:
        translate = serving.model.translator.translate

        async def breaking(text: str, *arguments: Any) -> Any:
            if text == "Two.":
                raise ZeroDivisionError
            return await translate(text, *arguments)

        monkeypatch.setattr(serving.model.translator, "translate", breaking)
        before = asyncio.all_tasks()
        with pytest.raises(ZeroDivisionError):
            await serving.calls.translate(pb.TranslateRequest(texts=["One.", "Two.", "Three."] * 20), None)
        assert asyncio.all_tasks() == before


async def test_a_document_uses_what_was_kept_and_keeps_what_it_makes(serve: Serve) -> None:
    async with serve(cache_bytes=1 << 20) as serving:
        whole, _ = await replies(serving, pb.DocumentOptions(), DOCUMENT)
        made = serving.value("sentences_total")
        again, _ = await replies(serving, pb.DocumentOptions(), DOCUMENT)
        assert serving.value("sentences_total") == made
        assert all(sentence.translation.cached for sentence in again)
        assert list(map(timeless, again)) == list(map(timeless, whole))


async def test_without_being_asked_for_nothing_is_kept(serve: Serve) -> None:
    async with serve() as serving:
        for _ in range(2):
            reply = await serving.calls.translate(pb.TranslateRequest(texts=["The house is small."]), None)
            assert not reply.results[0].translation.cached
        assert serving.value("sentences_total") == 2


async def test_a_request_of_many_texts_is_still_refused_by_a_full_queue(serve: Serve) -> None:
    """Only documents wait: who sends single texts is told at once, and when to try again."""
    async with serve(queue_capacity=1, batch_hypotheses=16) as serving:
        request = pb.TranslateRequest(texts=["My father's car is older than yours."] * 40)
        reply = await serving.calls.translate(request, None)
        reasons = {result.WhichOneof("result") for result in reply.results}
        assert reasons == {"translation", "error"}
        assert serving.value("queue_rejections_total", reason=QueueFull.reason.lower()) > 0


async def test_over_grpc_a_client_that_does_not_read_is_not_read_from(tiny_bundle: Path) -> None:
    """What is under way then is bounded by what the transport holds, not by the document."""
    written = 0

    async def sending() -> AsyncGenerator[pb.TranslateStreamRequest, None]:
        nonlocal written
        large = pb.DocumentOptions(alignment=pb.ALIGNMENT_DETAIL_PIECES)  # soon fills what the transport holds
        yield pb.TranslateStreamRequest(options=large)
        for _ in range(20_000):
            written += 1
            yield pb.TranslateStreamRequest(text="My father's car is older than yours.\n" * 10)

    async with served(tiny_bundle) as service, grpc.aio.insecure_channel(service.address) as channel:
        call = pb_grpc.TranslationServiceStub(channel).TranslateStream(sending())
        await call.read()
        translated = -1.0
        while translated != (now := metric_value(service.metrics, "interlinear_sentences_total")):
            translated = now
            await asyncio.sleep(0.5)
        assert translated < 20_000
        assert written < 20_000
        call.cancel()
