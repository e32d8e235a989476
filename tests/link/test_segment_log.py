import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyloop.errors import IncompatibleError, StorageError
from policyloop.link import segment_log
from policyloop.link.segment_log import SegmentLog

RECORDS = [b"one", b"two" * 20, b"three" * 7, b"x", bytes(50)]
MAGIC_BYTES, HEADER_BYTES = 8, 20


def write(directory: Path, records: list[bytes], segment_bytes: int = 64 << 20) -> None:
    log = SegmentLog(directory, writable=True, segment_bytes=segment_bytes)
    for record in records:
        log.append(record)
    log.close()


def read(directory: Path) -> list[bytes]:
    log = SegmentLog(directory, writable=False)
    try:
        return list(log)
    finally:
        log.close()


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def damage(path: Path, position: int, mask: int = 0xFF) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


@pytest.fixture
def log(tmp_path):
    log = SegmentLog(tmp_path / "log", writable=True)
    yield log
    log.close()


# Reading and writing


def test_records_come_back_in_order_by_number_and_by_iteration(log):
    assert [log.append(record) for record in RECORDS] == [0, 1, 2, 3, 4]
    assert (log.first, log.next) == (0, 5)
    assert list(log) == RECORDS
    assert [log.read(i) for i in (4, 0, 2)] == [RECORDS[4], RECORDS[0], RECORDS[2]]


@pytest.mark.parametrize("index", [-1, 5, 100])
def test_a_number_that_is_not_there_is_an_index_error(log, index):
    for record in RECORDS:
        log.append(record)
    with pytest.raises(IndexError):
        log.read(index)


def test_an_empty_log_is_empty(log):
    assert (log.first, log.next, log.size_bytes, list(log)) == (0, 0, 0, [])
    log.sync()


def test_size_is_that_of_the_files(log):
    for record in RECORDS:
        log.append(record)
    log.sync()
    assert log.size_bytes == sum(path.stat().st_size for path in segments(log.directory))
    assert log.size_bytes == MAGIC_BYTES + sum(HEADER_BYTES + len(record) for record in RECORDS)


def test_a_closed_log_opens_again_and_goes_on_counting(tmp_path):
    write(tmp_path, RECORDS[:3])
    log = SegmentLog(tmp_path, writable=True)
    assert (log.next, list(log)) == (3, RECORDS[:3])
    assert log.append(RECORDS[3]) == 3
    log.close()
    assert read(tmp_path) == RECORDS[:4]


def test_a_log_that_is_not_there_cannot_be_read(tmp_path):
    with pytest.raises(StorageError, match="no log at"):
        SegmentLog(tmp_path / "nowhere", writable=False)
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        SegmentLog(tmp_path / "file" / "log", writable=True)


def test_reading_changes_nothing_on_disk(tmp_path):
    write(tmp_path, RECORDS)
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b"torn")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert read(tmp_path) == RECORDS
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_files_in_the_directory_are_left_alone(tmp_path):
    write(tmp_path, RECORDS[:2])
    for name in ("notes.txt", "journal.json", "backup.seg"):
        (tmp_path / name).write_text("mine")
    write(tmp_path, RECORDS[2:])
    assert read(tmp_path) == RECORDS
    assert (tmp_path / "backup.seg").read_text() == "mine"


@settings(max_examples=60)
@given(records=st.lists(st.binary(min_size=1, max_size=200), max_size=12), segment_bytes=st.integers(8, 400))
def test_any_records_survive_any_rotation(tmp_path_factory, records, segment_bytes):
    directory = tmp_path_factory.mktemp("log")
    write(directory, records, segment_bytes)
    assert read(directory) == records
    shutil.rmtree(directory)


# Rotation


def test_a_full_segment_is_followed_by_one_named_after_its_first_record(tmp_path):
    write(tmp_path, [b"a" * 30] * 7, segment_bytes=150)  # 50 bytes each: 8, 58, 108, 158 >= 150
    assert [path.name for path in segments(tmp_path)] == [f"{first:012d}.seg" for first in (0, 3, 6)]
    assert read(tmp_path) == [b"a" * 30] * 7


def test_a_reopened_log_fills_its_last_segment_before_beginning_another(tmp_path):
    write(tmp_path, [b"a" * 30] * 4, segment_bytes=150)
    write(tmp_path, [b"b" * 30] * 3, segment_bytes=150)
    assert [int(path.stem) for path in segments(tmp_path)] == [0, 3, 6]
    assert read(tmp_path) == [b"a" * 30] * 4 + [b"b" * 30] * 3


def test_dropping_deletes_only_whole_segments_before_a_record(tmp_path):
    log = SegmentLog(tmp_path, writable=True, segment_bytes=150)
    for i in range(8):
        log.append(bytes([65 + i]) * 30)
    for index, first in ((0, 0), (2, 0), (3, 3), (5, 3), (6, 6), (8, 6), (100, 6)):
        log.drop_before(index)
        assert (log.first, log.next) == (first, 8)
        assert [int(path.stem) for path in segments(tmp_path)] == [s for s in (0, 3, 6) if s >= first]
    assert list(log) == [b"G" * 30, b"H" * 30]
    with pytest.raises(IndexError):
        log.read(5)
    log.close()
    write(tmp_path, [b"next"])
    log = SegmentLog(tmp_path, writable=False)
    assert (log.first, log.next, log.read(8)) == (6, 9, b"next")
    log.close()


# One writer, many readers


def test_a_second_writer_is_refused_until_the_first_is_done(log):
    with pytest.raises(StorageError, match="being written by another process"):
        SegmentLog(log.directory, writable=True)
    log.append(b"unharmed")
    log.close()
    second = SegmentLog(log.directory, writable=True)
    assert list(second) == [b"unharmed"]
    second.close()


def test_a_second_writer_in_another_process_is_refused(log):
    program = (
        "import sys, pathlib\n"
        "from policyloop.errors import IncompatibleError, StorageError\n"
        "from policyloop.link.segment_log import SegmentLog\n"
        "try:\n    SegmentLog(pathlib.Path(sys.argv[1]), writable=True)\n"
        "except StorageError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, log.directory], capture_output=True, text=True, check=True)
    assert "being written by another process" in run.stdout


def test_the_lock_of_a_killed_writer_is_free(tmp_path):
    program = (
        "import os, sys, pathlib, signal\n"
        "from policyloop.link.segment_log import SegmentLog\n"
        "log = SegmentLog(pathlib.Path(sys.argv[1]), writable=True)\n"
        "log.append(b'last words')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path], check=False).returncode == -9
    write(tmp_path, [b"successor"])
    assert read(tmp_path) == [b"last words", b"successor"]


def test_a_reader_sees_later_records_after_refresh(log):
    log.append(b"early")
    reader = SegmentLog(log.directory, writable=False)
    log.append(b"late")
    assert list(reader) == [b"early"]
    reader.refresh()
    reader.refresh()
    assert list(reader) == [b"early", b"late"]
    reader.close()


def test_a_reader_that_came_before_the_first_record_sees_it_after_refresh(log):
    reader = SegmentLog(log.directory, writable=False)
    log.append(b"first")
    reader.refresh()
    assert list(reader) == [b"first"]
    reader.close()


def test_a_reader_follows_into_the_next_segment(tmp_path):
    log = SegmentLog(tmp_path, writable=True, segment_bytes=100)
    reader = SegmentLog(tmp_path, writable=False)
    written = []
    for i in range(10):
        written.append(bytes([65 + i]) * 30)
        log.append(written[-1])
        reader.refresh()
        assert list(reader) == written
    reader.close()
    log.close()


def test_a_slow_reader_misses_no_segment(tmp_path):
    log = SegmentLog(tmp_path, writable=True, segment_bytes=100)
    log.append(b"A" * 30)
    reader = SegmentLog(tmp_path, writable=False)
    written = [b"A" * 30]
    for i in range(1, 12):
        written.append(bytes([65 + i]) * 30)
        log.append(written[-1])
    log.close()
    reader.refresh()
    try:
        assert list(reader) == written
    finally:
        reader.close()


def test_a_reader_does_not_see_half_a_record(log):
    log.append(b"whole")
    reader = SegmentLog(log.directory, writable=False)
    path = segments(log.directory)[0]
    log.append(b"another record")
    data = path.read_bytes()
    os.truncate(path, len(data) - 5)
    reader.refresh()
    assert list(reader) == [b"whole"]
    path.write_bytes(data)
    reader.refresh()
    assert list(reader) == [b"whole", b"another record"]
    reader.close()


# Power cuts and damage


def test_a_record_that_becomes_whole_while_it_is_looked_at_is_no_damage(tmp_path, monkeypatch):
    write(tmp_path, RECORDS)
    whole = segments(tmp_path)[0].read_bytes()
    first_end = MAGIC_BYTES + HEADER_BYTES + len(RECORDS[0])
    segments(tmp_path)[0].write_bytes(whole[: first_end + HEADER_BYTES + 5])  # the second record is being written
    resume = segment_log._Segment._resume

    def meanwhile(segment, *arguments):
        segment.path.write_bytes(whole)  # the writer goes on between two looks of the reader
        return resume(segment, *arguments)

    monkeypatch.setattr(segment_log._Segment, "_resume", meanwhile)
    log = SegmentLog(tmp_path, writable=False)
    assert list(log) == RECORDS[:1]
    log.refresh()
    assert list(log) == RECORDS
    log.close()


def test_a_torn_tail_is_cut_at_every_offset_of_the_last_record(tmp_path):
    write(tmp_path / "whole", RECORDS)
    data = segments(tmp_path / "whole")[0].read_bytes()
    last = len(data) - HEADER_BYTES - len(RECORDS[-1])
    for size in range(last, len(data)):
        torn = tmp_path / f"torn-{size}"
        torn.mkdir()
        path = torn / f"{0:012d}.seg"
        path.write_bytes(data[:size])
        assert read(torn) == RECORDS[:-1]
        write(torn, [b"after the cut"])
        assert read(torn) == [*RECORDS[:-1], b"after the cut"]
        assert path.stat().st_size == last + HEADER_BYTES + len(b"after the cut")


@pytest.mark.parametrize("size", range(MAGIC_BYTES + 1))
def test_a_segment_torn_at_its_very_beginning_is_begun_again(tmp_path, size):
    write(tmp_path, [b"a" * 100] * 2, segment_bytes=50)
    os.truncate(segments(tmp_path)[1], size)
    assert read(tmp_path) == [b"a" * 100]
    write(tmp_path, [b"b"])
    assert read(tmp_path) == [b"a" * 100, b"b"]


def readable(directory: Path) -> dict[int, bytes]:
    """Return what can be read, by number; what cannot must say so."""
    log = SegmentLog(directory, writable=False)
    found = {}
    for number in range(log.first, log.next):
        try:
            found[number] = log.read(number)
        except StorageError as error:
            assert f"record {number}" in error.message
    log.close()
    return found


@settings(max_examples=200)
@given(
    records=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8),
    place=st.floats(0, 1, exclude_max=True),
    mask=st.integers(1, 255),
)
def test_flipped_bits_cost_the_record_that_they_hit_and_no_other(tmp_path_factory, records, place, mask):
    directory = tmp_path_factory.mktemp("log")
    write(directory, records)
    path = segments(directory)[0]
    position = int(place * path.stat().st_size)
    damage(path, position, mask)
    expected, end = dict(enumerate(records)), MAGIC_BYTES
    for number, record in enumerate(records):
        if end <= position < end + HEADER_BYTES + len(record):
            del expected[number]
        end += HEADER_BYTES + len(record)
    assert readable(directory) == expected
    write(directory, [b"after the damage"])
    # The number of a damaged last record is given again: nobody could have read it.
    assert readable(directory) == {**expected, max(expected, default=-1) + 1: b"after the damage"}
    shutil.rmtree(directory)


@pytest.mark.long
def test_ten_thousand_flips_invent_nothing(tmp_path):
    rng = np.random.default_rng(0)
    records = [rng.bytes(int(size)) for size in rng.integers(1, 300, 50)]
    write(tmp_path, records, segment_bytes=2000)
    clean = {path: path.read_bytes() for path in segments(tmp_path)}
    paths = list(clean)
    for _ in range(10_000):
        path = paths[rng.integers(len(paths))]
        data = bytearray(clean[path])
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        found = readable(tmp_path)
        assert all(records[number] == record for number, record in found.items())
        assert len(found) >= len(records) - 1
        path.write_bytes(clean[path])


def test_a_run_of_damage_costs_what_it_covers(tmp_path):
    records = [bytes([65 + i]) * 30 for i in range(8)]  # 50 bytes each with their heads
    write(tmp_path, records)
    path = segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[MAGIC_BYTES + 60 : MAGIC_BYTES + 160] = bytes(100)  # within the second, the third, within the fourth
    path.write_bytes(data)
    assert readable(tmp_path) == {i: records[i] for i in (0, 4, 5, 6, 7)}
    log = SegmentLog(tmp_path, writable=False)
    assert log.unreadable_bytes == 150
    log.close()


def test_a_record_in_a_records_bytes_is_no_record(tmp_path):
    """Somebody sends what looks like a record: when its carrier is damaged it must not appear."""
    write(tmp_path / "other", [b"first", b"a lie"])
    other = segments(tmp_path / "other")[0].read_bytes()
    lie = other[MAGIC_BYTES + HEADER_BYTES + 5 :]  # record 1, as it stands on a disk
    write(tmp_path / "log", [b"first", b"x" + lie, b"third"])
    damage(segments(tmp_path / "log")[0], MAGIC_BYTES + 2 * HEADER_BYTES + 5)
    assert readable(tmp_path / "log") == {0: b"first", 2: b"third"}


def test_a_segment_of_another_version_is_refused_and_left_alone(tmp_path):
    write(tmp_path, RECORDS)
    path = segments(tmp_path)[0]
    old = b"PLSEG01\n" + bytes(500)
    path.write_bytes(old)
    for writable in (True, False):
        with pytest.raises(IncompatibleError, match="PLSEG01"):
            SegmentLog(tmp_path, writable=writable)
        assert path.read_bytes() == old


@settings(max_examples=60)
@given(tail=st.binary(min_size=1, max_size=64).filter(any))
def test_garbage_behind_the_last_record_is_cut(tmp_path_factory, tail):
    directory = tmp_path_factory.mktemp("log")
    write(directory, RECORDS)
    zeros = len(tail) - len(tail.lstrip(b"\0"))
    with segments(directory)[0].open("ab") as file:
        file.write(tail if zeros < HEADER_BYTES else tail[zeros:])
    assert read(directory) == RECORDS
    write(directory, [b"next"])
    assert read(directory) == [*RECORDS, b"next"]
    shutil.rmtree(directory)


@pytest.mark.parametrize("zeros", [8, 20, 4096])
def test_zeros_behind_the_last_record_are_no_records(tmp_path, zeros):
    """A file system may leave such a tail after a power cut."""
    write(tmp_path, RECORDS)
    with segments(tmp_path)[0].open("ab") as file:
        file.write(bytes(zeros))
    assert read(tmp_path) == RECORDS


def test_damage_after_opening_is_noticed_on_reading(log):
    for record in RECORDS:
        log.append(record)
    damage(segments(log.directory)[0], MAGIC_BYTES + HEADER_BYTES)
    with pytest.raises(StorageError, match="record 0 is damaged"):
        log.read(0)
    assert log.read(1) == RECORDS[1]


def test_damage_in_an_older_segment_is_reported_or_skipped(tmp_path):
    records = [bytes([65 + i]) * 30 for i in range(8)]
    write(tmp_path, records, segment_bytes=100)
    damage(segments(tmp_path)[0], MAGIC_BYTES + 38 + HEADER_BYTES)
    try:
        survivors = read(tmp_path)
    except StorageError:
        return
    assert set(records[3:]) <= set(survivors) <= set(records)


def test_a_record_too_large_to_be_read_again_is_not_taken(log, monkeypatch):
    monkeypatch.setattr(segment_log, "_MAX_RECORD_BYTES", 100)
    log.append(bytes(100))
    with pytest.raises(StorageError):
        log.append(bytes(101))


# Full disk

FULL_DISK = """
import pathlib, resource, sys
from policyloop.errors import StorageError
from policyloop.link.segment_log import SegmentLog

log = SegmentLog(pathlib.Path(sys.argv[1]), writable=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (1022, resource.RLIM_INFINITY))
accepted = 0
for attempt in range(30):
    try:
        assert log.append(b"%03d" % attempt * 30) == accepted
        accepted += 1
    except StorageError as error:
        message = str(error)
log.sync()
assert (log.next, accepted) == (9, 9), accepted  # 8 + 9 * 110 <= 1022
assert log.size_bytes == 998
assert [bytes(record[:3]) for record in log] == [b"%03d" % i for i in range(9)]
assert log.append(b"fits") == 9  # 20 + 4 bytes are still there
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert log.append(b"room again") == 10
print(message)
"""


def test_a_full_disk_refuses_the_record_and_harms_no_other(tmp_path):
    run = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "no space left on device" in run.stdout
    assert "nothing that was stored is lost" in run.stdout
    assert read(tmp_path) == [b"%03d" % i * 30 for i in range(9)] + [b"fits", b"room again"]


FULL_FROM_THE_START = """
import pathlib, resource, sys
from policyloop.errors import IncompatibleError, StorageError
from policyloop.link.segment_log import SegmentLog

directory = pathlib.Path(sys.argv[1])
log = SegmentLog(directory, writable=True, segment_bytes=100)
log.append(b"a" * 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (4, resource.RLIM_INFINITY))
for attempt in range(3):
    try:
        log.append(b"b")
        raise SystemExit("took a record")
    except StorageError:
        pass
assert list(log) == [b"a" * 100]
assert len(list(directory.glob("*.seg"))) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert log.append(b"b") == 1
"""


def test_a_segment_that_cannot_be_begun_leaves_nothing_behind(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL_FROM_THE_START, tmp_path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert read(tmp_path) == [b"a" * 100, b"b"]
