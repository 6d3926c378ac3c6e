"""Files of a folder that somebody else filled."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle import plain_files
from bundle.errors import UnsafeFile


def test_a_plain_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert plain_files.read(file, 5) == b"12345"
    with pytest.raises(UnsafeFile, match="file has 5 bytes; at most 4 are read"):
        plain_files.read(file, 4)
    with pytest.raises(FileNotFoundError):
        plain_files.read(tmp_path / "other", 4)


def test_a_file_that_only_looks_large_is_refused_without_being_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, 1 << 40)
    with pytest.raises(UnsafeFile, match="at most"):
        plain_files.read(file, 1 << 30)


def bind(path: Path) -> None:
    os.chdir(path.parent)  # the path of a socket must be short
    socket.socket(socket.AF_UNIX).bind(path.name)


@pytest.mark.filterwarnings("ignore:unclosed")
@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (os.mkfifo, "is no plain file"),
        (os.mkdir, "is no plain file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a link; only plain files are read"),
        (lambda path: path.symlink_to("file"), "is a link; only plain files are read"),
        (lambda path: path.symlink_to("nowhere"), "is a link; only plain files are read"),
        (bind, "cannot be read"),
    ],
)
def test_what_is_no_plain_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "file")
    with pytest.raises(UnsafeFile, match=f"file {fault}"):
        plain_files.read(tmp_path / "file", 1000)


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path) -> None:
    for number in range(plain_files.MAX_FILES):
        (tmp_path / str(number)).touch()
    assert len(plain_files.file_names(tmp_path)) == plain_files.MAX_FILES
    (tmp_path / "more").touch()
    with pytest.raises(UnsafeFile, match="more than 64 files"):
        plain_files.file_names(tmp_path)
    with pytest.raises(UnsafeFile, match="the folder cannot be read"):
        plain_files.file_names(tmp_path / "more")
