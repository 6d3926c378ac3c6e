"""What a refusal tells, over either transport; one that tells too little fails the test that reads it."""

from collections.abc import Awaitable
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2


class Refusal(NamedTuple):
    """How a call over gRPC was refused."""

    code: grpc.StatusCode
    reason: str
    field: str
    message: str


async def refusal(call: Awaitable[Any]) -> Refusal:
    """Return how a call ended that must fail, which must be with a google.rpc.Status with a request id."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"])
    reason, field, request_id = told(status)
    assert request_id
    assert status.message == caught.value.details()
    return Refusal(caught.value.code(), reason, field, status.message)


def reason_and_field(response: httpx.Response) -> tuple[int, str, str]:
    """Return HTTP status, reason and field of a refusal, which must be a google.rpc.Status with a request id."""
    reason, field, request_id = told(json_format.Parse(response.text, status_pb2.Status()))
    assert request_id == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    return response.status_code, reason, field


def told(status: status_pb2.Status) -> tuple[str, str, str]:
    """Return reason, field and request id of a status with a message that is more than a word; "" for what it lacks."""
    info, fault = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    call = error_details_pb2.RequestInfo()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(fault) or detail.Unpack(call)
    assert info.domain == "interlinear"
    assert len(status.message.split()) > 3
    return info.reason, fault.field_violations[0].field if fault.field_violations else "", call.request_id
