from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyloop.core.step import Command, TimedCommand
from policyloop.errors import WireError
from policyloop.robot.bridge.frames import DAMP, FrameParser, decode_frame, encode_order


def frame(values: list[float]) -> bytes:
    return struct.pack("<I", len(values)) + np.array(values, "<f4").tobytes()


@given(
    frames=st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), max_size=5),
    cuts=st.lists(st.integers(1, 40), min_size=1),
)
def test_frames_arrive_whole_in_whatever_pieces(frames: list[list[float]], cuts: list[int]) -> None:
    stream, parser, seen, turn = b"".join(map(frame, frames)), FrameParser(3), [], 0
    while stream:
        size = min(cuts[turn % len(cuts)], parser.missing)
        turn += 1
        values = parser.feed(stream[:size])
        stream = stream[size:]
        if values is not None:
            seen.append(values)
    np.testing.assert_array_equal(np.array(seen).reshape(-1, 3), np.array(frames, np.float32).reshape(-1, 3))
    assert not parser.begun


@given(st.lists(st.binary(min_size=1, max_size=64)))
def test_anything_at_all_is_a_frame_or_refused_and_fills_no_memory(pieces: list[bytes]) -> None:
    parser = FrameParser(3)
    for piece in pieces:
        assert 1 <= parser.missing <= 16
        try:
            parser.feed(piece[: parser.missing])
        except WireError:
            return


@pytest.mark.parametrize("count", [0, 2, 4, 2**20, 2**32 - 1])
def test_a_lie_about_the_size_is_refused_before_anything_else_is_read(count: int) -> None:
    with pytest.raises(WireError, match=r"this profile's state has 3: use the same profile"):
        FrameParser(3).feed(struct.pack("<I", count))
    with pytest.raises(WireError):
        decode_frame(struct.pack("<I", count) + bytes(12), 3)


@pytest.mark.parametrize("data", [b"", b"\x03\0\0", frame([1, 2, 3])[:-1], frame([1, 2, 3]) + b"\0"])
def test_a_message_of_another_size_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_frame(data, 3)


def test_more_than_was_asked_for_is_refused() -> None:
    with pytest.raises(WireError):
        FrameParser(3).feed(bytes(17))


def order(*values: float, damped: bool = False, until_ns: int = 100) -> TimedCommand:
    return TimedCommand(Command(values, damped=damped), 1, until_ns)


def test_a_command_becomes_a_reply() -> None:
    assert encode_order(order(0.5, -1.0), 2, 99) == frame([0.5, -1.0])


@pytest.mark.parametrize(
    "wrong",
    [
        order(0.5, 0.5, damped=True),
        order(0.5, 0.5, until_ns=50),
        order(0.5),
        order(0.5, float("inf")),
        order(0.5, -1e300),
    ],
)
def test_what_cannot_be_driven_becomes_no_command(wrong: TimedCommand) -> None:
    assert encode_order(wrong, 2, 50) == DAMP == b"\0\0\0\0"
