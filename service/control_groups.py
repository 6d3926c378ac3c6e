"""The control groups that the process is in, of both versions: where the kernel writes what a container may take."""

from collections.abc import Iterator
from pathlib import Path


def groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Yield the version and the folder of every group that may limit what ``controller`` controls.

    A group's limit holds for the groups inside it, so those around the process's own are among them. Inside a
    container, those above it are not to be seen, and its own may stand at the top. Folders need not exist.

    Args:
        controller: For instance ``memory`` or ``cpu``.
        root: Of the file system that the kernel tells this in.
    """
    membership = root / "proc" / "self" / "cgroup"
    if not membership.is_file():  # not Linux
        return
    for line in membership.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup"
        if controllers:  # the first version: mounted together with others, or under its own name, or both
            top = top / controller if (top / controller).is_dir() else top / controllers
        own = Path(group.strip("/"))
        for each in (own, *own.parents):
            yield (1 if controllers else 2), top / each
