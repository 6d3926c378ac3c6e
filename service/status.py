"""The one table from what went wrong to a status of gRPC and of HTTP, and the google.rpc details that go with it."""

import math

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from service import errors

DOMAIN = "interlinear"

CODES: dict[type[errors.ServiceError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.MethodUnknown: grpc.StatusCode.UNIMPLEMENTED,
    errors.Unsupported: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RequestTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ResponseTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.StartupError: grpc.StatusCode.INTERNAL,  # ends the process before it listens; never seen by a caller
}

# As google.rpc.Code maps them, where the codes above are used.
HTTP_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
}

# Where HTTP has a better word than its word for the code: 429, for instance, would be taken for an advice to try again.
_HTTP_EXCEPTIONS: dict[type[errors.ServiceError], int] = {
    errors.MediaTypeInvalid: 415,
    errors.MethodUnknown: 404,
    errors.RequestTooLarge: 413,
    errors.ResponseTooLarge: 413,
}

# The service's fault or its state: another try, or another replica, may succeed with the same request.
TRANSIENT = (errors.Busy, errors.DeadlinePassed, errors.Unavailable)

_PUSHBACK = "grpc-retry-pushback-ms"  # gRPC clients obey it: wait so long before a retry; -1 forbids one


def code_of(error: errors.ServiceError) -> grpc.StatusCode:
    """Return the gRPC code of ``error``: that of its nearest ancestor in ``CODES``.

    Raises:
        KeyError: No ancestor is in the table.
    """
    for ancestor in type(error).__mro__:
        if ancestor in CODES:
            return CODES[ancestor]
    raise KeyError(type(error).__name__)


def http_status_of(error: errors.ServiceError | None) -> int:
    """Return the HTTP status of ``error``, or of a failure nobody foresaw."""
    if error is None:
        return HTTP_STATUSES[grpc.StatusCode.INTERNAL]
    return _HTTP_EXCEPTIONS.get(type(error), HTTP_STATUSES[code_of(error)])


def status_of(error: errors.ServiceError, field: str = "") -> status_pb2.Status:
    """Return ``error`` as a status with ErrorInfo and, where they apply, BadRequest or RetryInfo.

    Args:
        error: What went wrong.
        field: The offending field, where the caller knows it better than ``error`` (``texts[3]``).
    """
    status = status_pb2.Status(code=code_of(error).value[0], message=str(error))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if isinstance(error, errors.InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field or error.field, description=str(error), reason=error.reason
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, (errors.Busy, errors.Unavailable)):
        nanos = math.ceil(error.retry_after_seconds * 1e9)
        delay = duration_pb2.Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def internal_status(request_id: str) -> status_pb2.Status:
    """Return the status of a failure nobody foresaw: it tells the request id, for the log, and nothing else."""
    message = f"internal error; the service's log has it under request id {request_id}"
    status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN))
    return status


def pushback(error: errors.ServiceError) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata that tells a retrying client when to try again, or not to."""
    if isinstance(error, errors.Busy):
        return ((_PUSHBACK, str(math.ceil(error.retry_after_seconds * 1000))),)
    if isinstance(error, errors.ResponseTooLarge):
        return ((_PUSHBACK, "-1"),)
    return ()
