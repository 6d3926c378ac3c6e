import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from service.call_status import unreached
from service.client import CallFailed, Client, failure, service_config, translation_of
from service.errors import OptionOutOfRange, QueueFull
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from service.status import status_of
from tests.service.edge import SENTENCE, served, unused_address


async def test_every_call_of_the_proto_is_there(client: Client) -> None:
    reply = await client.translate(pb.TranslateRequest(texts=[SENTENCE]))
    explained = await client.explain(pb.ExplainRequest(text=SENTENCE))
    text = translation_of(reply.results[0]).hypotheses[0].text
    assert text == explained.hypothesis.text
    assert text == (await client.what_if(pb.WhatIfRequest(text=SENTENCE))).changed.text
    listed_words = await client.list_alternatives(pb.ListAlternativesRequest(text=SENTENCE))
    other = next(
        word.text for word in listed_words.alternatives if word.text != explained.hypothesis.target.words[0].text
    )
    contrast = await client.contrast(pb.ContrastRequest(text=SENTENCE, alternative=other))
    assert contrast.chosen.hypothesis.text == text
    (listed,) = (await client.list_models()).models
    assert (await client.get_model(listed.name)).model.digest == listed.digest


async def test_a_refusal_says_what_to_change_and_where(client: Client) -> None:
    request = pb.TranslateRequest(texts=[SENTENCE], options=pb.DecodingOptions(beam_size=99))
    with pytest.raises(CallFailed, match="99") as caught:
        await client.translate(request)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.reason, caught.value.field) == ("OPTION_OUT_OF_RANGE", "options.beam_size")


async def test_one_refused_text_reads_like_a_refused_call(client: Client) -> None:
    reply = await client.translate(pb.TranslateRequest(texts=[SENTENCE, ""]))
    with pytest.raises(CallFailed) as caught:
        translation_of(reply.results[1])
    assert (caught.value.reason, caught.value.field) == ("SOURCE_EMPTY", "texts[1]")


async def test_a_service_that_is_not_there_is_told_with_what_to_do() -> None:
    address = unused_address()
    async with Client(address, timeout_seconds=20) as client:
        with pytest.raises(CallFailed, match="interlinear serve") as caught:
            await client.list_models()
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert address in str(caught.value)


async def test_a_deadline_is_told_with_its_length() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never speaks HTTP/2
        async with Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.2, wait_for_ready=True) as client:
            with pytest.raises(CallFailed, match=r"0\.2 s.*--timeout") as caught:
                await client.list_models()
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_waits_finds_a_service_that_starts_later(tiny_bundle: Path) -> None:
    address = unused_address()
    async with Client(address, timeout_seconds=30, wait_for_ready=True) as client:
        call = asyncio.create_task(client.list_models())
        await asyncio.sleep(0.2)
        assert not call.done()
        async with served(tiny_bundle, grpc_address=address):
            assert (await call).models


async def test_a_full_queue_is_tried_again_until_there_is_room(tiny_bundle: Path) -> None:
    async with served(tiny_bundle, queue_capacity=1, batch_hypotheses=16) as running, Client(running.address) as client:
        request = pb.TranslateRequest(texts=[SENTENCE], options=pb.DecodingOptions(beam_size=16))  # one at a time
        replies = await asyncio.gather(*(client.translate(request) for _ in range(6)))
        assert all(reply.results[0].HasField("translation") for reply in replies)
        samples = [sample for family in running.metrics.batches.rejections.collect() for sample in family.samples]
        assert sum(sample.value for sample in samples if sample.name.endswith("_total")) > 0


async def test_a_server_that_is_not_interlinear_is_named_as_such() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(CallFailed, match="not an Interlinear service"):
            await client.list_models()
    await server.stop(None)


async def test_a_request_too_large_for_the_server_is_sent_once() -> None:
    arrived = []

    class Watch(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no type stubs
        async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
            arrived.append(details.method)
            return await continuation(details)

    server = grpc.aio.server(interceptors=[Watch()], options=[("grpc.max_receive_message_length", 4 << 20)])
    pb_grpc.add_TranslationServiceServicer_to_server(pb_grpc.TranslationServiceServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(CallFailed, match="larger than max") as caught:
            await client.translate(pb.TranslateRequest(texts=["x" * (5 << 20)]))
    await server.stop(None)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len([method for method in arrived if method.endswith("/Translate")]) == 1


def test_a_time_to_retry_is_part_of_the_message() -> None:
    refused = failure(status_of(QueueFull("512 sentences wait already", 1.25)))
    assert "try again in 1.2 s" in str(refused) or "try again in 1.3 s" in str(refused)
    assert refused.reason == "QUEUE_FULL"


def test_a_status_without_details_is_still_an_error() -> None:
    bare = failure(status_pb2.Status(code=13, message="broken"))
    assert (str(bare), bare.code, bare.reason, bare.field) == ("broken", grpc.StatusCode.INTERNAL, "", "")
    assert failure(status_of(OptionOutOfRange("options.beam_size", "no"))).field == "options.beam_size"


def test_the_service_config_covers_every_service() -> None:
    whole, streams = service_config(1.5, False)["methodConfig"]
    assert {entry["service"] for entry in whole["name"]} == {
        service.full_name for service in pb.DESCRIPTOR.services_by_name.values()
    }
    assert whole["timeout"] == "1.500s"
    assert whole["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]


def test_no_stream_has_a_deadline_as_a_whole() -> None:
    _, streams = service_config(1.5, False)["methodConfig"]
    assert {entry["method"] for entry in streams["name"]} == {"TranslateStream", "StreamTokens"}
    assert "timeout" not in streams


async def test_a_stream_refused_while_its_client_still_writes_ends_with_the_service_s_own_status() -> None:
    class Refusing(pb_grpc.TranslationServiceServicer):
        async def TranslateStream(self, requests: Any, context: Any) -> Any:
            await anext(aiter(requests))
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
            yield

    server = grpc.aio.server()
    pb_grpc.add_TranslationServiceServicer_to_server(Refusing(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Client(f"127.0.0.1:{port}") as client:
        for _ in range(30):
            with pytest.raises(CallFailed, match="not you") as caught:
                async for _ in client.translate_stream(pb.DocumentOptions(), ["text " * 3000] * 200):
                    pass
            assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    await server.stop(None)


@pytest.mark.parametrize(
    ("details", "tls", "said"),
    [
        ("ipv4:10.0.0.1:1: Socket closed", False, "--tls-authority"),
        ("ipv4:10.0.0.1:1: Socket closed", True, "--certificate"),
        ("Hostname Verification Check failed.", True, "--tls-server-name"),
        ("CERTIFICATE_VERIFY_FAILED: unable to get local issuer", True, "--tls-authority"),
        ("error:100000f7:WRONG_VERSION_NUMBER", True, "leave out --tls"),
        ("ipv4:10.0.0.1:1: Connection refused", True, "interlinear serve"),
        ("ipv6:%5B::1%5D:1: Connection refused", True, "127.0.0.1"),
    ],
)
def test_what_keeps_a_client_from_a_service_is_told_as_what_it_is(details: str, tls: bool, said: str) -> None:
    told = unreached("host:1", details, tls)
    assert said in told and details in told and "host:1" in told
    assert ("interlinear serve" in told) == ("refused" in details)
