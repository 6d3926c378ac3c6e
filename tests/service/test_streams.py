"""Calls that stream, over both transports: what arrives, in what measure, and how they end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from starlette.requests import Request

from service import gate
from service.access.credentials import key_digest, new_key
from service.client import CallFailed, Client, Security
from service.http_call import HttpCall
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.service.edge import SENTENCE, Served, metric_value, served
from tests.service.line import Line
from tests.service.refusals import reason_and_field

DOCUMENT = f"{SENTENCE} It's raining again; take your umbrella!\n\n  How many brothers do you have? \n"
GREEDY = pb.DecodingOptions(beam_size=1, max_target_tokens=8)
LINES = {"content-type": "application/x-ndjson"}


def lines_of(*parts: str, **options: Any) -> bytes:
    """Return the body of a document over HTTP."""
    asked = json_format.MessageToDict(pb.DocumentOptions(options=GREEDY, **options))
    return b"".join(json.dumps(line).encode() + b"\n" for line in ({"options": asked}, *({"text": p} for p in parts)))


def asked_for(*parts: str) -> list[pb.TranslateStreamRequest]:
    options = pb.TranslateStreamRequest(options=pb.DocumentOptions(options=GREEDY))
    return [options, *(pb.TranslateStreamRequest(text=part) for part in parts)]


def without_measurements(reply: Any) -> Any:
    reply.sentence.translation.ClearField("timings")
    reply.sentence.translation.ClearField("batch_size")
    reply.end.metadata.ClearField("request_id")
    reply.end.metadata.ClearField("total_seconds")
    return reply


async def test_a_document_comes_back_in_order_and_nothing_of_it_is_lost(service: Served, client: Client) -> None:
    parts = [DOCUMENT[start : start + 7] for start in range(0, len(DOCUMENT), 7)]
    *sentences, last = [reply async for reply in client.translate_stream(pb.DocumentOptions(options=GREEDY), parts)]
    assert [reply.sentence.sequence_id for reply in sentences] == [1, 2, 3]
    found = "".join(
        reply.sentence.before + DOCUMENT[reply.sentence.span.start_code_point : reply.sentence.span.end_code_point]
        for reply in sentences
    )
    assert found + last.end.after == DOCUMENT
    assert (last.end.sentences, last.end.failed) == (3, 0)
    assert last.end.metadata.model == service.model.manifest.bundle_id
    assert last.end.metadata.request_id and last.end.metadata.total_seconds > 0


async def test_http_and_grpc_stream_the_same_document(client: Client, http: httpx.AsyncClient) -> None:
    options = pb.DocumentOptions(options=GREEDY, alignment=pb.ALIGNMENT_DETAIL_WORDS)
    options.matrix_encoding = pb.MATRIX_ENCODING_FLOAT_LIST
    over_grpc = [reply async for reply in client.translate_stream(options, [DOCUMENT])]
    body = lines_of(DOCUMENT[:50], DOCUMENT[50:], alignment=pb.ALIGNMENT_DETAIL_WORDS)
    response = await http.post("/v1/translate-stream", content=body, headers=LINES)
    assert (response.status_code, response.headers["content-type"]) == (200, LINES["content-type"])
    over_http = [json_format.Parse(line, pb.TranslateStreamResponse()) for line in response.text.splitlines()]
    assert over_http[-1].end.metadata.request_id == response.headers["x-request-id"]
    assert [without_measurements(reply) for reply in over_http] == [without_measurements(reply) for reply in over_grpc]


async def test_tokens_come_one_after_another_and_are_the_translation(client: Client, http: httpx.AsyncClient) -> None:
    request = pb.StreamTokensRequest(text=SENTENCE, options=GREEDY)
    *parts, last = [reply async for reply in client.stream_tokens(request)]
    whole = await client.translate(pb.TranslateRequest(texts=[SENTENCE], options=GREEDY))
    text = whole.results[0].translation.hypotheses[0].text
    assert "".join(reply.text for reply in (*parts, last)) == text == last.translation.hypotheses[0].text
    response = await http.post("/v1/stream-tokens", json=json_format.MessageToDict(request))
    told = [json_format.Parse(line, pb.StreamTokensResponse()) for line in response.text.splitlines()]
    assert "".join(reply.text for reply in told) == text
    assert told[-1].metadata.request_id == response.headers["x-request-id"]


async def test_streams_are_counted_with_every_message(service: Served, client: Client) -> None:
    async for _ in client.translate_stream(pb.DocumentOptions(options=GREEDY), [DOCUMENT[:9], DOCUMENT[9:]]):
        pass
    labels = {"grpc_type": "bidi_stream", "grpc_method": "TranslateStream", "transport": "grpc"}
    for name, expected in (
        ("grpc_server_started_total", 1),
        ("grpc_server_msg_received_total", 3),
        ("grpc_server_msg_sent_total", 4),
        ("grpc_server_handling_seconds_count", 1),
    ):
        assert metric_value(service.metrics, name, **labels) == expected, name
    assert metric_value(service.metrics, "grpc_server_handled_total", **labels, grpc_code="OK") == 1
    assert metric_value(service.metrics, "interlinear_streams_open") == 0
    assert metric_value(service.metrics, "interlinear_unsent_reply_bytes") == 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "STREAM_INVALID", "")),
        (b'{"text": "a"}\n', (400, "STREAM_INVALID", "")),
        (b"{\n", (400, "MESSAGE_INVALID", "")),
        (b'{"options": {"lastSequenceId": "x"}}', (400, "MESSAGE_INVALID", "options.last_sequence_id")),
        (b'{"options": {"model": "none"}}\n', (404, "MODEL_NOT_FOUND", "")),
    ],
)
async def test_what_is_wrong_from_the_first_is_refused_like_any_call(
    http: httpx.AsyncClient, body: bytes, expected: tuple[int, str, str]
) -> None:
    status, reason, field = reason_and_field(await http.post("/v1/translate-stream", content=body, headers=LINES))
    assert (status, reason) == expected[:2]
    assert expected[2] in ("", field)


@pytest.mark.parametrize(
    ("torn", "said"), [(b"{", "line 3: the body is not JSON at column 2"), (b'{"x": 1}', "line 3: the request has no")]
)
async def test_what_is_wrong_with_a_line_names_it(http: httpx.AsyncClient, torn: bytes, said: str) -> None:
    body = b'{"options": {}}\n\n' + torn + b"\n"
    response = await http.post("/v1/translate-stream", content=body, headers=LINES)
    assert said in response.text


async def test_a_stream_over_http_must_say_that_it_comes_in_lines(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/translate-stream", content=lines_of(), headers={"content-type": "application/json"})
    assert reason_and_field(response) == (415, "MEDIA_TYPE_INVALID", "content-type")


async def test_what_goes_wrong_later_is_the_last_line(service: Served, http: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield lines_of(DOCUMENT)
        while not metric_value(service.metrics, "grpc_server_msg_sent_total", grpc_method="TranslateStream"):
            await asyncio.sleep(0.01)
        yield b"nonsense\n"

    response = await http.post("/v1/translate-stream", content=body(), headers=LINES)
    assert response.status_code == 200
    *_, last = response.text.splitlines()
    status = json_format.ParseDict(json.loads(last)["error"], status_pb2.Status())
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason == "MESSAGE_INVALID"


async def test_a_line_too_long_is_refused_before_it_is_read_whole(tiny_bundle: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 64:
            sent += 1
            yield b"x" * 65536
            await asyncio.sleep(0.001)

    async with served(tiny_bundle, max_request_bytes=8192) as running:
        async with httpx.AsyncClient(base_url=f"http://{running.http_address}") as client:
            response = await client.post("/v1/translate-stream", content=endless(), headers=LINES)
    assert reason_and_field(response) == (413, "REQUEST_TOO_LARGE", "")


async def test_a_line_that_comes_in_many_parts_is_put_together_once() -> None:
    """Four MiB in parts of 512 bytes take tens of milliseconds; copied with every part, they take several seconds."""
    line = b"x" * (4 << 20)
    parts = [line[start : start + 512] for start in range(0, len(line), 512)]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(body), "more_body": True}

    body = iter([b"a\n\nb", *parts, b"\nc\n"])
    call = HttpCall(Request({"type": "http", "method": "POST", "headers": []}, receive), max_request_bytes=8 << 20)
    began = time.perf_counter()
    lines = call._lines()
    assert [await anext(lines) for _ in range(4)] == [b"a", b"", b"b" + line, b"c"]
    assert time.perf_counter() - began < 1.0


async def test_a_caller_that_goes_away_ends_its_stream(service: Served) -> None:
    async with grpc.aio.insecure_channel(service.address) as channel:
        call = pb_grpc.TranslationServiceStub(channel).TranslateStream()
        for request in asked_for(DOCUMENT):
            await call.write(request)
        await call.read()
        assert metric_value(service.metrics, "interlinear_streams_open") == 1
        call.cancel()
        await asyncio.wait_for(service.gate.quiet(), timeout=10)
    host, port = service.http_address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = "POST /v1/translate-stream HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999"
    head += "\r\ncontent-type: application/x-ndjson"
    writer.write(head.encode() + b"\r\n\r\n" + lines_of(DOCUMENT))
    while not service.gate.in_flight:
        await asyncio.sleep(0.001)
    writer.close()
    await asyncio.wait_for(service.gate.quiet(), timeout=10)
    for transport in ("grpc", "http"):
        labels = {"grpc_method": "TranslateStream", "transport": transport, "grpc_code": "CANCELLED"}
        assert metric_value(service.metrics, "grpc_server_handled_total", **labels) == 1, transport
    assert metric_value(service.metrics, "interlinear_streams_open") == 0


async def test_a_deadline_ends_a_stream(service: Served, http: httpx.AsyncClient) -> None:
    async def waiting() -> AsyncIterator[bytes]:
        yield lines_of()
        await asyncio.sleep(5)

    headers = {**LINES, "x-timeout-seconds": "0.2"}
    assert reason_and_field(await http.post("/v1/translate-stream", content=waiting(), headers=headers)) == (
        504,
        "DEADLINE_PASSED",
        "",
    )
    async with grpc.aio.insecure_channel(service.address) as channel:
        call = pb_grpc.TranslationServiceStub(channel).TranslateStream(timeout=0.2)
        await call.write(asked_for()[0])
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(service.gate.quiet(), timeout=10)
    assert metric_value(service.metrics, "grpc_server_handled_total", grpc_code="DEADLINE_EXCEEDED") == 2


async def test_a_client_that_sends_nothing_is_not_waited_for_for_ever(
    channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_SILENCE_SECONDS", 0.1)
    call = pb_grpc.TranslationServiceStub(channel).TranslateStream()
    await call.write(asked_for()[0])
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "nothing came" in await call.details()


async def test_a_drain_finishes_a_document_that_has_begun(service: Served, channel: grpc.aio.Channel) -> None:
    call = pb_grpc.TranslationServiceStub(channel).TranslateStream()
    for request in asked_for(DOCUMENT):
        await call.write(request)
    await call.read()
    draining = asyncio.create_task(service.listeners.drain(0.0, 30.0))
    await asyncio.sleep(0.1)
    for request in asked_for(DOCUMENT)[1:]:
        await call.write(request)
    await call.done_writing()
    while (reply := await call.read()) is not grpc.aio.EOF:
        last = reply
    assert last.end.sentences == 6
    assert await draining == 0


async def test_a_stream_that_outlasts_the_drain_is_told_to_go_elsewhere(service: Served) -> None:
    async with grpc.aio.insecure_channel(service.address) as channel, httpx.AsyncClient() as http:

        async def waiting() -> AsyncIterator[bytes]:
            yield lines_of(DOCUMENT)
            await asyncio.sleep(5)

        url = f"http://{service.http_address}/v1/translate-stream"
        posted = asyncio.create_task(http.post(url, content=waiting(), headers=LINES))
        call = pb_grpc.TranslationServiceStub(channel).TranslateStream()
        await call.write(asked_for()[0])
        while service.gate.in_flight < 2:
            await asyncio.sleep(0.001)
        assert await service.listeners.drain(0.0, 0.2) == 2
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert "another replica" in await call.details()
        assert '"DRAINING"' in (await posted).text.splitlines()[-1]
    assert metric_value(service.metrics, "grpc_server_handled_total", grpc_code="UNAVAILABLE") == 2


async def test_a_client_that_does_not_read_is_not_read_from(service: Served) -> None:
    sent = 0

    async def endless() -> AsyncIterator[pb.TranslateStreamRequest]:
        nonlocal sent
        yield asked_for()[0]
        while True:
            sent += 1
            yield pb.TranslateStreamRequest(text=f"{DOCUMENT} " * 20)

    # with the windows that gRPC likes to grow, this client would take in megabytes before it stops reading
    small_windows = [("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(service.address, small_windows) as channel:
        call = pb_grpc.TranslationServiceStub(channel).TranslateStream(endless())
        await call.read()
        stands, last = 0, -1
        while stands < 10:  # a second without progress
            stands = stands + 1 if sent == last else 0
            last = sent
            await asyncio.sleep(0.1)
        received = metric_value(service.metrics, "grpc_server_msg_received_total", grpc_method="TranslateStream")
        assert received < sent < received + 100
        assert metric_value(service.metrics, "interlinear_unsent_reply_bytes") < 100_000
        call.cancel()
    await asyncio.wait_for(service.gate.quiet(), timeout=10)


async def test_a_quota_slows_a_document_down_and_does_not_refuse_it(tiny_bundle: Path, tmp_path: Path) -> None:
    key, credentials = new_key(), tmp_path / "credentials.toml"
    credentials.write_text(
        f'[[principal]]\nname = "reader"\nroles = ["translate"]\nkey_sha256 = ["{key_digest(key).hex()}"]\n'
        "quota.characters_per_second = 200.0\nquota.burst_characters = 60\n"
    )
    clock = asyncio.get_running_loop().time
    async with served(tiny_bundle, credentials=credentials) as running:
        async with Client(running.address, security=Security(key=key)) as client:
            began = clock()
            parts = [DOCUMENT[start : start + 40] for start in range(0, len(DOCUMENT), 40)]
            options = pb.DocumentOptions(options=GREEDY)
            *_, last = [reply async for reply in client.translate_stream(options, parts)]
            assert last.end.sentences == 3
            assert clock() - began > (len(DOCUMENT) - 60) / 200 * 0.9
            with pytest.raises(CallFailed, match="Split") as caught:
                async for _ in client.translate_stream(options, [DOCUMENT]):
                    pass
            assert caught.value.reason == "LARGER_THAN_QUOTA"


async def test_a_client_goes_on_after_a_connection_that_broke(tiny_bundle: Path) -> None:
    text = f"{SENTENCE} " * 30
    async with served(tiny_bundle) as running, Line(running.address) as line, Client(line.address) as client:
        ids, options = [], pb.DocumentOptions(options=GREEDY)
        async for reply in client.translate_stream(options, [text]):
            ids.append(reply.sentence.sequence_id)
            if len(ids) in (5, 12):
                line.cut()
        assert ids == [*range(1, 31), 0]
        assert line.connections >= 3


async def test_a_document_that_can_be_sent_only_once_is_not_gone_on_with(tiny_bundle: Path) -> None:
    async with served(tiny_bundle) as running, Line(running.address) as line, Client(line.address) as client:
        once = (part for part in [f"{SENTENCE} " * 30, SENTENCE])
        with pytest.raises(CallFailed) as caught:
            async for _ in client.translate_stream(pb.DocumentOptions(options=GREEDY), once):
                line.cut()
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
