"""Reading files of a folder that somebody else filled: plain files only, no larger than expected, and never waiting."""

import os
import stat
from pathlib import Path

from bundle.errors import UnsafeFile

MAX_FILES = 64  # in a bundle's folder; real ones have 7


def file_names(folder: Path) -> list[str]:
    """Return the names of everything in ``folder``, in order.

    Raises:
        UnsafeFile: It is no folder, or holds more than ``MAX_FILES``.
    """
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) > MAX_FILES:
                    raise UnsafeFile(f"the folder holds more than {MAX_FILES} files")
    except OSError as error:
        raise UnsafeFile(f"the folder cannot be read: {error.strerror}") from error
    return sorted(names)


def read(path: Path, most_bytes: int) -> bytes:
    """Return the content of a plain file of at most ``most_bytes``.

    The file is opened without following a link and without waiting for the other end of a pipe, and looked at only
    then: what is checked is what is read.

    Raises:
        FileNotFoundError: There is none.
        UnsafeFile: It is a link, a folder, a pipe or a device, it is larger, or it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        what = "is a link; only plain files are read" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise UnsafeFile(f"{path.name} {what}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(f"{path.name} is no plain file")
        if found.st_size > most_bytes:
            raise UnsafeFile(f"{path.name} has {found.st_size} bytes; at most {most_bytes} are read")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(found.st_size + 1)
    except OSError as error:
        raise UnsafeFile(f"{path.name} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) > found.st_size:
        raise UnsafeFile(f"{path.name} grew while it was read")
    return content
