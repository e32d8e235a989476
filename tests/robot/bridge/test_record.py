from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyloop.robot.bridge.header import record_bytes
from policyloop.robot.bridge.record import RecordReader, RecordWriter, representable


def memory(floats: int) -> memoryview:
    return memoryview(bytearray(record_bytes(floats)))


@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=40),
    time_ns=st.integers(-(2**63), 2**63 - 1),
    flags=st.integers(0, 2**32 - 1),
)
def test_what_was_written_is_read(values: list[float], time_ns: int, flags: int) -> None:
    place = memory(len(values))
    RecordWriter(place, len(values)).write(time_ns, flags, values)
    record = RecordReader(place, len(values)).read()
    assert record is not None and (record.time_ns, record.flags) == (time_ns, flags)
    np.testing.assert_array_equal(record.values, np.array(values, np.float32))


def test_there_is_nothing_before_the_first_write_and_counters_grow() -> None:
    place = memory(3)
    reader, writer = RecordReader(place, 3), RecordWriter(place, 3)
    assert reader.read() is None
    counters = []
    for _ in range(3):
        writer.write(0, 0, [1, 2, 3])
        record = reader.read()
        assert record is not None
        counters.append(record.counter)
    assert counters == [counters[0], counters[0] + 1, counters[0] + 2]


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0, 3.0, 4.0], [[1.0, 2.0, 3.0]], 1.0, [1.0, 2.0, 1e39]])
def test_a_record_of_another_size_is_not_written(values: object) -> None:
    with pytest.raises(ValueError, match="no 3 numbers"):
        RecordWriter(memory(3), 3).write(0, 0, values)


def test_every_flipped_byte_is_noticed() -> None:
    place = memory(5)
    RecordWriter(place, 5).write(17, 1, [1, 2, 3, 4, 5])
    reader = RecordReader(place, 5)
    for at in range(8, 40 + 20):
        place[at] ^= 0x20
        assert reader.read() is None
        place[at] ^= 0x20
    assert reader.read() is not None


@given(st.binary(min_size=64, max_size=64))
def test_random_bytes_are_no_record(data: bytes) -> None:
    assert RecordReader(memoryview(bytearray(data)), 5).read() is None


@pytest.mark.parametrize("written", [0, 1, 4, 11, 30, 51])
def test_a_writer_killed_in_the_middle_is_stale_and_the_next_one_goes_on(written: int) -> None:
    place, other = memory(5), memory(5)
    RecordWriter(place, 5).write(1, 1, [1, 1, 1, 1, 1])
    reader = RecordReader(place, 5)
    before = reader.read()
    assert before is not None
    RecordWriter(other, 5).write(2, 0, [2, 2, 2, 2, 2])
    place[0] += 1
    place[8 : 8 + written] = other[8 : 8 + written]
    assert reader.read() is None
    RecordWriter(place, 5).write(3, 0, [3, 3, 3, 3, 3])
    after = reader.read()
    assert after is not None and after.time_ns == 3 and after.counter > before.counter
    assert place[0] % 2 == 0


def test_a_lock_at_its_end_goes_on() -> None:
    place = memory(1)
    place[:8] = b"\xff" * 8
    writer, reader = RecordWriter(place, 1), RecordReader(place, 1)
    for n in range(3):
        writer.write(n, 0, [n])
        record = reader.read()
        assert record is not None and record.time_ns == n


def test_a_reader_gives_up_soon_while_somebody_writes_for_ever() -> None:
    place = memory(1024)
    place[0] = 1
    started_s = time.perf_counter()
    assert RecordReader(place, 1024).read() is None
    assert time.perf_counter() - started_s < 1.0


def test_what_a_float32_cannot_hold_is_not_representable() -> None:
    assert representable((1.0, -3.4e38), 2)
    for wrong in [(1.0,), (1.0, float("nan")), (1.0, float("-inf")), (1.0, 3.5e38), ()]:
        assert not representable(wrong, 2)
