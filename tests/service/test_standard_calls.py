"""Health and reflection, asked with bytes that are no question."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.service.edge import served
from tests.service.test_listeners import status_of

NO_MESSAGE = b"\x0a\xff\xff\xff\xff\x0f"  # a field that is longer than what follows


@pytest.fixture
async def channel(tiny_bundle: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with served(tiny_bundle) as running, grpc.aio.insecure_channel(running.address) as open_channel:
        yield open_channel


async def test_a_health_check_that_is_no_message_is_refused_by_name(channel: grpc.aio.Channel) -> None:
    refused = await status_of(channel.unary_unary("/grpc.health.v1.Health/Check")(NO_MESSAGE))
    assert refused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")


async def test_a_health_watch_that_is_no_message_is_refused_by_name(channel: grpc.aio.Channel) -> None:
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(NO_MESSAGE)
    refused = await status_of(watch.read())
    assert refused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")


async def test_a_question_of_reflection_that_is_no_message_is_refused_by_name(channel: grpc.aio.Channel) -> None:
    asking = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
    await asking.write(NO_MESSAGE)
    refused = await status_of(asking.read())
    assert refused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")
