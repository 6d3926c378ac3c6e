"""Calls that nothing here answers: none of them ends the server, whatever their path and whoever has left."""

import asyncio
import gc
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service import accepting
from tests.reliability.garbage import calls
from tests.service.edge import Served, served
from tests.service.refusals import refusal

SERVING = health_pb2.HealthCheckResponse.SERVING
NO_PATH = "/secret\xff"  # a byte that no UTF-8 has


async def say(address: str, conversation: bytes) -> asyncio.StreamWriter:
    """Say something on a connection of its own, and wait until something comes back."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(conversation)
    await asyncio.wait_for(reader.read(1), 5)
    await asyncio.sleep(0.2)
    return writer


async def test_a_path_that_is_not_utf_8_ends_neither_the_server_nor_other_calls(service: Served) -> None:
    for address in (service.address, service.admin_grpc_address):
        (await say(address, calls(NO_PATH))).close()
        async with grpc.aio.insecure_channel(address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            assert (await check(health_pb2.HealthCheckRequest(), timeout=5)).status == SERVING
            refused = await refusal(channel.unary_unary("/nothing.at.All/Nothing")(b"", timeout=5))
            assert refused[:2] == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
    assert not service.listeners.lost


async def test_the_same_path_ends_grpcs_own_loop_which_the_service_notices(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(accepting._Server, "_make_request_call_future")
    async with served(tiny_bundle) as service:
        assert not service.listeners.lost
        (await say(service.address, calls(NO_PATH))).close()
        assert service.listeners.lost


@pytest.mark.parametrize("path", ["/nothing.at.All/Nothing", "/", "", "/interlinear.v1.TranslationService/Nothing"])
async def test_a_caller_that_is_gone_is_not_told_and_nothing_is_logged(
    service: Served, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        (await say(service.address, calls(path, 100))).close()
    await asyncio.sleep(0.1)
    gc.collect()  # which is when asyncio tells of what a task raised
    assert not caplog.records
