"""Promises R17 to R20 at the robot's door: what is wrong is refused by name, and the store stays as it was."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from policyloop.bundle.archive import pack
from policyloop.bundle.build import Bundle, build_bundle
from policyloop.bundle.manifest import GOLDEN_NAME, MANIFEST_NAME, NETWORK_NAME, RKNN_NAME, Conversion
from policyloop.bundle.receive import Recipient, receive_bundle
from policyloop.bundle.signing import SIGNATURE_NAME, KeyRing, Signer, create_signer, sign_manifest
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.core.clock import utc
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import (
    ConnectionFailed,
    IncompatibleError,
    PolicyloopError,
    SafetyRefusal,
    StorageError,
    VerificationError,
)

Packer = Callable[[Bundle], bytes]


@pytest.fixture
def robot(mini: RobotProfile, ring: KeyRing, tmp_path: Path) -> Recipient:
    return Recipient(Store(tmp_path / "store"), mini, ring)


@pytest.fixture
def driving(robot: Recipient, exported: Bundle, pack_signed: Packer) -> Path:
    """Version 6 is here, and drives."""
    path = receive(pack_signed(exported.revised(version=6)), robot)
    robot.store.activate(path)
    return path


def receive(data: bytes, robot: Recipient) -> Path:
    return receive_bundle(io.BytesIO(data), robot)


def everything(directory: Path) -> dict[str, bytes | str]:
    """Every file and link below a directory, but for locks and history."""
    found: dict[str, bytes | str] = {}
    for path in sorted(directory.rglob("*")):
        if path.name in (".lock", ".receiving", "history.jsonl"):
            continue
        if path.is_symlink():
            found[str(path)] = str(path.readlink())
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


def refused(data: bytes, robot: Recipient, kind: type[PolicyloopError], words: str) -> PolicyloopError:
    """Check that bytes are refused with this error, and that nothing was changed anywhere."""
    around = robot.store.directory.parent
    before = everything(around)
    with pytest.raises(kind, match=words) as caught:
        receive(data, robot)
    assert everything(around) == before
    assert not [*(robot.store.directory / "staging").glob("*")]
    return caught.value


def test_a_signed_bundle_is_taken_in_whole_and_drives_nobody_yet(
    robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    path = receive(pack_signed(exported), robot)
    assert path == robot.store.directory / "versions" / f"000007-{exported.digest[:12]}"
    assert open_bundle(path, robot.profile, robot.ring).files == exported.files
    assert (robot.store.state_of(path), robot.store.current) == ("candidate", None)
    assert not [*(robot.store.directory / "staging").iterdir()]


def test_equal_bundles_have_equal_archives_that_tar_can_list(exported: Bundle, pack_signed: Packer) -> None:
    data = pack_signed(exported)
    assert data == pack_signed(exported)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == [MANIFEST_NAME, SIGNATURE_NAME, *sorted(exported.files)]


def test_taking_in_the_same_again_changes_nothing(robot: Recipient, exported: Bundle, pack_signed: Packer) -> None:
    path = receive(pack_signed(exported), robot)
    before = everything(robot.store.directory)
    assert receive(pack_signed(exported), robot) == path
    assert everything(robot.store.directory) == before


def test_a_version_that_the_disk_has_damaged_is_taken_in_again(
    robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    path = receive(pack_signed(exported), robot)
    (path / NETWORK_NAME).write_bytes(b"rot")
    assert receive(pack_signed(exported), robot) == path
    assert open_bundle(path, robot.profile, robot.ring).network == exported.files[NETWORK_NAME]


# -- who and what -----------------------------------------------------------------------------


def test_a_stranger_is_refused_before_anything_is_parsed(
    robot: Recipient, driving: Path, exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(data: bytes, source: str) -> None:
        raise AssertionError("an unverified manifest was parsed")

    monkeypatch.setattr("policyloop.bundle.receive.decode_manifest", parsed)
    stranger = create_signer(tmp_path / "stranger", "stranger")
    signature = sign_manifest(exported.manifest.encode(), stranger)
    data = pack({**exported.contents, SIGNATURE_NAME: signature})
    error = refused(data, robot, VerificationError, "signed by nobody who is trusted")
    assert error.exit_code == 5
    refused(pack({**exported.contents, SIGNATURE_NAME: b""}), robot, VerificationError, "damaged")
    refused(pack(exported.contents), robot, VerificationError, SIGNATURE_NAME)


def test_a_revoked_key_counts_no_more(robot: Recipient, driving: Path, exported: Bundle, pack_signed: Packer) -> None:
    robot.ring.revoke("operator")
    refused(pack_signed(exported), robot, VerificationError, "trusted are: none")


def test_a_new_key_and_an_old_one_overlap(
    robot: Recipient, driving: Path, exported: Bundle, signer: Signer, tmp_path: Path
) -> None:
    successor = create_signer(tmp_path / "successor", "successor")
    manifest = exported.manifest.encode()
    both = sign_manifest(manifest, successor, sign_manifest(manifest, signer))
    receive(pack({**exported.contents, SIGNATURE_NAME: both}), robot)
    robot.ring.allow("successor", successor.public)
    robot.ring.revoke("operator")
    newer = exported.revised(version=8)
    both = sign_manifest(newer.manifest.encode(), successor, sign_manifest(newer.manifest.encode(), signer))
    assert receive(pack({**newer.contents, SIGNATURE_NAME: both}), robot).name.startswith("000008-")


def test_another_robots_bundle_is_refused(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    other = msgspec.structs.replace(robot, profile=load_profile("rover"))
    assert refused(pack_signed(exported), other, IncompatibleError, "is for profile 'rover-mini'").exit_code == 7


def test_a_network_for_another_npu_is_refused(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    conversion = Conversion(
        target="rk3588", precision="int8", toolkit="2.5.0", calibration_digest="", reason="", errors={}
    )
    about = exported.revised(conversion=conversion).manifest
    data = pack_signed(build_bundle(about, {**exported.files, RKNN_NAME: b"RKNN"}))
    wrong = msgspec.structs.replace(robot, board="rk3566")
    error = refused(data, wrong, IncompatibleError, "NPU of a rk3588, this is a rk3566")
    assert (error.exit_code, "--target rk3566" in error.remedy) == (7, True)
    receive(data, msgspec.structs.replace(robot, board="rk3588"))


def test_a_newer_format_or_runtime_is_refused(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    refused(pack_signed(exported.revised(format=2)), robot, IncompatibleError, "format 2")
    refused(pack_signed(exported.revised(minimum_runtime="9.0.0")), robot, IncompatibleError, "needs policyloop 9")


def test_what_has_expired_is_refused_and_what_has_not_is_taken(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    now = time.time()
    made = exported.revised(created=utc(now - 100))
    error = refused(pack_signed(made.revised(expires=utc(now - 1))), robot, VerificationError, "expired at")
    assert error.exit_code == 5
    assert receive(pack_signed(made.revised(expires=utc(now + 1000))), robot).name.startswith("000007-")


def test_a_clock_from_before_the_bundle_cannot_tell_whether_it_has_expired(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    ahead = exported.revised(created=utc(time.time() + 1000), expires=utc(time.time() + 2000))
    assert "set the clock" in refused(pack_signed(ahead), robot, VerificationError, "clock says").remedy


def test_an_older_version_is_refused_even_after_the_newer_one_is_gone(
    robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    for version in (7, 8, 9):
        robot.store.activate(receive(pack_signed(exported.revised(version=version)), robot))
    error = refused(pack_signed(exported.revised(version=6)), robot, VerificationError, "older than 9")
    assert (error.exit_code, "store activate" in error.remedy) == (5, True)
    robot.store.activate(robot.store.find(8))
    robot.store.prune(1)
    robot.store.activate(robot.store.find(8))
    robot.store.prune(1)
    (robot.store.find(9)).rename(robot.store.directory / "gone")
    refused(pack_signed(exported.revised(version=7)), robot, VerificationError, "older than 9")


def test_a_bundle_without_golden_vectors_is_refused(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    files = {name: data for name, data in exported.files.items() if name != GOLDEN_NAME}
    refused(pack_signed(build_bundle(exported.manifest, files)), robot, VerificationError, "no golden vectors")


# -- damaged and hostile archives -------------------------------------------------------------


def test_changed_bytes_anywhere_in_the_archive_are_refused_or_change_nothing(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    whole = pack_signed(exported)
    files = open_files(whole)
    header_bytes = [at for at in range(len(whole)) if not any(start <= at < stop for start, stop in files.values())]
    rng = np.random.default_rng(0)
    start, stop = files[NETWORK_NAME]
    places = [*rng.choice(header_bytes, 150, replace=False), *rng.integers(start, stop, 50)]
    for at in map(int, places):
        damaged = whole[:at] + bytes([whole[at] ^ (1 << int(rng.integers(8)))]) + whole[at + 1 :]
        try:
            path = receive(damaged, robot)
        except (VerificationError, ConnectionFailed):
            assert robot.store.versions() == [driving]
            continue
        # Owner, dates and padding count for nothing: what is written is what was signed.
        assert open_bundle(path, robot.profile, robot.ring).files == exported.files
        for file in path.iterdir():
            file.unlink()
        path.rmdir()


def open_files(archive: bytes) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {entry.name: (entry.offset_data, entry.offset_data + entry.size) for entry in opened}


def test_an_archive_cut_anywhere_leaves_nothing(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    whole = pack_signed(exported)
    needed = max(stop for _, stop in open_files(whole).values())
    for length in [0, 1, 511, 512, 513, *np.random.default_rng(1).integers(0, needed, 60).tolist(), needed]:
        error = refused(whole[:length], robot, ConnectionFailed, "ends in the middle")
        assert error.exit_code == 4


class Counted(io.BytesIO):
    """Counts what was read from it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def tar(entries: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def honest(bundle: Bundle, signer: Signer) -> list[tuple[tarfile.TarInfo, bytes]]:
    manifest = bundle.manifest.encode()
    first = {MANIFEST_NAME: manifest, SIGNATURE_NAME: sign_manifest(manifest, signer)}
    return [(member(name), data) for name, data in {**first, **dict(sorted(bundle.files.items()))}.items()]


HOSTILE: dict[str, Callable[[list[tuple[tarfile.TarInfo, bytes]]], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "a path upwards": lambda entries: [*entries[:2], (member("../escape"), b"x"), *entries[2:]],
    "an absolute path": lambda entries: [*entries[:2], (member("/tmp/escape"), b"x"), *entries[2:]],
    "a symbolic link": lambda entries: [*entries[:2], (member(entries[2][0].name, tarfile.SYMTYPE, "/etc"), b"")],
    "a hard link": lambda entries: [*entries[:2], (member(entries[2][0].name, tarfile.LNKTYPE, "/etc/passwd"), b"")],
    "a device": lambda entries: [*entries[:2], (member(entries[2][0].name, tarfile.CHRTYPE), b"")],
    "a pipe": lambda entries: [*entries[:2], (member(entries[2][0].name, tarfile.FIFOTYPE), b"")],
    "a directory": lambda entries: [*entries[:2], (member("policy.onnx", tarfile.DIRTYPE), b""), *entries[2:]],
    "a duplicate": lambda entries: [*entries[:3], entries[2], *entries[3:]],
    "something unlisted": lambda entries: [*entries, (member("extra.bin"), b"x")],
    "another order": lambda entries: [*entries[:2], *entries[:1:-1]],
    "the signature first": lambda entries: [entries[1], entries[0], *entries[2:]],
    "no manifest": lambda entries: entries[1:],
    "a file too few": lambda entries: entries[:-1],
    "a million entries": lambda entries: [*entries, *((member(f"n{n}"), b"") for n in range(20_000))],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_and_writes_nothing(
    driving: Path, robot: Recipient, exported: Bundle, signer: Signer, what: str
) -> None:
    stream = Counted(tar(HOSTILE[what](honest(exported, signer))))
    around = robot.store.directory.parent
    before = everything(around)
    with pytest.raises((VerificationError, ConnectionFailed)):
        receive_bundle(stream, robot)
    assert everything(around) == before
    assert stream.taken <= len(pack(exported.contents)) + 2048


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_extended_headers_are_not_understood_on_purpose(
    driving: Path, robot: Recipient, exported: Bundle, signer: Signer, form: int
) -> None:
    entries = honest(exported, signer)
    data = tar([*entries[:2], (member("x" * 150), b"x"), *entries[2:]], form)
    refused(data, robot, VerificationError, "archive")


@pytest.mark.parametrize("claimed", [0, 1, 1 << 20, (1 << 33) - 1])
def test_a_header_that_lies_about_its_size_is_refused_before_the_bytes_are_read(
    driving: Path, robot: Recipient, exported: Bundle, signer: Signer, claimed: int
) -> None:
    entries = honest(exported, signer)
    data = bytearray(tar(entries))
    start = open_files(bytes(data))[NETWORK_NAME][0] - 512
    data[start + 124 : start + 136] = f"{claimed:011o}".encode() + b"\0"
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = f"{sum(data[start : start + 512]):06o}".encode() + b"\0 "
    stream = Counted(bytes(data))
    with pytest.raises(VerificationError, match="its manifest says"):
        receive_bundle(stream, robot)
    assert stream.taken <= start + 512


def test_a_manifest_of_gigabytes_is_refused_before_memory_is_asked_for(driving: Path, robot: Recipient) -> None:
    header = bytearray(tar([(member(MANIFEST_NAME), b"{}")])[:512])
    header[124:136] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}".encode() + b"\0 "
    stream = Counted(bytes(header) + bytes(1 << 20))
    with pytest.raises(VerificationError, match="at most"):
        receive_bundle(stream, robot)
    assert stream.taken == 512


# -- disk, neighbours, power ------------------------------------------------------------------


def test_a_full_disk_leaves_the_store_as_it_was(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer, full_disk: Callable[[int], object]
) -> None:
    data = pack_signed(exported)
    with full_disk(100_000):  # type: ignore[attr-defined]
        error = refused(data, robot, StorageError, "cannot write")
    assert error.exit_code == 1
    receive(data, robot)


def test_a_disk_with_too_little_room_is_seen_before_the_first_byte(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = os.statvfs("/")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 20, "total": usage.f_blocks}))
    assert "prune" in refused(pack_signed(exported), robot, StorageError, "MiB left").remedy


def test_a_second_sender_is_told_to_wait(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer
) -> None:
    with robot.store.receiving(1):
        with pytest.raises(SafetyRefusal, match="somebody else is sending") as caught:
            receive(pack_signed(exported), robot)
        assert caught.value.exit_code == 6
    receive(pack_signed(exported), robot)


RECEIVE = """
import sys
from pathlib import Path
from policyloop.bundle.receive import Recipient, receive_bundle
from policyloop.bundle.signing import KeyRing
from policyloop.bundle.store import Store
from policyloop.core.profile import load_profile
root = Path(sys.argv[1])
robot = Recipient(Store(root / "store"), load_profile("rover-mini"), KeyRing(root / "robot"))
print("go", flush=True)
while True:
    for archive in sorted((root / "sent").iterdir()):
        with archive.open("rb") as stream:
            path = receive_bundle(stream, robot)
        robot.store.activate(path)
        robot.store.mark(path, "good")
    robot.store.prune(2)
"""


def kill_receivers(times: int, robot: Recipient, exported: Bundle, pack_signed: Packer, root: Path) -> int:
    """Kill a process that receives without end so many times; returns how many versions it got through."""
    (root / "sent").mkdir()
    seen = set()
    rng, number = np.random.default_rng(0), 100
    for _ in range(times):
        for archive in (root / "sent").iterdir():
            archive.unlink()
        for _ in range(4):
            number += 1
            (root / "sent" / str(number)).write_bytes(pack_signed(exported.revised(version=number)))
        child = subprocess.Popen([sys.executable, "-c", RECEIVE, str(root)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.15)))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        current = robot.store.current
        assert current is not None
        seen.add(open_bundle(current, robot.profile, robot.ring).manifest.version)  # whole, and signed
        for path in robot.store.versions():
            open_bundle(path, robot.profile, robot.ring)
    return len(seen)


def test_a_power_cut_at_any_moment_of_receiving_leaves_whole_versions(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer, tmp_path: Path
) -> None:
    assert kill_receivers(12, robot, exported, pack_signed, tmp_path) > 3


@pytest.mark.long
def test_five_hundred_power_cuts_while_receiving(
    driving: Path, robot: Recipient, exported: Bundle, pack_signed: Packer, tmp_path: Path
) -> None:
    assert kill_receivers(500, robot, exported, pack_signed, tmp_path) > 100
