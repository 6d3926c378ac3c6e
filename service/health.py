"""How each service of a listener fares, for whoever asks once or watches; the words are those of grpc.health.v1."""

import asyncio
from collections.abc import AsyncGenerator, Iterable

from grpc_health.v1 import health_pb2

from service.errors import ServiceNotFound

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """The statuses of one listener's services; its methods belong to one event loop, and none waits for a watcher.

    Args:
        names: Of the services; the empty one stands for the listener. None of them is served yet.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._statuses = dict.fromkeys(names, NOT_SERVING)
        self._changed = asyncio.Event()  # each is set once, and gives way to another
        self._has_left = False

    def tell(self, names: Iterable[str], serving: bool) -> None:
        """Let it be known whether services are served; without effect after ``leave``."""
        if not self._has_left:
            self._change(dict.fromkeys(names, SERVING if serving else NOT_SERVING))

    def leave(self) -> None:
        """Let it be known that nothing is served any more, for good."""
        self._has_left = True
        self._change(dict.fromkeys(self._statuses, NOT_SERVING))

    def status(self, name: str) -> int:
        """Return a service's status.

        Raises:
            ServiceNotFound: This listener has no such service.
        """
        if name not in self._statuses:
            served = ", ".join(filter(None, self._statuses))
            raise ServiceNotFound(f"this listener has no service of that name; it has {served}, or all by no name")
        return int(self._statuses[name])

    async def statuses(self, name: str) -> AsyncGenerator[int, None]:
        """Yield a service's status, then every other that it changes to; who is slow sees only the last of several."""
        told = None
        while True:
            changed, status = self._changed, self._statuses.get(name, _UNKNOWN)
            if status == told:
                await changed.wait()
            else:
                yield status
                told = status

    def _change(self, statuses: dict[str, int]) -> None:
        self._statuses.update(statuses)
        self._changed.set()
        self._changed = asyncio.Event()
