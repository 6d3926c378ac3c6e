"""How much memory the process may take, and how much of it is replies that their callers have not taken yet."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from service.control_groups import groups
from service.errors import InvalidSettings, MemoryFull
from service.metrics import Metrics

_SHARE = 0.9  # of the container's limit; above it the kernel would kill the process, and every call with it
_UNLIMITED = 1 << 60  # the first version of control groups writes no limit as almost 2**63
_MOST_UNSENT_BYTES = 256 << 20
_FRESH_SECONDS = 0.1  # how long a reading is believed
_RETRY_SECONDS = 1.0
_MIB = 1 << 20


class MemoryCeiling:
    """Refuses new work while the process is too large, or too much of it waits to be sent.

    Attributes:
        limit_bytes: Resident size from which work is refused; 0 for no limit.
        unsent_bytes: Replies that are on their way.
    """

    def __init__(self, limit_bytes: int, metrics: Metrics, root: Path = Path("/")) -> None:
        """Find the limit.

        Args:
            limit_bytes: As set; 0 takes nine tenths of the container's limit, if it has one.
            metrics: Where both sizes go.
            root: Of the file system that the kernel tells sizes in.

        Raises:
            InvalidSettings: A limit is set, and this system does not tell how large a process is.
        """
        self._statm = root / "proc" / "self" / "statm"
        if limit_bytes and not self._statm.is_file():
            raise InvalidSettings(
                f"INTERLINEAR_MEMORY_LIMIT_BYTES={limit_bytes}: this system has no {self._statm}, so the size of the "
                "process is not known and cannot be limited; leave the setting at 0."
            )
        self.limit_bytes = limit_bytes or int(_SHARE * container_limit_bytes(root))
        self.unsent_bytes = 0
        self._read_at = -_FRESH_SECONDS
        self._resident_bytes = 0
        metrics.memory.limit_bytes.set(self.limit_bytes)
        metrics.memory.unsent_bytes.set_function(lambda: self.unsent_bytes)

    def check(self, in_flight: int) -> None:
        """Accept new work; the size is read ten times a second at most.

        Args:
            in_flight: Calls that are being answered. With none, and no reply on its way, any size is accepted: what is
                resident then would not go away by refusing, and a process that refuses for ever is no use.

        Raises:
            MemoryFull: The process is at its limit, or slow readers have left too many replies with it.
        """
        if self.unsent_bytes >= _MOST_UNSENT_BYTES:
            raise MemoryFull(
                f"{self.unsent_bytes // _MIB} MiB of replies wait for callers who do not read them; "
                f"try again in {_RETRY_SECONDS:.0f} s",
                _RETRY_SECONDS,
            )
        busy = in_flight or self.unsent_bytes
        if self.limit_bytes and busy and self._resident() >= self.limit_bytes:
            raise MemoryFull(
                f"the process has {self._resident_bytes // _MIB} MiB of memory, and takes nothing new above "
                f"{self.limit_bytes // _MIB} MiB; try again in {_RETRY_SECONDS:.0f} s",
                _RETRY_SECONDS,
            )

    @contextlib.contextmanager
    def unsent(self, size_bytes: int) -> Iterator[None]:
        """Count a reply while the context lasts: until the transport has taken it."""
        self.unsent_bytes += size_bytes
        try:
            yield
        finally:
            self.unsent_bytes -= size_bytes

    def _resident(self) -> int:
        now = time.monotonic()
        if now - self._read_at >= _FRESH_SECONDS:
            self._read_at = now
            self._resident_bytes = int(self._statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return self._resident_bytes


def container_limit_bytes(root: Path = Path("/")) -> int:
    """Return the least memory limit of the control groups that this process is in; 0 if there is none.

    Both versions of control groups are read. A group's limit holds for the groups inside it; inside a container, those
    above it are not to be seen, and its own may stand at the top.
    """
    names = {1: "memory.limit_in_bytes", 2: "memory.max"}
    limits = (_limit(folder / names[version]) for version, folder in groups("memory", root))
    return min((limit for limit in limits if limit), default=0)


def _limit(file: Path) -> int:
    content = file.read_text().strip() if file.is_file() else "max"
    return int(content) if content != "max" and int(content) < _UNLIMITED else 0
