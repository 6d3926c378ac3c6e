"""Callers who are slow to send, or to take what they asked for: what they hold, and for how long."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest

from service import grpc_server, json_api
from service.access.credentials import new_key
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.service.access.files import entry
from tests.service.edge import SENTENCE, Served, metric_value, served
from tests.service.line import Line
from tests.service.refusals import reason_and_field, refusal

LARGE = pb.TranslateRequest(texts=[SENTENCE] * 100, alignment=pb.ALIGNMENT_DETAIL_PIECES)
TRANSLATE = "/interlinear.v1.TranslationService/Translate"
SMALL_WINDOWS = [("grpc.http2.bdp_probe", 0)]
KEY = new_key()


@pytest.fixture
async def guarded(tiny_bundle: Path, tmp_path: Path) -> AsyncIterator[Served]:
    credentials = tmp_path / "credentials.toml"
    quota = {"quota_concurrent": "1", "quota_requests_per_second": "0.001", "quota_burst_requests": "3"}
    credentials.write_text(entry("newsroom", key=KEY, **quota))
    async with served(tiny_bundle, credentials=credentials) as running:
        yield running


async def until_unsent(service: Served) -> None:
    async with asyncio.timeout(60):
        while not metric_value(service.metrics, "interlinear_unsent_reply_bytes") > 65_536:
            await asyncio.sleep(0.01)


async def test_a_stranger_is_refused_before_anything_is_read_of_a_request(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_ARRIVAL_SECONDS", 0.2)
    authorization = (("authorization", f"Bearer {KEY}"),)
    async with grpc.aio.insecure_channel(guarded.address) as channel:
        for method in (TRANSLATE, "/interlinear.v1.TranslationService/StreamTokens"):
            silent = channel.stream_stream(method)
            expected = (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING")
            assert (await asyncio.wait_for(refusal(silent().read()), 5))[:2] == expected
        late = channel.stream_unary(TRANSLATE)(metadata=authorization)
        assert (await refusal(late))[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED")
        none = channel.stream_unary(TRANSLATE)(iter(()), metadata=authorization)
        assert (await refusal(none))[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")


async def test_a_request_that_is_none_costs_as_much_as_one(guarded: Served) -> None:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=f"http://{guarded.http_address}", headers=headers) as http:
        replies = [await http.post("/v1/translate", content=b'{"texts": [1]}') for _ in range(4)]
    assert [reply.status_code for reply in replies] == [400, 400, 400, 429]


async def test_a_reply_that_is_not_read_keeps_its_call_open_and_is_given_up_in_the_end(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_api, "_READING_SECONDS", 2.0)
    url, headers = f"http://{guarded.http_address}/v1/translate", {"authorization": f"Bearer {KEY}"}
    search = {"beamSize": 12, "numHypotheses": 12}  # megabytes, more than the system takes off our hands
    asked = {"texts": [SENTENCE] * 128, "options": search, "alignment": "ALIGNMENT_DETAIL_PIECES"}
    request = httpx.Request("POST", url, json=asked, headers={**headers, "host": "localhost"})
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", httpx.URL(url).port))
    with slow:
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        slow.sendall(f"POST /v1/translate HTTP/1.1\r\n{head}\r\n".encode() + request.content)
        await until_unsent(guarded)
        async with httpx.AsyncClient(timeout=60) as http:
            second = await http.post(url, json={"texts": ["a"]}, headers=headers)
            assert reason_and_field(second) == (429, "CONCURRENCY_EXCEEDED", "")
            async with asyncio.timeout(10):
                while metric_value(guarded.metrics, "interlinear_unsent_reply_bytes"):
                    await asyncio.sleep(0.01)
            assert (await http.post(url, json={"texts": ["a"]}, headers=headers)).status_code == 200


@pytest.mark.parametrize("goes_on", [True, False], ids=["read at last", "never read"])
async def test_a_drain_waits_for_replies_that_are_on_their_way(tiny_bundle: Path, goes_on: bool) -> None:
    async with served(tiny_bundle) as service, Line(service.address) as line:
        async with grpc.aio.insecure_channel(line.address, SMALL_WINDOWS) as channel:
            await channel.channel_ready()
            line.stop()
            call = pb_grpc.TranslationServiceStub(channel).Translate(LARGE)
            await until_unsent(service)
            assert service.gate.in_flight == 0
            draining = asyncio.create_task(service.listeners.drain(0.0, 20.0 if goes_on else 0.5))
            await asyncio.sleep(0.4)
            assert not draining.done()
            if goes_on:
                line.go_on()
                assert len((await call).results) == len(LARGE.texts)
            assert await asyncio.wait_for(draining, 15) == (0 if goes_on else 1)
            call.cancel()


async def test_a_stream_that_is_stuck_in_a_reply_is_told_of_the_drain_as_well(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_LAST_SECONDS", 10.0)
    options = pb.DocumentOptions(
        options=pb.DecodingOptions(beam_size=4, num_hypotheses=4), alignment=pb.ALIGNMENT_DETAIL_PIECES
    )
    requests = [pb.TranslateStreamRequest(options=options), pb.TranslateStreamRequest(text=f"{SENTENCE} " * 200)]
    async with served(tiny_bundle) as service, Line(service.address) as line:
        async with grpc.aio.insecure_channel(line.address, SMALL_WINDOWS) as channel:
            await channel.channel_ready()
            line.stop()
            call = pb_grpc.TranslationServiceStub(channel).TranslateStream(iter(requests))
            sent = last = 0.0
            stands = 0
            async with asyncio.timeout(20):
                while stands < 5 or not sent:
                    stands, last = (stands + 1 if sent == last else 0), sent
                    await asyncio.sleep(0.1)
                    sent = metric_value(service.metrics, "grpc_server_msg_sent_total", grpc_method="TranslateStream")
            draining = asyncio.create_task(service.listeners.drain(0.0, 0.2))
            async with asyncio.timeout(5):
                while not metric_value(service.metrics, "grpc_server_handled_total", grpc_code="UNAVAILABLE"):
                    await asyncio.sleep(0.01)
            line.go_on()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "another replica" in (caught.value.details() or "")
            assert await asyncio.wait_for(draining, 15) == 1
