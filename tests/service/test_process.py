"""The process from outside: how it starts, what it says, and the code it ends with."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import pytest

from service.__main__ import AT_ONCE, CALLS_GIVEN_UP, CLEAN, LOST, NOT_STARTED
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.reliability.faulty import ORDER_VARIABLE
from tests.reliability.garbage import calls
from tests.service.edge import ADDRESSES, ROOT, SENTENCE, service_process


def started(**settings: str) -> "subprocess.CompletedProcess[str]":
    """Return how a service that cannot start ended."""
    environment = os.environ | {f"INTERLINEAR_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "service"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_an_address_in_use_ends_the_process_before_it_listens(tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for setting in ("HTTP_ADDRESS", "ADMIN_HTTP_ADDRESS"):
            free = {name.upper(): "127.0.0.1:0" for name in ADDRESSES}
            ended = started(**{**free, "BUNDLE": str(tiny_bundle), setting: address})
            assert ended.returncode == NOT_STARTED
            assert f"INTERLINEAR_{setting}={address}" in ended.stderr


def test_a_public_address_without_protection_ends_the_process_with_every_fault() -> None:
    ended = started(GRPC_ADDRESS="0.0.0.0:0", HTTP_ADDRESS="0.0.0.0:0")
    assert ended.returncode == NOT_STARTED
    assert "INTERLINEAR_GRPC_ADDRESS" in ended.stderr and "INTERLINEAR_HTTP_ADDRESS" in ended.stderr


async def test_an_idle_process_ends_clean_and_says_where_it_listened(tiny_bundle: Path) -> None:
    with service_process(tiny_bundle, DRAIN_DELAY_SECONDS="0") as process:
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://{process.http_address}/readyz")).status_code == 200
            assert (await http.get(f"http://{process.admin_http_address}/metrics")).status_code == 200
        process.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.process.wait, 60) == CLEAN


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_process_at_once_with_one_line(
    tiny_bundle: Path, number: signal.Signals
) -> None:
    with service_process(tiny_bundle, DRAIN_DELAY_SECONDS="0") as process:
        async with grpc.aio.insecure_channel(process.address) as channel, httpx.AsyncClient() as http:
            call = pb_grpc.TranslationServiceStub(channel).TranslateStream()
            await call.write(pb.TranslateStreamRequest(options=pb.DocumentOptions()))
            await call.write(pb.TranslateStreamRequest(text=f"{SENTENCE}\n\n{SENTENCE}\n\n"))
            await call.read()
            process.process.send_signal(number)
            while (await http.get(f"http://{process.http_address}/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
            process.process.send_signal(number)
            assert await asyncio.to_thread(process.process.wait, 5) == AT_ONCE + number
        last = process.log()[-1]  # each line is JSON
        assert (last["event"], last["signal"]) == ("ended at once", number.name)


async def test_an_engine_that_does_not_come_back_ends_the_process_for_its_supervisor(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = tmp_path / "order"
    monkeypatch.setenv(ORDER_VARIABLE, str(order))
    with service_process(tiny_bundle, ("-m", "tests.reliability.faulty")) as process:
        order.write_text("raise 10000")
        async with httpx.AsyncClient(timeout=60) as http:
            ended = asyncio.create_task(asyncio.to_thread(process.process.wait, 60))
            while not ended.done():
                with contextlib.suppress(httpx.TransportError):
                    await http.post(f"http://{process.http_address}/v1/translate", json={"texts": [SENTENCE]})
                await asyncio.sleep(0.02)
        assert await ended == LOST
        events = [event["event"] for event in process.log()]
        assert "an engine could not be made anew" in events and events[-1] == "stopped"


_GRPC_ITSELF = (  # its own loop that accepts calls, in place of ours
    "import sys; from service import __main__, accepting; "
    "del accepting._Server._make_request_call_future; sys.exit(__main__.main())"
)


async def test_a_server_that_ends_by_itself_ends_the_process_for_its_supervisor(tiny_bundle: Path) -> None:
    with service_process(tiny_bundle, ("-c", _GRPC_ITSELF), DRAIN_DELAY_SECONDS="0.5") as process:
        host, port = process.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(calls("/secret\xff"))
        async with httpx.AsyncClient() as http:
            while (await http.get(f"http://{process.http_address}/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
        assert await asyncio.to_thread(process.process.wait, 30) == LOST
        writer.close()
        log = process.log()
        assert {"a server ended by itself", "stopped"} <= {event["event"] for event in log}
        assert "secret" not in json.dumps(log)


async def test_a_key_that_is_not_utf_8_does_not_reach_the_log(tiny_bundle: Path) -> None:
    with service_process(tiny_bundle, DRAIN_DELAY_SECONDS="0") as process:
        host, port = process.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        path = "/interlinear.v1.ModelService/ListModels"
        writer.write(calls(path, 1, ("authorization", "Bearer secret\xff"), ("x-api-key", "secret\xfe")))
        await asyncio.wait_for(reader.read(1), 5)
        await asyncio.sleep(0.3)
        writer.close()
        process.process.terminate()
        log = process.log()
        assert "secret" not in json.dumps(log)
        assert [event["event"] for event in log] == ["draining", "stopped"]


async def test_a_document_that_outlasts_the_drain_is_told_so_and_seen_in_the_exit_code(tiny_bundle: Path) -> None:
    with service_process(tiny_bundle, DRAIN_DELAY_SECONDS="0", DRAIN_SECONDS="0.3") as process:
        async with grpc.aio.insecure_channel(process.address) as channel:
            call = pb_grpc.TranslationServiceStub(channel).TranslateStream()
            await call.write(pb.TranslateStreamRequest(options=pb.DocumentOptions()))
            await call.write(pb.TranslateStreamRequest(text=f"{SENTENCE}\n\n{SENTENCE}\n\n"))
            await call.read()
            process.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError, match="another replica") as caught:
                while True:
                    await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await asyncio.to_thread(process.process.wait, 60) == CALLS_GIVEN_UP
        last = process.log()[-1]
        assert (last["event"], last["abandoned"]) == ("stopped", 1)
        assert SENTENCE not in json.dumps(last)
