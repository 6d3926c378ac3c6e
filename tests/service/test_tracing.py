import sys
import time
import timeit
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from service import tracing
from service.errors import InvalidSettings
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.service.edge import served
from tests.service.trace_receiver import Received, trace_receiver

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with trace_receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
        yield received


def attributes_of(span: object) -> dict[str, str | int]:
    return {
        pair.key: pair.value.string_value or pair.value.int_value
        for pair in span.attributes  # type: ignore[attr-defined]
    }


def test_a_call_goes_on_with_the_trace_of_its_caller(receiver: Received) -> None:
    with tracing.sending("otlp"):
        with tracing.serving("interlinear.v1.TranslationService", "Translate", HEADERS):
            assert tracing.current_trace_id() == TRACE_ID
            assert tracing.exemplar() == {"trace_id": TRACE_ID}
            with tracing.span("inside", texts=2):
                pass
            tracing.answered("OK")
    (call,) = receiver.named("interlinear.v1.TranslationService/Translate")
    (inside,) = receiver.named("inside")
    assert call.trace_id.hex() == inside.trace_id.hex() == TRACE_ID
    assert call.parent_span_id.hex() == "b7ad6b7169203331"
    assert inside.parent_span_id == call.span_id
    assert call.kind == call.SPAN_KIND_SERVER
    assert attributes_of(call) == {
        "rpc.system.name": "grpc",
        "rpc.method": "interlinear.v1.TranslationService/Translate",
        "rpc.response.status_code": "OK",
    }
    assert attributes_of(inside) == {"texts": 2}
    assert receiver.services == {"interlinear"}


def test_stages_are_spans_one_after_the_other_that_end_now(receiver: Received) -> None:
    stages = {"tokenize": 0.001, "queue": 0.02, "decode": 0.5}
    with tracing.sending("otlp"), tracing.serving("a.Service", "Call", {}):
        tracing.record_stages("sentence", stages, batch_size=3)
        tracing.record("serialize", 0.25)
        now = time.time_ns()
    (sentence,) = receiver.named("sentence")
    parts = [receiver.named(stage)[0] for stage in stages]
    assert [part.parent_span_id for part in parts] == [sentence.span_id] * 3
    assert [part.end_time_unix_nano - part.start_time_unix_nano for part in parts] == [
        1_000_000,
        20_000_000,
        500_000_000,
    ]
    assert parts[0].start_time_unix_nano == sentence.start_time_unix_nano
    assert all(a.end_time_unix_nano == b.start_time_unix_nano for a, b in zip(parts, parts[1:], strict=False))
    assert parts[-1].end_time_unix_nano == sentence.end_time_unix_nano
    assert 0 <= now - sentence.end_time_unix_nano < 10**9
    (serialize,) = receiver.named("serialize")
    assert serialize.end_time_unix_nano - serialize.start_time_unix_nano == 250_000_000


def test_a_refused_call_is_an_error_and_tells_no_message(receiver: Received) -> None:
    with pytest.raises(ValueError), tracing.sending("otlp"), tracing.serving("a.Service", "Call", {}):
        tracing.answered("INTERNAL")
        raise ValueError("what somebody wrote")
    (call,) = receiver.spans
    assert call.status.code == call.status.STATUS_CODE_ERROR
    assert b"somebody" not in call.SerializeToString()


def test_a_caller_who_keeps_no_trace_gets_none(receiver: Received) -> None:
    headers = {"traceparent": HEADERS["traceparent"][:-2] + "00"}
    with tracing.sending("otlp"), tracing.serving("a.Service", "Call", headers):
        assert tracing.current_trace_id() == TRACE_ID
        assert tracing.exemplar() is None
    assert not receiver.spans


@pytest.mark.parametrize("traceparent", ["", "00-0-0-00", "é" * 55, f"ff-{TRACE_ID}-b7ad6b7169203331-01"])
def test_a_trace_header_that_is_none_begins_a_new_trace(receiver: Received, traceparent: str) -> None:
    with tracing.sending("otlp"), tracing.serving("a.Service", "Call", {"traceparent": traceparent}):
        assert tracing.current_trace_id() not in (None, TRACE_ID)
    assert [span.parent_span_id for span in receiver.spans] == [b""]


def test_a_collector_that_is_away_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    began = time.monotonic()
    with tracing.sending("otlp"):
        for _ in range(3000):
            with tracing.serving("a.Service", "Call", {}):
                pass
    assert time.monotonic() - began < 10.0


def test_switched_off_it_costs_next_to_nothing_and_imports_nothing() -> None:
    def traced() -> None:
        with tracing.serving("a.Service", "Call", HEADERS), tracing.span("inside"):
            tracing.record("serialize", 0.1)
            tracing.record_stages("sentence", {})
            tracing.answered("OK")

    with tracing.sending("off"):
        assert tracing.current_trace_id() is None and tracing.exemplar() is None
        assert min(timeit.repeat(traced, number=1000, repeat=5)) / 1000 < 20e-6


def test_without_the_extra_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidSettings, match=r"interlinear\[traces\]"), tracing.sending("otlp"):
        pass


@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_call_to_a_real_service_is_told_stage_by_stage(
    tiny_bundle: Path, receiver: Received, transport: str
) -> None:
    with tracing.sending("otlp"):
        async with served(tiny_bundle) as service:
            if transport == "grpc":
                async with grpc.aio.insecure_channel(service.address) as channel:
                    stub = pb_grpc.ExplanationServiceStub(channel)
                    await stub.Explain(pb.ExplainRequest(text="a secret"), metadata=tuple(HEADERS.items()))
            else:
                async with httpx.AsyncClient() as client:
                    url = f"http://{service.http_address}/v1/explain"
                    assert (await client.post(url, json={"text": "a secret"}, headers=HEADERS)).status_code == 200
    (call,) = receiver.named("interlinear.v1.ExplanationService/Explain")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE_ID, "b7ad6b7169203331")
    below = {span.name: span for span in receiver.spans if span.parent_span_id == call.span_id}
    assert below.keys() == {"admission", "sentence", "explain", "serialize"}
    stages = {span.name for span in receiver.spans if span.parent_span_id == below["sentence"].span_id}
    assert stages == {"tokenize", "queue", "encode", "decode", "detokenize", "explain"}
    for span in receiver.spans:
        assert span.trace_id.hex() == TRACE_ID
        # Admission begins when the call arrives, a moment before its span does.
        assert call.start_time_unix_nano - 10_000_000 <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= call.end_time_unix_nano
        assert b"secret" not in span.SerializeToString()


async def test_a_call_that_streams_is_one_trace(tiny_bundle: Path, receiver: Received) -> None:
    with tracing.sending("otlp"):
        async with served(tiny_bundle) as service, grpc.aio.insecure_channel(service.address) as channel:
            stub = pb_grpc.TranslationServiceStub(channel)
            replies = stub.StreamTokens(pb.StreamTokensRequest(text="abc"), metadata=tuple(HEADERS.items()))
            assert [reply async for reply in replies]
    (call,) = receiver.named("interlinear.v1.TranslationService/StreamTokens")
    assert attributes_of(call)["rpc.response.status_code"] == "OK"
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE_ID}
    assert {"admission", "sentence", "decode", "serialize"} <= {span.name for span in receiver.spans}
