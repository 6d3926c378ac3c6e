"""Health and reflection, asked with bytes that are no question."""

import grpc

from tests.service.refusals import refusal

NO_MESSAGE = b"\x0a\xff\xff\xff\xff\x0f"  # a field that is longer than what follows


async def test_a_health_check_that_is_no_message_is_refused_by_name(channel: grpc.aio.Channel) -> None:
    refused = await refusal(channel.unary_unary("/grpc.health.v1.Health/Check")(NO_MESSAGE))
    assert refused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")


async def test_a_health_watch_that_is_no_message_is_refused_by_name(channel: grpc.aio.Channel) -> None:
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(NO_MESSAGE)
    refused = await refusal(watch.read())
    assert refused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")


async def test_a_question_of_reflection_that_is_no_message_is_refused_by_name(channel: grpc.aio.Channel) -> None:
    asking = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
    await asking.write(NO_MESSAGE)
    refused = await refusal(asking.read())
    assert refused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")
