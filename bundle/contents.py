"""A bundle's files, read once and compared with its manifest: what was verified is what is used."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle import plain_files
from bundle.errors import InvalidBundle, UnsafeFile
from bundle.manifest import FILE_NAME, MANIFEST_FILE, FileDigest, Manifest, most_bytes, read_with_faults


@dataclass(frozen=True, repr=False)
class Bundle:
    """A bundle as it was read; its folder may be gone by now, or hold something else.

    Attributes:
        folder: Where it was.
        manifest: What it says about itself.
        files: The content of every other file, by name.
    """

    folder: Path
    manifest: Manifest
    files: Mapping[str, bytes]


def read(folder: Path) -> Bundle:
    """Return the bundle in ``folder``.

    Raises:
        InvalidBundle: Every fault: those of the manifest, and missing, extra, truncated or edited files, links, pipes.
    """
    manifest, faults = read_with_faults(folder)
    files: dict[str, bytes] = {}
    if manifest is not None:
        faults = [*faults, *_file_faults(folder, manifest.files, files)]
    if manifest is None or faults:
        raise InvalidBundle(folder, faults)
    return Bundle(folder, manifest, files)


def _file_faults(folder: Path, files: Mapping[str, FileDigest], contents: dict[str, bytes]) -> Iterator[str]:
    """Yield what is wrong with the files of ``folder``, and put their contents into ``contents``."""
    try:
        present = set(plain_files.file_names(folder)) - {MANIFEST_FILE}
    except UnsafeFile as error:
        yield str(error)
        return
    yield from (f"{name} is in the folder but not in the manifest" for name in sorted(present - files.keys()))
    for name, expected in files.items():
        if not FILE_NAME.fullmatch(name):
            continue  # already a fault; its path is never opened
        try:
            content = contents[name] = plain_files.read(folder / name, most_bytes(name))
        except FileNotFoundError:
            yield f"{name} is missing"
        except UnsafeFile as error:
            yield str(error)
        else:
            if len(content) != expected.size_bytes:
                yield f"{name} has {len(content)} bytes; the manifest says {expected.size_bytes}"
            elif hashlib.sha256(content).hexdigest() != expected.sha256:
                yield f"{name} was changed: its SHA-256 is not the manifest's"
