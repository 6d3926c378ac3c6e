"""What health checks see, and that nobody who watches can hold up anybody else."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from service import standard_calls
from service.errors import ServiceNotFound
from service.health import NOT_SERVING, SERVING, Health
from tests.service.edge import Served
from tests.service.refusals import refusal

UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_a_watcher_is_told_what_is_and_then_every_change_that_it_waits_for() -> None:
    health = Health(("", "a"))
    statuses = health.statuses("a")
    assert await anext(statuses) == NOT_SERVING
    health.tell(("a",), serving=True)
    assert await anext(statuses) == SERVING
    health.tell(("",), serving=True)
    health.tell(("a",), serving=False)
    health.tell(("a",), serving=True)
    waiting = asyncio.ensure_future(anext(statuses))
    await asyncio.sleep(0.01)
    assert not waiting.done(), "it is what it was"
    health.leave()
    assert await waiting == NOT_SERVING
    health.tell(("a",), serving=True)
    assert health.status("a") == NOT_SERVING, "who has left does not come back"
    await statuses.aclose()


async def test_a_service_that_is_not_there_is_not_found_but_may_be_watched() -> None:
    health = Health(("", "a"))
    with pytest.raises(ServiceNotFound, match="it has a"):
        health.status("b")
    assert await anext(health.statuses("b")) == UNKNOWN


async def test_what_is_unknown_is_told_as_the_protocol_says(channel: grpc.aio.Channel) -> None:
    stub, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest(service="none")
    assert (await refusal(stub.Check(request)))[:2] == (grpc.StatusCode.NOT_FOUND, "SERVICE_NOT_FOUND")
    watch = stub.Watch(request)
    assert (await watch.read()).status == UNKNOWN
    watch.cancel()


async def test_a_watcher_that_takes_nothing_does_not_hold_up_a_drain(service: Served) -> None:
    host, port = service.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    no_window = frame(4, 0, 0, bytes.fromhex("000400000000"))  # SETTINGS_INITIAL_WINDOW_SIZE 0
    headers = b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/grpc.health.v1.Health/Watch"),
            (b":authority", b"x"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + no_window + frame(1, 4, 1, headers) + frame(0, 1, 1, b"\0" * 5))
    await asyncio.sleep(0.5)  # until it is stuck in its first write
    async with grpc.aio.insecure_channel(service.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert (await check(health_pb2.HealthCheckRequest(), timeout=5)).status == SERVING
        draining = asyncio.create_task(service.listeners.drain(0.5, 5.0))
        await asyncio.sleep(0.1)
        assert (await check(health_pb2.HealthCheckRequest(), timeout=5)).status == NOT_SERVING
        assert await asyncio.wait_for(draining, 5) == 0
    writer.close()


async def test_watches_and_reflections_are_bounded_together_and_checks_are_not(
    channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standard_calls, "_MOST_OPEN", 2)
    stub, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
    watches = [stub.Watch(request) for _ in range(2)]
    for watch in watches:
        await watch.read()
    expected = (grpc.StatusCode.RESOURCE_EXHAUSTED, "CONCURRENCY_EXCEEDED")
    assert (await refusal(stub.Watch(request).read()))[:2] == expected
    reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    assert (await refusal(reflect(iter(())).read()))[:2] == expected
    assert (await stub.Check(request)).status == SERVING
    watches[0].cancel()
    async with asyncio.timeout(10):
        while await has_place(stub) is False:
            await asyncio.sleep(0.01)


async def has_place(stub: Any) -> bool:
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    try:
        return (await watch.read()) is not grpc.aio.EOF
    except grpc.aio.AioRpcError:
        return False
    finally:
        watch.cancel()


async def test_a_call_that_says_nothing_is_ended(channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_calls, "_SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(standard_calls, "_ARRIVAL_SECONDS", 0.1)
    for path in ("grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"):
        call = channel.stream_stream(f"/{path}")()
        assert (await refusal(call.read()))[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED")
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    assert (await refusal(reflection.read()))[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
