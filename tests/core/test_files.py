"""Files are whole or not there, also when the disk is full."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyloop.core import files
from policyloop.core.files import read_file, write_directory, write_file
from policyloop.errors import StorageError, VerificationError


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", b"old")
    write_file(tmp_path / "a.json", b"new")
    assert contents(tmp_path) == {"a.json": b"new"}


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, full_disk: Callable[[int], Any]
) -> None:
    write_file(tmp_path / "a.json", b"old")
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        write_file(tmp_path / "a.json", bytes(2000))
    assert contents(tmp_path) == {"a.json": b"old"}


def test_a_directory_is_written_with_its_parents_and_replaced_as_a_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "000001"
    write_directory(final, {"a": b"1", "sub/b": b"2"})
    write_directory(final, {"sub/c": b"3"})
    assert contents(tmp_path) == {"deep/000001/sub/c": b"3"}


def test_a_directory_that_does_not_fit_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, full_disk: Callable[[int], Any]
) -> None:
    final = tmp_path / "000001"
    write_directory(final, {"a": b"1"})
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        write_directory(final, {"a": b"2", "b": bytes(2000)})
    assert contents(tmp_path) == {"000001/a": b"1"}


def test_what_an_interrupted_write_left_behind_is_replaced(tmp_path: Path) -> None:
    write_directory(tmp_path / ".000001.new", {"half": b"?"})
    write_directory(tmp_path / "000001", {"a": b"1"})
    assert contents(tmp_path) == {"000001/a": b"1"}


def test_a_reader_sees_the_old_or_the_new_directory_and_never_neither(tmp_path: Path) -> None:
    final = tmp_path / "000001"
    write_directory(final, {"a": b"-1"})
    seen: list[bytes | None] = []
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                seen.append((final / "a").read_bytes())
            except FileNotFoundError:
                seen.append(None)
            reading.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(10)
    for turn in range(100):
        write_directory(final, {"a": b"%d" % turn})
    done.set()
    reader.join()
    assert None not in seen
    assert contents(tmp_path) == {"000001/a": b"99"}


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot swap two names, such as NFS."""
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)


@pytest.mark.usefixtures("without_exchange")
def test_a_directory_is_replaced_where_names_cannot_be_swapped(tmp_path: Path) -> None:
    (tmp_path / ".000001.old").mkdir()
    (tmp_path / ".000001.old" / "left behind").touch()
    for data in (b"1", b"2"):
        write_directory(tmp_path / "000001", {"a": data})
    assert contents(tmp_path) == {"000001/a": b"2"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["000001"]


@pytest.mark.usefixtures("without_exchange")
def test_a_directory_that_cannot_be_replaced_gets_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_directory(tmp_path / "000001", {"a": b"1"})
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.suffix == ".new":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space"):
        write_directory(tmp_path / "000001", {"a": b"2"})
    assert contents(tmp_path) == {"000001/a": b"1"}


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("..")], ids=["a file", "a link"])
def test_what_is_no_directory_is_not_replaced_by_one(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "000001")
    with pytest.raises(NotADirectoryError):
        write_directory(tmp_path / "000001", {"a": b"1"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["000001"]


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a", 5) == b"12345"
    with pytest.raises(VerificationError, match="larger than 4 bytes"):
        read_file(tmp_path / "a", 4)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*missing: No such file"):
        read_file(tmp_path / "missing", 5)
    with pytest.raises(StorageError, match="is no file"):
        read_file(tmp_path, 5)
