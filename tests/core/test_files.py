"""Files are whole or not there, also when the disk is full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyloop.core.files import write_directory, write_file


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
