"""grpc.aio's server, with an accept loop that no caller can end, and how a call is refused.

The loop of grpc 1.85 decodes the path of every call to a method that is not registered, and ends, and the server with
it, at one that is not UTF-8. Here every method is registered, and all other calls are answered without a look at
their path. That takes three names of gRPC that are not public; a test sends the frame that ends gRPC's own loop.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc
import structlog
from grpc._cython import cygrpc

from service.incoming import REQUEST_ID_HEADER, Refusal
from service.status import pushback

_DETAILS_HEADER = "grpc-status-details-bin"  # where clients look for a google.rpc.Status
_CODES = {code.value[0]: code for code in grpc.StatusCode}

_log = structlog.get_logger()

Refuse = Callable[[Any], Awaitable[None]]


def accepting_server(options: Sequence[tuple[str, int]], refuse: Refuse, lost: Callable[[], None]) -> grpc.aio.Server:
    """Return a server whose methods must be registered (``add_registered_method_handlers``).

    Args:
        options: gRPC's channel arguments.
        refuse: Ends a call to any other method, given its context; ``context.abort`` may be left to raise.
        lost: Called if the server accepts no more calls, though nobody stopped it.
    """
    server = grpc.aio.server()
    server._server = _Server(server._loop, options, refuse, lost)
    return server


async def abort(context: Any, refusal: Refusal) -> NoReturn:
    """End a call with a refusal, by raising."""
    status = refusal.status
    trailing = (
        (_DETAILS_HEADER, status.SerializeToString()),
        (REQUEST_ID_HEADER, refusal.request_id),
        *(pushback(refusal.error) if refusal.error else ()),
    )
    await context.abort(_CODES[status.code], status.message, trailing)
    raise AssertionError("abort returned")


class _Server(cygrpc.AioServer):  # type: ignore[misc]  # grpc has no type stubs
    def __new__(cls, loop: asyncio.AbstractEventLoop, options: Sequence[tuple[str, int]], *_: Any) -> "_Server":
        server: _Server = super().__new__(cls, loop, None, (), (), tuple(options), None)
        return server

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: Sequence[tuple[str, int]],
        refuse: Refuse,
        lost: Callable[[], None],
    ) -> None:
        super().__init__(loop, None, (), (), tuple(options), None)
        self._event_loop = loop
        self._refuse = refuse
        self._lost = lost
        self._refusals: set[asyncio.Task[None]] = set()

    async def _server_main_loop(self, started: "asyncio.Future[Any]") -> None:
        try:
            await super()._server_main_loop(started)
        except Exception as error:  # gRPC would tell of it when the server is stopped, and fail to stop it
            _log.error("a server ended by itself", error=type(error).__name__)  # what it says may be a caller's
            self._lost()

    def _make_request_call_future(self, method: Any) -> "asyncio.Future[Any]":
        if method is not None:
            future: asyncio.Future[Any] = super()._make_request_call_future(method)
            return future
        return self._event_loop.create_task(self._refuse_others())

    async def _refuse_others(self) -> None:
        while True:
            state = await self._request_call()
            context = cygrpc._ServicerContext(state, None, None, self._event_loop)
            refusal = self._event_loop.create_task(self._refused(context))
            self._refusals.add(refusal)
            refusal.add_done_callback(self._refusals.discard)

    async def _refused(self, context: Any) -> None:
        with contextlib.suppress(grpc.aio.AbortError, cygrpc.ExecuteBatchError):  # told, or gone already
            await self._refuse(context)
