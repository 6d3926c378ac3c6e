"""The calls over HTTP: the same messages as over gRPC, and what only HTTP can get wrong."""

import asyncio
import json
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format

from service.client import Client
from service.incoming import TRANSPORTS
from service.pb import interlinear_pb2 as pb
from tests.service.edge import SENTENCE, Served, metric_value, served, served_model, settings_of
from tests.service.refusals import reason_and_field

LONG_WORK = {"texts": [SENTENCE] * 100, "options": {"beamSize": 16}}
SHORT_WORK = {"texts": [SENTENCE], "options": {"beamSize": 16, "maxTargetTokens": 2}}
FLOATS = pb.MATRIX_ENCODING_FLOAT_LIST
GIVEN = "La maison est petite, mais le jardin est grand."

CALLS: list[tuple[str, str, Any]] = [
    ("translate", "/v1/translate", pb.TranslateRequest(texts=[SENTENCE, ""], alignment=pb.ALIGNMENT_DETAIL_PIECES)),
    ("explain", "/v1/explain", pb.ExplainRequest(text=SENTENCE, views=pb.ExplanationView.values()[1:])),
    ("explain", "/v1/explain", pb.ExplainRequest(text="L\u2019\u00e9t\u00e9 \U0001f600.", target=GIVEN)),
    ("contrast", "/v1/contrast", pb.ContrastRequest(text=SENTENCE, target=GIVEN, target_word=1, alternative="cour")),
    (
        "list_alternatives",
        "/v1/alternatives",
        pb.ListAlternativesRequest(text=SENTENCE, target=GIVEN, target_word=1, limit=2),
    ),
    (
        "what_if",
        "/v1/what-if",
        pb.WhatIfRequest(text=SENTENCE, intervention=pb.Intervention(masked_source_words=[1])),
    ),
]


def without_measurements(reply: Any) -> Any:
    """Return a reply without its request id and what a clock said."""
    for results in (reply, *(result.translation for result in getattr(reply, "results", ()))):
        if "timings" in results.DESCRIPTOR.fields_by_name:
            results.ClearField("timings")
    reply.metadata.ClearField("request_id")
    reply.metadata.ClearField("total_seconds")
    return reply


@pytest.mark.parametrize(("method", "path", "request_"), CALLS)
async def test_http_and_grpc_answer_with_the_same_message(
    service: Served, http: httpx.AsyncClient, method: str, path: str, request_: Any
) -> None:
    body = json_format.MessageToJson(request_)  # no encoding named: over HTTP that means lists
    response = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 200, response.text
    asked_for_lists = type(request_)()
    asked_for_lists.CopyFrom(request_)
    asked_for_lists.matrix_encoding = FLOATS
    async with Client(service.address) as client:
        expected = await getattr(client, method)(asked_for_lists)
    reply = json_format.Parse(response.text, type(expected)())
    assert without_measurements(reply) == without_measurements(expected)


async def test_models_are_listed_and_described_over_http_too(service: Served, http: httpx.AsyncClient) -> None:
    async with Client(service.address) as client:
        listed, described = await client.list_models(), await client.get_model()
    assert json_format.Parse((await http.get("/v1/models")).text, pb.ListModelsResponse()) == listed
    name = listed.models[0].name
    assert json_format.Parse((await http.get(f"/v1/models/{name}")).text, pb.GetModelResponse()) == described
    assert reason_and_field(await http.get("/v1/models/none")) == (404, "MODEL_NOT_FOUND", "")


async def test_fields_may_be_named_as_in_the_proto_and_packed_matrices_asked_for(http: httpx.AsyncClient) -> None:
    body = {"text": SENTENCE, "views": ["EXPLANATION_VIEW_SCORES"], "matrix_encoding": "MATRIX_ENCODING_PACKED_FLOAT32"}
    reply = (await http.post("/v1/explain", json=body)).json()
    assert isinstance(reply["attentionScores"]["packedFloat32"], str)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/translate", {"txets": []}, (400, "MESSAGE_INVALID", "txets")),
        ("/v1/translate", {"texts": [5]}, (400, "MESSAGE_INVALID", "texts[0]")),
        ("/v1/translate", {"texts": []}, (400, "TEXT_COUNT_OUT_OF_RANGE", "texts")),
        ("/v1/translate", {"texts": ["a"], "model": "none"}, (404, "MODEL_NOT_FOUND", "")),
        ("/v1/translate", {"texts": ["a"], "targetLanguageCode": "zh"}, (404, "LANGUAGE_PAIR_NOT_FOUND", "")),
        ("/v1/explain", {"text": ""}, (400, "SOURCE_EMPTY", "text")),
        ("/v1/explain", {"text": "word " * 500}, (400, "SOURCE_TOO_LONG", "text")),
        ("/v1/explain", {"text": "a\u0000"}, (400, "TEXT_INVALID", "text")),
        ("/v1/explain", {"text": "a", "target": ""}, (400, "TARGET_EMPTY", "target")),
        ("/v1/explain", {"text": "a", "views": [9]}, (400, "UNKNOWN_ENUM_VALUE", "views[0]")),
        ("/v1/explain", {"text": "a", "options": {"beamSize": 17}}, (400, "OPTION_OUT_OF_RANGE", "options.beam_size")),
        (
            "/v1/explain",
            {"text": "a", "alignmentOptions": {"method": "ALIGNMENT_METHOD_UNION"}},
            (400, "REVERSE_MODEL_MISSING", ""),
        ),
        ("/v1/contrast", {"text": "a", "alternative": " "}, (400, "ALTERNATIVE_INVALID", "alternative")),
    ],
)
async def test_a_refusal_is_a_status_in_json(
    http: httpx.AsyncClient, path: str, body: Any, expected: tuple[int, str, str]
) -> None:
    assert reason_and_field(await http.post(path, json=body)) == expected


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_only_a_body_that_says_it_is_json_is_taken(http: httpx.AsyncClient, media_type: str) -> None:
    body = json.dumps({"texts": [SENTENCE]})
    response = await http.post("/v1/translate", content=body, headers={"content-type": media_type})
    assert reason_and_field(response) == (415, "MEDIA_TYPE_INVALID", "content-type")
    header = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await http.post("/v1/translate", content=body, headers=header)).status_code == 200


async def test_no_other_origin_is_let_in(http: httpx.AsyncClient) -> None:
    asked = await http.options(
        "/v1/translate", headers={"origin": "https://example.com", "access-control-request-method": "POST"}
    )
    answered = await http.post("/v1/translate", json=SHORT_WORK, headers={"origin": "https://example.com"})
    for response in (asked, answered):
        assert not [name for name in response.headers if name.startswith("access-control")]
    assert asked.status_code == 405
    assert answered.headers["x-content-type-options"] == "nosniff"
    assert answered.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_too_large_is_refused_before_it_is_read_whole(tiny_bundle: Path, announced: bool) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 4096
            yield b" " * 4096

    async with served(tiny_bundle, max_request_bytes=8192) as running:
        async with httpx.AsyncClient(base_url=f"http://{running.http_address}") as client:
            body = b" " * 9000 if announced else endless()
            response = await client.post("/v1/translate", content=body, headers={"content-type": "application/json"})
            assert reason_and_field(response) == (413, "REQUEST_TOO_LARGE", "")
            assert "8192" in response.text
            assert (await client.post("/v1/translate", json=SHORT_WORK)).status_code == 200


async def test_a_reply_too_large_names_the_view_to_drop(tiny_bundle: Path) -> None:
    async with served(tiny_bundle, max_response_bytes=8192) as running:
        async with httpx.AsyncClient(base_url=f"http://{running.http_address}") as client:
            response = await client.post("/v1/explain", json={"text": SENTENCE})
    assert reason_and_field(response) == (413, "RESPONSE_TOO_LARGE", "")
    assert "EXPLANATION_VIEW_TERMS" in response.text
    assert "retry-after" not in response.headers


async def test_a_full_queue_answers_429_and_when_to_retry(tiny_bundle: Path) -> None:
    async with served(tiny_bundle, queue_capacity=1, batch_hypotheses=16) as running:
        async with httpx.AsyncClient(base_url=f"http://{running.http_address}", timeout=60) as client:
            posts = [client.post("/v1/translate", json=SHORT_WORK) for _ in range(48)]
            responses = await asyncio.gather(*posts)
    codes = Counter(response.status_code for response in responses)
    assert codes.keys() == {200, 429}
    refused = next(response for response in responses if response.status_code == 429)
    assert reason_and_field(refused) == (429, "QUEUE_FULL", "")
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "1e9"])
async def test_a_timeout_that_is_none_is_refused(http: httpx.AsyncClient, value: str) -> None:
    response = await http.post("/v1/translate", json=SHORT_WORK, headers={"x-timeout-seconds": value})
    assert reason_and_field(response) == (400, "OPTION_OUT_OF_RANGE", "x-timeout-seconds")


async def test_a_deadline_stops_the_work(service: Served, http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/translate", json=LONG_WORK, headers={"x-timeout-seconds": "0.01"})
    assert reason_and_field(response) == (504, "DEADLINE_PASSED", "")
    assert metric_value(service.metrics, "interlinear_queue_depth") == 0
    assert metric_value(service.metrics, "grpc_server_handled_total", grpc_code="DEADLINE_EXCEEDED") == 1


async def test_a_body_that_does_not_arrive_is_not_waited_for_past_the_deadline(http: httpx.AsyncClient) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(0.5)
        yield b"}"

    headers = {"content-type": "application/json", "x-timeout-seconds": "0.1"}
    response = await http.post("/v1/translate", content=slow(), headers=headers)
    assert reason_and_field(response) == (504, "DEADLINE_PASSED", "")


async def test_a_caller_that_goes_away_stops_the_work(service: Served) -> None:
    async with httpx.AsyncClient(base_url=f"http://{service.http_address}") as leaving:
        call = asyncio.create_task(leaving.post("/v1/translate", json=LONG_WORK))
        while metric_value(service.metrics, "interlinear_running_sentences") == 0:
            await asyncio.sleep(0.001)
        call.cancel()
    await asyncio.wait_for(service.gate.quiet(), timeout=10)
    assert metric_value(service.metrics, "interlinear_cancellations_total") > 0
    assert metric_value(service.metrics, "grpc_server_handled_total", grpc_code="CANCELLED", transport="http") == 1


async def test_a_caller_that_goes_away_amid_its_request_leaves_no_trace(service: Served, caplog: Any) -> None:
    host, port = service.http_address.split(":")
    with socket.create_connection((host, int(port))) as leaving:
        leaving.sendall(
            b"POST /v1/translate HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        )
        while not service.gate.started:
            await asyncio.sleep(0.001)
    handled = "grpc_server_handled_total"
    while not metric_value(service.metrics, handled, grpc_code="CANCELLED", transport="http"):
        await asyncio.sleep(0.001)
    assert service.gate.in_flight == 0
    assert not caplog.records


async def test_the_callers_request_id_comes_back_and_a_harmful_one_is_replaced(http: httpx.AsyncClient) -> None:
    for sent, kept in (("order-66.b", True), ("a b", False), ("x" * 65, False)):
        response = await http.post("/v1/translate", json=SHORT_WORK, headers={"x-request-id": sent})
        request_id = response.json()["metadata"]["requestId"]
        assert (request_id == sent) is kept
        assert response.headers["x-request-id"] == request_id


async def test_calls_of_either_transport_are_counted_apart(service: Served, http: httpx.AsyncClient) -> None:
    await http.post("/v1/translate", json=SHORT_WORK)
    await http.post("/v1/translate", json={"texts": []})
    async with Client(service.address) as client:
        await client.translate(pb.TranslateRequest(texts=[SENTENCE]))
    counts = {
        (transport, code): metric_value(
            service.metrics,
            "grpc_server_handled_total",
            grpc_method="Translate",
            transport=transport,
            grpc_code=code,
        )
        for transport in TRANSPORTS
        for code in ("OK", "INVALID_ARGUMENT")
    }
    expected = {("http", "OK"): 1, ("http", "INVALID_ARGUMENT"): 1, ("grpc", "OK"): 1, ("grpc", "INVALID_ARGUMENT"): 0}
    assert counts == expected


async def test_a_drain_answers_what_was_accepted_over_http_and_refuses_what_comes_later(tiny_bundle: Path) -> None:
    async with served(tiny_bundle, batch_hypotheses=16) as running:
        async with httpx.AsyncClient(base_url=f"http://{running.http_address}", timeout=60) as client:
            calls = [asyncio.create_task(client.post("/v1/translate", json=work)) for work in [LONG_WORK, SHORT_WORK]]
            while running.gate.in_flight < 2:
                await asyncio.sleep(0.001)
            draining = asyncio.create_task(running.listeners.drain(0.0, 60.0))
            await asyncio.sleep(0.05)
            late = await client.post("/v1/translate", json=SHORT_WORK)
            assert reason_and_field(late) == (503, "DRAINING", "")
            assert await draining == 0
            assert [(await call).status_code for call in calls] == [200, 200]


async def test_a_failure_nobody_foresaw_tells_the_caller_nothing_but_its_id(service: Served) -> None:
    model = replace(service.model, translator=None)  # type: ignore[arg-type]
    settings = settings_of()
    async with served_model(model, settings, service.metrics) as running, httpx.AsyncClient() as client:
        url = f"http://{running.http_address}/v1/translate"
        response = await client.post(url, json=SHORT_WORK, headers={"x-request-id": "find-me"})
    assert reason_and_field(response) == (500, "INTERNAL", "")
    assert "find-me" in response.text and "NoneType" not in response.text


async def test_an_explanation_over_http_is_what_the_command_prints(service: Served, http: httpx.AsyncClient) -> None:
    run = "from service.commands.app import main; main()"
    command = ["-c", run, "explain", SENTENCE, "--json", "--address", service.address]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    reply = (await http.post("/v1/explain", json={"text": SENTENCE})).json()
    told = json.loads(printed)
    for explanation in (reply, told):
        del explanation["timings"], explanation["metadata"]["requestId"], explanation["metadata"]["totalSeconds"]
    assert reply == told
