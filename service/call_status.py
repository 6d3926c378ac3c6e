"""What became of a call over gRPC, for whoever made it: the service's own status, or what to do where it has none."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

_FAILED_WRITE = "Internal error from Core"  # what grpc.aio makes of a write after the service has answered
_LOOPBACK = "ipv6:%5B::1%5D"  # of the addresses of a name, gRPC tells of the last one tried
_POLLS, _POLL_SECONDS = 100, 0.01

_MISTAKES_OVER_TLS = {  # by what gRPC says of them
    "Hostname Verification": "its certificate has another name; give that name with --tls-server-name",
    "not in peer certificate": "its certificate has another name; give that name with --tls-server-name",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is signed by nobody you trust; name who did with --tls-authority",
    "WRONG_VERSION_NUMBER": "it speaks no TLS; leave out --tls, --tls-authority, --tls-server-name and --certificate",
    "Socket closed": "it hangs up; it may be restarting, or ask for a certificate (--certificate, --certificate-key)",
}
_MISTAKES_IN_PLAIN_TEXT = {
    "Socket closed": "it hangs up; it may be restarting, or speak TLS (--tls-authority, or --tls)",
}


class Statuses:
    """Every status that a call has had.

    A call that still writes when the service refuses it has two: grpc.aio takes the write that came too late for an
    internal error, after it has read the refusal or before.
    """

    def __init__(self, call: Any) -> None:
        """Watch a call that was begun just now."""
        self._errors: list[grpc.aio.AioRpcError] = []
        call.add_done_callback(lambda ended: self._errors.append(_status(ended)))

    async def own(self, error: "grpc.aio.AioRpcError") -> "grpc.aio.AioRpcError":
        """Return what the service ended the call with, for a call that failed with ``error``."""
        for _ in range(_POLLS if error.details() == _FAILED_WRITE else 0):
            if own := [status for status in self._errors if status.details() != _FAILED_WRITE]:
                return own[0]
            await asyncio.sleep(_POLL_SECONDS)
        return error


def unreached(address: str, details: str, tls: bool) -> str:
    """Return what to do about a service that could not be reached.

    Args:
        address: Where it was looked for.
        details: What gRPC says of it.
        tls: Whether it was to speak TLS.
    """
    for sign, mistake in (_MISTAKES_OVER_TLS if tls else _MISTAKES_IN_PLAIN_TEXT).items():
        if sign in details:
            return f"what listens at {address} takes no call: {mistake}. gRPC says: {details}"
    other_loopback = " If it listens at 127.0.0.1 alone, say that instead of localhost." if _LOOPBACK in details else ""
    return (
        f"no Interlinear service answers at {address} ({details}). Start one with `interlinear serve`, "
        f"or name another with --address or INTERLINEAR_GRPC_ADDRESS.{other_loopback}"
    )


def _status(call: Any) -> "grpc.aio.AioRpcError":
    """Return the status of a call that has one, at once: a moment later it may have another."""
    asked = (call.code(), call.initial_metadata(), call.trailing_metadata(), call.details())
    return grpc.aio.AioRpcError(*map(_result, asked))


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("the call has no status yet")
