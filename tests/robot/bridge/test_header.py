from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyloop.errors import ConfigError, VerificationError
from policyloop.robot.bridge.header import LONGEST_VALIDITY_NS, Header

GAINS = {"kp": (30.0, 20.5), "kd": (1.0, 0.5), "pose": (-0.5, 1.25)}


def test_the_layout_is_the_documented_one() -> None:
    header = Header(owner_floats=12, guest_floats=33, kp=(30.0,) * 12, kd=(1.0,) * 12, pose=(0.5,) * 12)
    # 128 + 3 * 12 * 4 = 272 -> 320; a record of 12 takes 40 + 48 -> 128 bytes, one of 33 takes 40 + 132 -> 192.
    assert (header.owner_offset, header.guest_offset, header.file_bytes) == (320, 448, 640)
    data = header.encode()
    assert len(data) == 320 and data[:12] == b"PLOOPBRG\x01\0\0\0"
    assert data[16:28] == bytes([12, 0, 0, 0, 33, 0, 0, 0, 12, 0, 0, 0])


@given(
    owner=st.integers(1, 1024),
    guest=st.integers(1, 1024),
    digest=st.binary(min_size=32, max_size=32),
    longest_ns=st.integers(1, LONGEST_VALIDITY_NS),
    gain=st.none() | st.floats(0, 2.0**100, width=32),
)
def test_what_was_encoded_is_decoded(owner: int, guest: int, digest: bytes, longest_ns: int, gain: float) -> None:
    joints = () if gain is None else (gain,) * owner
    header = Header(
        owner_floats=owner,
        guest_floats=guest,
        digest=digest,
        longest_validity_ns=longest_ns,
        kp=joints,
        kd=joints,
        pose=joints,
    )
    assert Header.decode(header.encode()) == header


def test_every_flipped_byte_is_refused() -> None:
    data = Header(owner_floats=2, guest_floats=3, **GAINS).encode()
    for at in range(len(data)):
        for bit in (0x01, 0x80):
            with pytest.raises(VerificationError):
                Header.decode(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])


@given(st.binary(max_size=400))
def test_anything_at_all_is_refused(data: bytes) -> None:
    for start in (b"", b"PLOOPBRG\x01\0\0\0"):
        with pytest.raises(VerificationError):
            Header.decode(start + data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"owner_floats": 0},
        {"owner_floats": 1025},
        {"guest_floats": -1},
        {"digest": bytes(31)},
        {"longest_validity_ns": 0},
        {"longest_validity_ns": LONGEST_VALIDITY_NS + 1},
        {"kp": (30.0,)},
        {"kd": ()},
        {"kp": (30.0, float("nan"))},
        {"kp": (30.0, -1.0)},
        {"pose": (0.0, 1e39)},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Header(**({"owner_floats": 2, "guest_floats": 3, **GAINS} | wrong))
