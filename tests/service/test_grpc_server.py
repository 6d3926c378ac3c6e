import asyncio
import contextlib
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bundle.manifest import digest, read
from service import grpc_server
from service.client import Client, array
from service.errors import InvalidSettings
from service.grpc_server import PUBLIC, create_server
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.service.edge import SENTENCE, Served, metric_value, served, served_model, service_process, settings_of
from tests.service.line import Line
from tests.service.refusals import refusal, told

# Where a batch holds 16 hypotheses, the short work waits until all of the long work is done.
LONG_WORK = pb.TranslateRequest(texts=[SENTENCE] * 100, options=pb.DecodingOptions(beam_size=16))
SHORT_WORK = pb.TranslateRequest(texts=[SENTENCE], options=pb.DecodingOptions(beam_size=16, max_target_tokens=2))
TRANSLATE = "/interlinear.v1.TranslationService/Translate"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def translate(channel: grpc.aio.Channel) -> Any:
    return pb_grpc.TranslationServiceStub(channel).Translate


async def test_texts_are_translated_in_order_and_the_reply_says_by_whom(service: Served, translate: Any) -> None:
    reply = await translate(pb.TranslateRequest(texts=[SENTENCE, "I don't know where he lives."]))
    texts = [result.translation.hypotheses[0].text for result in reply.results]
    alone = [
        (await translate(pb.TranslateRequest(texts=[text]))).results
        for text in (SENTENCE, "I don't know where he lives.")
    ]
    assert texts == [results[0].translation.hypotheses[0].text for results in alone]
    manifest = service.model.manifest
    assert (reply.metadata.model, reply.metadata.model_version) == (manifest.bundle_id, manifest.version)
    assert (reply.metadata.model_digest, reply.metadata.device) == (digest(manifest), "cpu")
    assert reply.metadata.total_seconds > 0
    timings = reply.results[0].translation.timings
    assert timings.encode_seconds > 0 and timings.decode_seconds > 0
    assert reply.results[0].translation.batch_size >= 1


async def test_effective_options_say_what_was_applied(service: Served, translate: Any) -> None:
    limit = service.model.manifest.limits.max_target_tokens
    defaults = (await translate(pb.TranslateRequest(texts=[SENTENCE]))).effective_options
    assert defaults == pb.DecodingOptions(
        beam_size=4,
        num_hypotheses=1,
        length_penalty=1.0,
        max_target_tokens=limit,
        forced_prefix="",
        no_repeat_ngram_size=0,
    )
    asked = pb.DecodingOptions(
        beam_size=3,
        num_hypotheses=2,
        length_penalty=0.5,
        max_target_tokens=7,
        forced_prefix="La maison",
        no_repeat_ngram_size=3,
    )
    reply = await translate(pb.TranslateRequest(texts=[SENTENCE], options=asked))
    assert reply.effective_options == asked
    hypotheses = reply.results[0].translation.hypotheses
    assert len(hypotheses) == 2
    assert hypotheses[0].normalized_score >= hypotheses[1].normalized_score
    assert all(hypothesis.text.startswith("La maison") for hypothesis in hypotheses)
    assert all(len(hypothesis.token_log_probabilities) <= 7 for hypothesis in hypotheses)


@pytest.mark.parametrize(
    "detail", [pb.ALIGNMENT_DETAIL_UNSPECIFIED, pb.ALIGNMENT_DETAIL_WORDS, pb.ALIGNMENT_DETAIL_PIECES]
)
async def test_an_alignment_comes_when_and_as_asked_for(translate: Any, detail: pb.AlignmentDetail) -> None:
    reply = await translate(pb.TranslateRequest(texts=[SENTENCE], alignment=detail))
    translation = reply.results[0].translation
    hypothesis = translation.hypotheses[0]
    wanted = detail != pb.ALIGNMENT_DETAIL_UNSPECIFIED
    assert translation.HasField("source") is wanted
    assert hypothesis.HasField("target") is wanted
    assert hypothesis.HasField("alignment") is wanted
    assert hypothesis.alignment.HasField("piece_weights") is (detail == pb.ALIGNMENT_DETAIL_PIECES)
    if wanted:
        ended = hypothesis.finish_reason == pb.FINISH_REASON_END_OF_SENTENCE
        weights = array(hypothesis.alignment.word_weights)
        assert weights.shape == (len(hypothesis.target.words) + ended, len(translation.source.words) + 1)
        assert weights.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        for link in hypothesis.alignment.links:
            assert link.weight == weights[link.target_index, link.source_index]


async def test_spans_lead_back_into_the_text_as_it_was_sent(translate: Any) -> None:
    text = "I don\u2019t know \U0001f600 where he lives."
    reply = await translate(pb.TranslateRequest(texts=[text], alignment=pb.ALIGNMENT_DETAIL_WORDS))
    source = reply.results[0].translation.source
    assert source.text == text
    for word in source.words:
        span = word.span
        assert text.encode()[span.start_byte : span.end_byte].decode() == word.text
        assert text[span.start_code_point : span.end_code_point] == word.text
        assert text.encode("utf-16-le")[2 * span.start_utf16 : 2 * span.end_utf16].decode("utf-16-le") == word.text


async def test_a_text_that_cannot_be_translated_does_not_fail_its_neighbors(service: Served, translate: Any) -> None:
    too_long = "word " * 500
    reply = await translate(pb.TranslateRequest(texts=[SENTENCE, "", too_long, SENTENCE]))
    assert [result.WhichOneof("result") for result in reply.results] == ["translation", "error", "error", "translation"]
    faults = [told(result.error)[:2] for result in reply.results[1:3]]
    assert faults == [("SOURCE_EMPTY", "texts[1]"), ("SOURCE_TOO_LONG", "texts[2]")]
    assert str(service.model.manifest.limits.max_source_tokens) in reply.results[2].error.message
    assert "word" not in reply.results[2].error.message.replace("words", "")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"texts": []}, (grpc.StatusCode.INVALID_ARGUMENT, "TEXT_COUNT_OUT_OF_RANGE", "texts")),
        ({"texts": ["a"] * 129}, (grpc.StatusCode.INVALID_ARGUMENT, "TEXT_COUNT_OUT_OF_RANGE", "texts")),
        ({"model": "klingon"}, (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "")),
        ({"source_language_code": "fr"}, (grpc.StatusCode.NOT_FOUND, "LANGUAGE_PAIR_NOT_FOUND", "")),
        ({"target_language_code": "eng"}, (grpc.StatusCode.NOT_FOUND, "LANGUAGE_PAIR_NOT_FOUND", "")),
        ({"matrix_encoding": 9}, (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_ENUM_VALUE", "matrix_encoding")),
        ({"alignment": 9}, (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_ENUM_VALUE", "alignment")),
    ],
)
async def test_a_request_that_is_wrong_as_a_whole_is_refused(
    translate: Any, change: dict[str, Any], expected: tuple[grpc.StatusCode, str, str]
) -> None:
    refused = await refusal(translate(pb.TranslateRequest(**({"texts": [SENTENCE]} | change))))
    assert refused[:3] == expected


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("beam_size", 0),
        ("beam_size", 17),
        ("num_hypotheses", 0),
        ("num_hypotheses", 5),
        ("length_penalty", -0.1),
        ("length_penalty", float("nan")),
        ("max_target_tokens", 0),
        ("max_target_tokens", 100_000),
    ],
)
async def test_an_option_out_of_range_is_refused_by_name(translate: Any, option: str, value: Any) -> None:
    options = pb.DecodingOptions(**{option: value})
    refused = await refusal(translate(pb.TranslateRequest(texts=[SENTENCE, ""], options=options)))
    assert refused[:3] == (grpc.StatusCode.INVALID_ARGUMENT, "OPTION_OUT_OF_RANGE", f"options.{option}")


async def test_bytes_that_are_not_utf_8_are_refused_by_name(channel: grpc.aio.Channel) -> None:
    send = channel.unary_unary(TRANSLATE)
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "TEXT_INVALID", "texts[0]")
    assert (await refusal(send(b"\x22\x02\xc3\x28")))[:3] == expected


async def test_bytes_that_are_no_message_are_refused(channel: grpc.aio.Channel) -> None:
    refused = await refusal(channel.unary_unary(TRANSLATE)(b"\xff\xff\xff"))
    assert refused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")


@pytest.mark.parametrize(("source", "target"), [("", ""), ("en", "fr"), ("EN-us", "fr-CA")])
async def test_a_narrower_language_tag_is_served_by_the_wider_model(translate: Any, source: str, target: str) -> None:
    request = pb.TranslateRequest(texts=[SENTENCE], source_language_code=source, target_language_code=target)
    assert (await translate(request)).results[0].HasField("translation")


async def test_the_callers_request_id_comes_back_and_a_harmful_one_is_replaced(translate: Any) -> None:
    for sent, kept in (("order-66.b", True), ("a b", False), ("x" * 65, False)):
        call = translate(pb.TranslateRequest(texts=[SENTENCE]), metadata=(("x-request-id", sent),))
        request_id = (await call).metadata.request_id
        assert (request_id == sent) is kept
        assert dict(await call.trailing_metadata())["x-request-id"] == request_id


async def test_without_tables_nothing_is_explained_but_all_is_translated(tiny_bundle_without_tables: Path) -> None:
    async with served(tiny_bundle_without_tables) as running, grpc.aio.insecure_channel(running.address) as channel:
        refused = await refusal(pb_grpc.ExplanationServiceStub(channel).Explain(pb.ExplainRequest(text=SENTENCE)))
        assert refused[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "STATISTICS_MISSING")
        translate = pb_grpc.TranslationServiceStub(channel).Translate
        assert (await translate(pb.TranslateRequest(texts=[SENTENCE]))).results[0].HasField("translation")
        models = await pb_grpc.ModelServiceStub(channel).ListModels(pb.ListModelsRequest())
        assert not models.models[0].HasField("tables")


async def test_models_are_described_as_their_bundle_describes_them(
    channel: grpc.aio.Channel, tiny_bundle: Path
) -> None:
    stub, manifest = pb_grpc.ModelServiceStub(channel), read(tiny_bundle)
    (listed,) = (await stub.ListModels(pb.ListModelsRequest())).models
    assert (listed.name, listed.digest, listed.is_default) == (manifest.bundle_id, digest(manifest), True)
    assert dict(listed.sizes) == manifest.sizes
    assert manifest.tables is not None and listed.tables.digest == manifest.tables.digest
    assert not listed.card and not listed.files
    for name in ("", manifest.bundle_id):
        model = (await stub.GetModel(pb.GetModelRequest(name=name))).model
        assert model.card == (tiny_bundle / "README.md").read_text("utf-8")
        assert {file.name: file.sha256 for file in model.files} == {
            name: entry.sha256 for name, entry in manifest.files.items()
        }
    assert (await refusal(stub.GetModel(pb.GetModelRequest(name="no-such")))).reason == "MODEL_NOT_FOUND"


async def test_figures_with_signatures_are_listed(service: Served) -> None:
    figures = {"tatoeba dev": {"BLEU": {"value": 38.5, "signature": "nrefs:1"}, "chrF": {"value": 60.1}}}
    model = replace(service.model, manifest=replace(service.model.manifest, quality=figures))
    settings = settings_of()
    async with served_model(model, settings, service.metrics) as running, Client(running.address) as client:
        (listed,) = (await client.list_models()).models
    assert [(f.test_set, f.metric, f.value, f.signature) for f in listed.quality] == [
        ("tatoeba dev", "BLEU", 38.5, "nrefs:1"),
        ("tatoeba dev", "chrF", 60.1, ""),
    ]


async def test_a_reply_too_large_names_the_view_to_drop(tiny_bundle: Path) -> None:
    async with served(tiny_bundle, max_response_bytes=8192) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            explain = pb_grpc.ExplanationServiceStub(channel).Explain
            with pytest.raises(grpc.aio.AioRpcError, match="EXPLANATION_VIEW_TERMS") as caught:
                await explain(pb.ExplainRequest(text=SENTENCE))
            trailing = dict(caught.value.trailing_metadata() or ())
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert trailing["grpc-retry-pushback-ms"] == "-1"
            smaller = pb.ExplainRequest(text=SENTENCE, views=[pb.EXPLANATION_VIEW_SHARES])
            assert (await explain(smaller)).decomposition.terms


async def test_a_full_queue_refuses_the_whole_call_at_once_and_says_when_to_retry(tiny_bundle: Path) -> None:
    async with served(tiny_bundle, queue_capacity=1, batch_hypotheses=16) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            translate = pb_grpc.TranslationServiceStub(channel).Translate
            calls = [translate(pb.TranslateRequest(texts=[SENTENCE])) for _ in range(64)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
            assert 0 < len(refused) < len(calls)
            for error in refused:
                trailing = dict(error.trailing_metadata() or ())
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert int(trailing["grpc-retry-pushback-ms"]) > 0
            reply = await translate(pb.TranslateRequest(texts=[SENTENCE] * 64))
            kinds = Counter(result.WhichOneof("result") for result in reply.results)
            assert kinds["translation"] > 0 and kinds["error"] > 0
            assert {told(r.error)[0] for r in reply.results if r.HasField("error")} == {"QUEUE_FULL"}


async def test_a_deadline_stops_the_work(service: Served, translate: Any) -> None:
    clock = asyncio.get_running_loop().time
    durations = []
    for _ in range(2):  # the first one can be much the slower
        began = clock()
        await translate(LONG_WORK)
        durations.append(clock() - began)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await translate(LONG_WORK, timeout=min(durations) / 4)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(service.gate.quiet(), timeout=10)
    dropped = metric_value(service.metrics, "interlinear_deadline_drops_total")
    assert dropped + metric_value(service.metrics, "interlinear_cancellations_total") > 0
    assert metric_value(service.metrics, "interlinear_queue_depth") == 0


async def test_a_caller_that_goes_away_stops_the_work(service: Served, translate: Any) -> None:
    call = translate(LONG_WORK)
    while metric_value(service.metrics, "interlinear_running_sentences") == 0:
        await asyncio.sleep(0.001)
    call.cancel()
    await asyncio.wait_for(service.gate.quiet(), timeout=10)
    assert metric_value(service.metrics, "interlinear_cancellations_total") > 0
    assert metric_value(service.metrics, "grpc_server_handled_total", grpc_code="CANCELLED") == 1


async def test_a_reply_that_is_not_read_is_counted_as_unsent_and_given_up_in_the_end(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_READING_SECONDS", 0.5)
    large = pb.TranslateRequest(texts=[SENTENCE] * 100, alignment=pb.ALIGNMENT_DETAIL_PIECES)
    small_windows = [("grpc.http2.bdp_probe", 0)]
    async with served(tiny_bundle) as running, Line(running.address) as line:
        async with grpc.aio.insecure_channel(line.address, small_windows) as channel:
            await channel.channel_ready()
            line.stop()
            call = pb_grpc.TranslationServiceStub(channel).Translate(large)
            async with asyncio.timeout(20):
                while not metric_value(running.metrics, "interlinear_unsent_reply_bytes") > 65_536:
                    await asyncio.sleep(0.01)
                while metric_value(running.metrics, "interlinear_unsent_reply_bytes"):
                    await asyncio.sleep(0.01)
            call.cancel()
    assert metric_value(running.metrics, "grpc_server_handled_total", grpc_method="Translate", grpc_code="OK") == 1


async def test_calls_are_counted_and_timed_under_the_usual_names(service: Served, translate: Any) -> None:
    await translate(pb.TranslateRequest(texts=[SENTENCE, ""]))
    await refusal(translate(pb.TranslateRequest(texts=[])))
    labels = {"grpc_type": "unary", "grpc_service": "interlinear.v1.TranslationService", "grpc_method": "Translate"}
    for name, expected in (
        ("grpc_server_started_total", 2),
        ("grpc_server_msg_received_total", 2),
        ("grpc_server_msg_sent_total", 1),
        ("grpc_server_handling_seconds_count", 2),
    ):
        assert metric_value(service.metrics, name, **labels) == expected
    assert metric_value(service.metrics, "grpc_server_handled_total", **labels, grpc_code="OK") == 1
    assert metric_value(service.metrics, "grpc_server_handled_total", **labels, grpc_code="INVALID_ARGUMENT") == 1
    assert metric_value(service.metrics, "interlinear_request_errors_total", reason="SOURCE_EMPTY") == 1
    assert metric_value(service.metrics, "interlinear_request_errors_total", reason="TEXT_COUNT_OUT_OF_RANGE") == 1
    assert metric_value(service.metrics, "interlinear_requests_in_flight") == 0
    assert metric_value(service.metrics, "interlinear_stage_duration_seconds_count", stage="serialize") == 1


async def test_health_knows_every_service_and_no_other(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", *PUBLIC.services):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="interlinear.v1.NoSuchService"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_tells_of_every_service_and_its_messages(channel: grpc.aio.Channel) -> None:
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="interlinear.v1.ExplainRequest"),
    ]
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    listed, described = [reply async for reply in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert {*PUBLIC.services, "grpc.health.v1.Health"} <= names
    assert described.file_descriptor_response.file_descriptor_proto


async def test_a_drain_tells_watchers_first_then_answers_what_was_accepted(tiny_bundle: Path) -> None:
    service = served(tiny_bundle, batch_hypotheses=16)
    async with service as running, grpc.aio.insecure_channel(running.address) as channel:
        translate = pb_grpc.TranslationServiceStub(channel).Translate
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=PUBLIC.services[0]))
        assert (await watch.read()).status == SERVING
        calls = [asyncio.create_task(_code(translate, request)) for request in [LONG_WORK] * 4]
        while running.gate.in_flight < 4:
            await asyncio.sleep(0.001)
        draining = asyncio.create_task(running.listeners.drain(1.0, 60.0))
        assert (await watch.read()).status == NOT_SERVING
        assert await _code(translate) is grpc.StatusCode.OK, "health says no, but balancers need a moment to notice"
        assert await draining == 0
        assert set(await asyncio.gather(*calls)) == {grpc.StatusCode.OK}
        assert await _code(translate) is grpc.StatusCode.UNAVAILABLE


async def test_callers_that_go_on_trying_do_not_hold_up_a_drain(tiny_bundle: Path) -> None:
    refused = Counter[grpc.StatusCode]()

    async def keep_trying(translate: Any) -> None:
        while True:
            refused[await _code(translate)] += 1

    async with served(tiny_bundle) as running, grpc.aio.insecure_channel(running.address) as channel:
        translate = pb_grpc.TranslationServiceStub(channel).Translate
        callers = [asyncio.create_task(keep_trying(translate)) for _ in range(4)]
        while not refused[grpc.StatusCode.OK]:
            await asyncio.sleep(0.001)
        assert await asyncio.wait_for(running.listeners.drain(0.0, 30.0), timeout=10) == 0
        for caller in callers:
            caller.cancel()
    assert refused[grpc.StatusCode.UNAVAILABLE] > 0


async def _code(translate: Any, request: pb.TranslateRequest = SHORT_WORK) -> grpc.StatusCode:
    try:
        await translate(request)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_closed_gate_answers_draining(service: Served, translate: Any) -> None:
    service.gate.close()
    refused = await refusal(translate(pb.TranslateRequest(texts=[SENTENCE])))
    assert refused[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_a_failure_nobody_foresaw_tells_the_caller_nothing_but_its_id(service: Served, caplog: Any) -> None:
    model = replace(service.model, translator=None)  # type: ignore[arg-type]
    settings = settings_of()
    async with served_model(model, settings, service.metrics) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            call = pb_grpc.TranslationServiceStub(channel).Translate(
                pb.TranslateRequest(texts=[SENTENCE]), metadata=(("x-request-id", "find-me"),)
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "find-me" in (caught.value.details() or "")
    assert "NoneType" not in (caught.value.details() or "")


async def test_a_second_server_on_the_same_port_is_refused(service: Served) -> None:
    with pytest.raises(InvalidSettings, match="INTERLINEAR_GRPC_ADDRESS"):
        create_server(service.gate, PUBLIC, settings_of(grpc_address=service.address))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 8])
async def test_four_thousand_calls_at_once_are_answered_or_refused_and_none_is_cancelled(
    tiny_bundle: Path, channels: int
) -> None:
    request = pb.TranslateRequest(texts=[SENTENCE], options=pb.DecodingOptions(beam_size=1))
    own_connection = [("grpc.use_local_subchannel_pool", 1)]
    with service_process(tiny_bundle) as process:
        async with contextlib.AsyncExitStack() as stack:
            stubs = [
                pb_grpc.TranslationServiceStub(
                    await stack.enter_async_context(grpc.aio.insecure_channel(process.address, own_connection))
                )
                for _ in range(channels)
            ]
            calls = [_code(stubs[number % channels].Translate, request) for number in range(4000)]
            codes = Counter(await asyncio.gather(*calls))
    assert codes.keys() <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}, codes
    assert codes[grpc.StatusCode.OK] > 0


@pytest.mark.slow
async def test_sigterm_with_two_hundred_requests_in_flight_loses_none(tiny_bundle: Path) -> None:
    with service_process(tiny_bundle, BATCH_HYPOTHESES="16", DRAIN_DELAY_SECONDS="2") as process:
        async with grpc.aio.insecure_channel(process.address) as channel, httpx.AsyncClient() as http:
            translate = pb_grpc.TranslationServiceStub(channel).Translate
            stopping = asyncio.Event()

            async def caller() -> list[grpc.StatusCode]:
                """Keep one call in flight until the signal; the last one is in flight then."""
                codes = []
                while not stopping.is_set():
                    codes.append(await _code(translate))
                return codes

            callers = [asyncio.create_task(caller()) for _ in range(200)]
            while (
                await _in_flight(http, process.admin_http_address) < 150
            ):  # the others are between two calls, or on the way
                await asyncio.sleep(0.01)
            process.process.send_signal(signal.SIGTERM)
            stopping.set()
            codes = Counter(code for codes in await asyncio.gather(*callers) for code in codes)
        assert await asyncio.to_thread(process.process.wait, 60) == 0
        assert [event["event"] for event in process.log()] == ["draining", "stopped"]
    assert codes.keys() == {grpc.StatusCode.OK} and codes.total() >= 200


async def _in_flight(http: httpx.AsyncClient, address: str) -> float:
    lines = (await http.get(f"http://{address}/metrics")).text.splitlines()
    (line,) = (line for line in lines if line.startswith("interlinear_requests_in_flight "))
    return float(line.split()[1])
