from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyloop.errors import SafetyRefusal, StorageError, UsageError, VerificationError
from policyloop.robot.bridge.header import Header
from policyloop.robot.bridge.shared_file import SharedFile, shared_path

HEADER = Header(owner_floats=2, guest_floats=3, kp=(0.1, 0.2), kd=(0.1, 0.2), pose=(0.1, 0.2))
OTHER = Header(owner_floats=2, guest_floats=4)


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_what_one_side_writes_the_other_reads(tmp_path: Path) -> None:
    owner = SharedFile.create(tmp_path / "robot", HEADER)
    guest = SharedFile.open(tmp_path / "robot")
    owner.writer.write(1, 0, [1, 2])
    guest.writer.write(2, 0, [3, 4, 5])
    command, state = guest.reader.read(), owner.reader.read()
    assert command is not None and command.values.tolist() == [1, 2]
    assert state is not None and state.values.tolist() == [3, 4, 5]
    assert guest.header.encode() == HEADER.encode()
    assert (tmp_path / "robot").stat().st_mode & 0o777 == 0o600
    guest.close()
    owner.close()


def test_an_owner_that_comes_back_finds_its_guest_again(tmp_path: Path) -> None:
    path = tmp_path / "robot"
    first = SharedFile.create(path, HEADER)
    guest = SharedFile.open(path)
    first.writer.write(1, 0, [1, 2])
    before, at = guest.reader.read(), inode(path)
    first.close()
    second = SharedFile.create(path, HEADER)
    assert inode(path) == at
    second.writer.write(2, 0, [3, 4])
    after = guest.reader.read()
    assert before is not None and after is not None and after.counter > before.counter
    guest.close()
    second.close()


@pytest.mark.parametrize("damage", ["other", "short", "garbage", "empty", "long"])
def test_another_bridges_file_is_replaced_and_not_written_over(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "robot"
    old = SharedFile.create(path, OTHER if damage == "other" else HEADER)
    guest, at = SharedFile.open(path), inode(path)
    old.writer.write(1, 0, [1, 2])
    old.close()
    if damage in ("short", "empty", "long"):
        guest.close()  # it would be killed by SIGBUS: a mapped file must never be cut
        os.truncate(path, {"short": 200, "empty": 0, "long": 5000}[damage])
    if damage == "garbage":
        with path.open("r+b") as file:
            file.seek(40)
            file.write(b"garbage")
    fresh = SharedFile.create(path, HEADER)
    assert inode(path) != at
    fresh.writer.write(2, 0, [3, 4])
    if damage in ("other", "garbage"):
        seen = guest.reader.read()
        assert seen is not None and seen.values.tolist() == [1, 2]
        guest.close()
    fresh.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["robot"]


@pytest.mark.parametrize("content", [b"my notes", b"PLOOPB"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="is no bridge's file"):
        SharedFile.create(path, HEADER)
    assert path.read_bytes() == content


def test_two_programs_cannot_serve_one_robot(tmp_path: Path) -> None:
    first = SharedFile.create(tmp_path / "robot", HEADER)
    for header in (HEADER, OTHER):
        with pytest.raises(UsageError, match="another program serves"):
            SharedFile.create(tmp_path / "robot", header)
    first.close()
    SharedFile.create(tmp_path / "robot", OTHER).close()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "robot"
    SharedFile.create(path, HEADER).close()
    path.chmod(mode)
    for make in (lambda: SharedFile.create(path, HEADER), lambda: SharedFile.open(path)):
        with pytest.raises(SafetyRefusal, match="others may open it"):
            make()


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED, only root can give a file away: run as root")
def test_another_users_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "robot"
    SharedFile.create(path, HEADER).close()
    os.chown(path, 12345, -1)
    with pytest.raises(SafetyRefusal):
        SharedFile.create(path, HEADER)
    with pytest.raises(SafetyRefusal):
        SharedFile.open(path)


def test_a_link_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    SharedFile.create(tmp_path / "robot", HEADER).close()
    (tmp_path / "link").symlink_to(tmp_path / "robot")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "folder", "pipe"):
        with pytest.raises((StorageError, SafetyRefusal)):
            SharedFile.create(tmp_path / name, HEADER)
        with pytest.raises((StorageError, SafetyRefusal)):
            SharedFile.open(tmp_path / name)


def test_a_folder_in_which_others_may_rename_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SafetyRefusal, match="others may rename"):
        SharedFile.create(tmp_path / "open" / "robot", HEADER)


def test_there_must_be_a_whole_file_to_open(tmp_path: Path) -> None:
    path = tmp_path / "robot"
    with pytest.raises(StorageError):
        SharedFile.open(path)
    SharedFile.create(path, HEADER).close()
    os.truncate(path, HEADER.file_bytes - 1)
    with pytest.raises(VerificationError):
        SharedFile.open(path)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, full_disk: Callable[[int], Any]) -> None:
    with full_disk(100), pytest.raises(StorageError):
        SharedFile.create(tmp_path / "robot", HEADER)
    assert [entry.stat().st_size for entry in tmp_path.iterdir()] == [0]
    SharedFile.create(tmp_path / "robot", HEADER).close()


def test_files_of_two_users_do_not_meet() -> None:
    assert shared_path("lite3") == Path(f"/dev/shm/policyloop-{os.getuid()}-lite3")
    assert shared_path("../My Dog").name == f"policyloop-{os.getuid()}-..-my-dog"
