"""Full disks, damaged journals, stores that would not drive: all made for real where a test may."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.doctor import disks
from policyloop.doctor.finding import Finding
from policyloop.doctor.scope import Scope
from policyloop.errors import IncompatibleError, StorageError, VerificationError
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

GB = 1 << 30
SCOPE = Scope(profile="rover-mini")


@pytest.fixture
def journal(mini: RobotProfile, make_step: Callable[..., object], tmp_path: Path) -> Callable[..., Path]:
    """Return `journal(sequences)`: the directory of a recording of these steps."""

    def record(sequences: range | list[int]) -> Path:
        opened = Journal(tmp_path / "journal", mini, writable=True)
        for sequence in sequences:
            opened.append(encode_step(make_step(mini, sequence), mini))
        opened.close()
        return tmp_path / "journal"

    return record


@pytest.fixture
def store(exported: Bundle, tmp_path: Path) -> Store:
    found = Store(tmp_path / "store")
    found.activate(found.add(exported))
    return found


def disk(free_bytes: int, files: int = 100_000) -> Callable[[Path], os.statvfs_result]:
    """Return a stand-in for `os.statvfs` of a disk with so much room."""
    return lambda path: os.statvfs_result(
        (4096, 4096, 1 << 30, 1 << 30, free_bytes // 4096, 200_000, files, files, 0, 255)
    )


def on(kind: str, tmp_path: Path) -> Path:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"35 22 0:31 / {tmp_path} rw,nosuid shared:1 - {kind} none rw\n"
        f"36 22 0:31 / {tmp_path}x rw - nonsense none rw\n"
    )
    return mounts


@pytest.mark.parametrize(
    ("free", "kind", "state"),
    [
        (9 * GB, "ext4", "fine"),
        (3 * GB, "ext4", "doubtful"),
        (9 * GB, "tmpfs", "doubtful"),
        (9 * GB, "nfs4", "doubtful"),
        (9 * GB, "fuse.sshfs", "doubtful"),
    ],
)
def test_a_disk_is_judged_by_its_room_and_its_kind(tmp_path: Path, free: int, kind: str, state: str) -> None:
    found = disks.room("disk", tmp_path / "not" / "yet", statvfs=disk(free), mounts=on(kind, tmp_path))
    assert found.state == state
    assert kind in found.found


def test_a_disk_without_room_or_without_inodes_is_full(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="full"):
        disks.room("disk", tmp_path, statvfs=disk(GB // 8))
    with pytest.raises(StorageError, match="10 more files"):
        disks.room("disk", tmp_path, statvfs=disk(90 * GB, files=10))
    found = disks.room("disk", tmp_path, statvfs=disk(3 * GB), budget_bytes=2 * GB, mounts=on("ext4", tmp_path))
    assert found.state == "fine"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("NOT TESTED, this user may not mount a file system: see the stand-in above")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_file_system_is_full(small: Path) -> None:
    with pytest.raises(StorageError, match=r"0\.0 GB free in .* \(tmpfs\)"):
        disks.room("disk", small / "journal")


def test_a_spool_needs_room_for_the_rest_of_its_budget(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with (tmp_path / "000000000000.seg").open("wb") as segment:
        segment.truncate(2 * free)  # a hole: it takes no room
    assert "may be written" in disks.spooled(tmp_path, 3 * free + GB).remedy
    assert "may be written" not in disks.spooled(tmp_path, 2 * free).remedy


def test_a_whole_journal_is_fine(journal: Callable[..., Path]) -> None:
    found = disks.recorded(journal(range(30)))
    assert [one.state for one in found] == ["fine"]
    assert "30 steps of 'rover-mini'" in found[0].found


def test_a_damaged_byte_in_a_journal_is_found(journal: Callable[..., Path]) -> None:
    path = journal(range(30))
    segment = next(path.glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    with pytest.raises(VerificationError, match="damaged"):
        disks.recorded(path)


def test_a_torn_tail_is_damage_unless_somebody_is_writing(journal: Callable[..., Path], mini: RobotProfile) -> None:
    path = journal(range(5))
    segment = next(path.glob("*.seg"))
    with segment.open("ab") as file:
        file.write(b"\xf5REC, and then the power went")
    with pytest.raises(VerificationError):
        disks.recorded(path)
    writer = Journal(path, mini, writable=True)
    with segment.open("ab") as file:
        file.write(b"\xf5REC, on its way")
    found = disks.recorded(path)
    writer.close()
    assert (found[0].state, "being written" in found[0].found) == ("fine", True)


def test_many_missing_steps_are_doubtful_and_counted(journal: Callable[..., Path]) -> None:
    found = disks.recorded(journal([*range(10), *range(14, 20), *range(30, 40)]))
    assert [one.state for one in found] == ["fine", "doubtful"]
    assert found[1].found.startswith("14 steps are missing in 2 places among the newest 26")


def test_no_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        disks.recorded(tmp_path)


def test_a_store_that_would_drive_is_fine(store: Store) -> None:
    found = disks.versions(store.directory, SCOPE)
    assert (found.state, "whole" in found.found) == ("fine", True)


def test_an_empty_store_is_absent_and_one_without_a_current_version_doubtful(exported: Bundle, tmp_path: Path) -> None:
    assert disks.versions(tmp_path, SCOPE).state == "absent"
    Store(tmp_path).add(exported)
    assert disks.versions(tmp_path, SCOPE).state == "doubtful"


def test_a_store_whose_current_version_is_damaged_lost_or_for_another_robot_is_refused(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleError):
        disks.versions(store.directory, Scope(profile="rover"))
    assert store.current is not None
    network = store.current / NETWORK_NAME
    network.write_bytes(network.read_bytes()[:-1] + b"\0")
    with pytest.raises(VerificationError):
        disks.versions(store.directory, SCOPE)
    store.current.rename(tmp_path / "gone")
    with pytest.raises(StorageError, match="is not there"):
        disks.versions(store.directory, SCOPE)


def test_an_unsigned_bundle_is_refused_where_somebody_is_trusted(store: Store, tmp_path: Path) -> None:
    (tmp_path / "keys" / "trusted").mkdir(parents=True)
    with pytest.raises(VerificationError, match="not signed"):
        disks.versions(store.directory, msgspec.structs.replace(SCOPE, keys=str(tmp_path / "keys")))


def test_only_what_was_named_is_looked_at(journal: Callable[..., Path], store: Store, tmp_path: Path) -> None:
    assert disks.checks(Scope()) == []
    scope = Scope(journal=str(journal(range(3))), store=str(store.directory), spool=str(tmp_path), profile="rover-mini")
    answers = [check.ask() for check in disks.checks(scope)]
    assert len(answers) == 5
    assert all(isinstance(one, Finding | list) for one in answers)


def test_a_file_in_place_of_a_folder_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is no folder"):
        disks.room("disk of the store", tmp_path / "file")
