"""What stands in a folder of bundles, told from outside: names, sizes and times of files, and manifests."""

import contextlib
import itertools
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from bundle import manifest as manifests
from bundle.errors import InvalidBundle
from bundle.manifest import MANIFEST_FILE, Manifest
from bundle.plain_files import MAX_FILES
from service.models.registry import Natural, natural

FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")  # what is hidden is still being written

Signature = tuple[tuple[str, int, int, int], ...]  # of every file: name, size, nanoseconds of the last change, inode


def holds_bundle(folder: Path) -> bool:
    """Return whether ``folder`` has a manifest, of whatever kind."""
    return os.path.lexists(folder / MANIFEST_FILE)


def bundles(root: Path) -> dict[str, Signature]:
    """Return the subfolders of ``root`` that hold a bundle: name, and what tells whether it has changed.

    Raises:
        OSError: ``root`` cannot be read.
    """
    found = {}
    with os.scandir(root) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # it went while we looked
                if FOLDER_NAME.fullmatch(entry.name) and holds_bundle(Path(entry)):
                    found[entry.name] = _signature(Path(entry))
    return found


def ripe(root: Path, names: Sequence[str], quiet: Collection[str]) -> list[str]:
    """Return those of ``names`` that are not being written any more, in the order in which they are to be loaded.

    That is by name and version, so that the newest version of a name comes last and stays active.

    Args:
        root: Where the subfolders are.
        names: Of subfolders.
        quiet: Those of them that have not changed lately; others must have every file that their manifest lists.
    """
    order: dict[str, tuple[Natural, Natural]] = {}
    for name in names:
        try:
            manifest = manifests.read(root / name)
        except InvalidBundle:
            if name in quiet:
                order[name] = natural(""), natural("")  # to be refused with all that is wrong with it
            continue
        if name in quiet or _is_complete(root / name, manifest):
            order[name] = natural(manifest.bundle_id), natural(manifest.version)
    return sorted(order, key=lambda name: (order[name], natural(name)))


def _signature(folder: Path) -> Signature:
    files = []
    with os.scandir(folder) as entries:
        for entry in itertools.islice(entries, MAX_FILES + 1):
            looks = entry.stat(follow_symlinks=False)
            # The time of any change: a copy may set that of the last modification back.
            files.append((entry.name, looks.st_size, looks.st_ctime_ns, looks.st_ino))
    return tuple(sorted(files))


def _is_complete(folder: Path, manifest: Manifest) -> bool:
    """Return whether a folder has the files of its manifest, in the sizes it says."""
    sizes = {name: size for name, size, _, _ in _signature(folder) if name != MANIFEST_FILE}
    return sizes == {name: file.size_bytes for name, file in manifest.files.items()}
