import json
import math
import random
import struct

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.spec import Quantity
from policyloop.errors import WireError
from policyloop.wire.codec import decode_from_robot, decode_step, encode_step
from policyloop.wire.v1 import V1Session, decode_v1

HEIGHT, WIDTH = 36, 64
NEAR = np.array([0.0, 0.0, 0.0, 0.0, 9.81, 0.149], np.float32)
RENAMED = Quantity(name="echo", unit="m")
FAR = np.array([0.0, 0.0, 0.0, 0.0, 9.81, 0.151], np.float32)


def refusal(packet: bytes, profile: RobotProfile) -> WireError:
    with pytest.raises(WireError) as caught:
        decode_v1(packet, profile)
    return caught.value


def with_metadata(packet: bytes, text: bytes) -> bytes:
    """Return `packet` with other bytes for its metadata."""
    (size,) = struct.unpack_from("<I", packet)
    return struct.pack("<I", len(text)) + text + packet[4 + size :]


# One packet


@pytest.mark.parametrize("compressed", [True, False])
def test_a_good_packet_is_read(mini, make_v1_packet, compressed):
    rgb = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    depth = np.linspace(0.2, 9.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    proprio = np.array([0.1, -0.2, 0.01, -0.02, 9.81, 2.5], np.float32)
    packet = make_v1_packet(
        mini,
        rgb=rgb,
        depth=depth,
        proprio=proprio,
        action=np.array([0.12, -0.3], np.float32),
        rgb_compressed=compressed,
    )
    metadata, arrays, action = decode_v1(packet, mini)
    assert (metadata.episode_step, metadata.reward, metadata.done) == (0, 0.25, False)
    assert np.abs(arrays["rgb"].astype(int) - 90).max() <= (2 if compressed else 0)
    np.testing.assert_allclose(arrays["depth"], depth * 1000, atol=0.5001)
    np.testing.assert_array_equal(arrays["proprio"], proprio)
    assert action == pytest.approx((0.12, -0.3))
    for name, spec in mini.observation_specs.items():
        spec.validate(arrays[name])


def test_unknown_metadata_is_ignored(mini, make_v1_packet):
    assert decode_v1(make_v1_packet(mini, firmware="1.2", tags=[1, {"a": None}]), mini)[0].reward == 0.25


def test_depth_that_is_no_measurement_becomes_zero(mini, make_v1_packet):
    depth = np.full((HEIGHT, WIDTH), 1.234, np.float32)
    bad = [np.nan, np.inf, -np.inf, -1.0, -0.0, 10.001, 66.0, 1e30]
    depth[0, : len(bad)] = bad
    depth[1, :4] = [10.0, 0.001, 0.0004, 0.25]
    millimetres = decode_v1(make_v1_packet(mini, depth=depth), mini)[1]["depth"]
    assert millimetres.dtype == np.uint16
    assert millimetres[0, : len(bad)].tolist() == [0] * len(bad)
    assert millimetres[1, :4].tolist() == [10_000, 1, 0, 250]
    assert (millimetres[2:] == 1234).all()


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_packet_too_short_for_a_length_is_refused(mini, size):
    assert refusal(bytes(size), mini).reason == "v1-length"


def test_a_metadata_length_beyond_the_packet_is_refused(mini, make_v1_packet):
    packet = make_v1_packet(mini)
    for size in (len(packet) - 3, 16_385, 2**31, 2**32 - 1):
        assert refusal(struct.pack("<I", size) + packet[4:], mini).reason == "v1-length"


def test_a_metadata_length_that_cuts_the_metadata_is_refused(mini, make_v1_packet):
    packet = make_v1_packet(mini)
    (size,) = struct.unpack_from("<I", packet)
    for lie in (0, 1, size - 1, size + 1, size + 400):
        assert refusal(struct.pack("<I", lie) + packet[4:], mini).reason == "v1-metadata"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"timestamp": NaN}',
        b"[" * 16_000,
        b'{"a":' * 3000,
        b"\xff\xfe",
        b'{"timestamp": 1e999}',
    ],
    ids=["empty", "no keys", "list", "null", "nan", "deep list", "deep object", "no text", "overflow"],
)
def test_metadata_that_is_none_is_refused(mini, make_v1_packet, text):
    assert refusal(with_metadata(make_v1_packet(mini), text), mini).reason == "v1-metadata"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("timestamp", "now"),
        ("episode_step", 1.5),
        ("episode_step", None),
        ("done", 1),
        ("rgb_shape", [36, 64]),
        ("rgb_shape", "36x64x3"),
        ("depth_shape", [36.5, 64]),
        ("proprio_shape", 6),
        ("action_shape", [2, 1]),
    ],
)
def test_metadata_of_another_type_is_refused(mini, make_v1_packet, key, value):
    assert refusal(make_v1_packet(mini, **{key: value}), mini).reason == "v1-metadata"


@pytest.mark.parametrize(
    "key", ["timestamp", "episode_step", "reward", "done", "rgb_shape", "depth_shape", "proprio_shape", "action_shape"]
)
def test_missing_metadata_is_refused_by_name(mini, make_v1_packet, key):
    packet = make_v1_packet(mini)
    (size,) = struct.unpack_from("<I", packet)
    metadata = json.loads(packet[4 : 4 + size])
    del metadata[key]
    error = refusal(with_metadata(packet, json.dumps(metadata).encode()), mini)
    assert (error.reason, key in error.detail) == ("v1-metadata", True)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("rgb", [64, 36, 3]),
        ("rgb", [36, 64, 4]),
        ("rgb", [-36, -64, 3]),
        ("depth", [18, 128]),
        ("depth", [0, 0]),
        ("depth", [2**31, 2**31]),
        ("proprio", [5]),
        ("proprio", [-6]),
        ("action", [3]),
        ("action", [0]),
        ("action", [2**70]),
    ],
)
def test_a_wrong_shape_is_refused_by_name(mini, make_v1_packet, name, shape):
    error = refusal(make_v1_packet(mini, **{f"{name}_shape": shape}), mini)
    assert error.reason == "v1-shape"
    assert error.detail.startswith(f"{name} of shape")


@pytest.mark.parametrize("name", ["proprio", "action"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_proprioception_and_action_must_be_finite(mini, make_v1_packet, name, bad):
    value = np.zeros(6 if name == "proprio" else 2, np.float32)
    value[-1] = bad
    assert refusal(make_v1_packet(mini, **{name: value}), mini).reason == "v1-values"


def test_a_negative_step_is_refused(mini, make_v1_packet):
    assert refusal(make_v1_packet(mini, episode_step=-1), mini).reason == "v1-values"


def test_a_broken_jpeg_is_refused(mini, make_v1_packet):
    packet = make_v1_packet(mini)
    start = packet.index(b"\xff\xd8")
    frame = packet.index(b"\xff\xc0", start)
    for broken in (
        packet[: start + 4] + bytes(60) + packet[start + 64 :],
        packet[:frame] + b"\xff\x00" + packet[frame + 2 :],
    ):
        assert refusal(broken, mini).reason == "bad-rgb"


def test_a_jpeg_of_another_size_is_refused(mini, make_v1_packet):
    packet = make_v1_packet(mini, rgb=np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8), rgb_shape=[HEIGHT, WIDTH, 3])
    error = refusal(packet, mini)
    assert (error.reason, "JPEG of 65x36" in error.detail) == ("bad-rgb", True)


def test_every_truncation_of_a_packet_is_refused(mini, make_v1_packet):
    for compressed in (True, False):
        packet = make_v1_packet(mini, rgb_compressed=compressed)
        lengths = {*range(0, len(packet), 37), *range(len(packet) - 40, len(packet))}
        for length in lengths:
            assert refusal(packet[:length], mini).reason in ("v1-length", "v1-metadata", "bad-rgb")


def test_bytes_too_many_in_a_raw_packet_are_refused(mini, make_v1_packet):
    for extra in (1, 4, 32):
        assert refusal(make_v1_packet(mini, rgb_compressed=False) + bytes(extra), mini).reason == "v1-length"


def test_bytes_too_many_in_a_jpeg_packet_are_refused(mini, make_v1_packet):
    assert refusal(make_v1_packet(mini) + bytes(4), mini).reason in ("v1-length", "bad-rgb")


def test_a_robot_without_camera_has_no_v1_packets(mini, make_v1_packet):
    blind = msgspec.structs.replace(mini, camera=None)
    assert refusal(make_v1_packet(mini), blind).reason == "v1-shape"


def test_3000_mutations_of_a_packet_cause_nothing_but_wire_errors(mini, make_v1_packet):
    seeds = [make_v1_packet(mini), make_v1_packet(mini, rgb_compressed=False, done=True)]
    hostile = [None, -1, 2**63, 10**400, 1e308, "x", [], [0], [2**40, 2**40, 3], {}, True, "\x00"]
    rng = random.Random(7)
    session = V1Session(mini, "b0")
    reasons: dict[str, int] = {}
    for _ in range(3000):
        packet = rng.choice(seeds)
        (size,) = struct.unpack_from("<I", packet)
        action = rng.random()
        if action < 0.4:
            metadata = json.loads(packet[4 : 4 + size])
            for _ in range(rng.choice([1, 2])):
                metadata[rng.choice(list(metadata))] = rng.choice(hostile)
            packet = with_metadata(packet, json.dumps(metadata).encode())
        elif action < 0.9:
            data = bytearray(packet)
            for _ in range(rng.choice([1, 3, 20])):
                limit = rng.choice([4, 4 + size, len(data)])
                data[rng.randrange(limit)] = rng.choice([0, 0xFF, rng.randrange(256)])
            packet = bytes(data)
        else:
            packet = packet[: rng.randrange(len(packet))]
        try:
            step = session.accept(packet, 1)
        except WireError as error:
            reasons[error.reason] = reasons.get(error.reason, 0) + 1
            continue
        decode_step(decode_from_robot(encode_step(step, mini)[0]), encode_step(step, mini)[1:], mini)
    assert set(reasons) == {"v1-length", "v1-metadata", "v1-shape", "v1-values", "bad-rgb"}


# A session


def test_packets_become_numbered_human_steps(mini, make_v1_packet):
    session = V1Session(mini, "boot")
    actions = [(0.1, 0.0), (0.2, -0.5), (0.3, 0.5)]
    steps = [
        session.accept(make_v1_packet(mini, episode_step=i, action=np.array(a, np.float32), reward=float(i)), 1000 + i)
        for i, a in enumerate(actions)
    ]
    records = [step.record for step in steps]
    assert [(r.robot, r.boot, r.sequence, r.episode, r.index) for r in records] == [
        ("v1", "boot", i, 0, i) for i in range(3)
    ]
    assert {r.action.source for r in records} == {"human"}
    assert [r.action.behaviour for r in records] == [None] * 3
    assert [r.reward for r in records] == [0.0, 1.0, 2.0]
    assert [r.stamps.captured_ns for r in records] == [1000, 1001, 1002]
    assert records[0].previous_command == (0.0, 0.0)
    for i in (0, 1, 2):
        assert records[i].command.values == records[i].action.values == pytest.approx(actions[i])
    for i in (1, 2):
        assert records[i].previous_command == pytest.approx(actions[i - 1])
    assert not any(r.gap or r.ended for r in records)


def test_a_step_of_a_session_survives_the_codec(mini, make_v1_packet):
    step = V1Session(mini, "boot").accept(make_v1_packet(mini), 5)
    frames = encode_step(step, mini)
    copy = decode_step(decode_from_robot(frames[0]), frames[1:], mini)
    assert copy.record == step.record
    np.testing.assert_array_equal(copy.observation["depth"], step.observation["depth"])


@pytest.mark.parametrize(("proprio", "terminated"), [(NEAR, True), (FAR, False)])
def test_done_near_an_obstacle_is_a_collision_and_a_time_limit_elsewhere(mini, make_v1_packet, proprio, terminated):
    record = V1Session(mini, "b").accept(make_v1_packet(mini, done=True, proprio=proprio), 1).record
    assert (record.terminated, record.truncated) == (terminated, not terminated)


def test_an_obstacle_alone_ends_nothing(mini, make_v1_packet):
    assert not V1Session(mini, "b").accept(make_v1_packet(mini, proprio=NEAR), 1).record.ended


def test_without_a_distance_done_is_a_time_limit(mini, make_v1_packet):
    quantities = tuple(q if q.name != "min_forward_dist" else RENAMED for q in mini.proprio)
    deaf = msgspec.structs.replace(mini, proprio=quantities)
    record = V1Session(deaf, "b").accept(make_v1_packet(deaf, done=True, proprio=NEAR), 1).record
    assert (record.terminated, record.truncated) == (False, True)


def walk(profile: RobotProfile, make_v1_packet, steps: list[tuple[int, bool]]) -> list[tuple[int, int, bool]]:
    """Return (episode, index, gap) of packets with these (episode_step, done)."""
    session = V1Session(profile, "b")
    records = [session.accept(make_v1_packet(profile, episode_step=s, done=d), 1).record for s, d in steps]
    assert [r.sequence for r in records] == list(range(len(steps)))
    return [(r.episode, r.index, r.gap) for r in records]


def test_done_begins_a_new_episode(mini, make_v1_packet):
    steps = [(0, False), (1, True), (0, False), (1, False)]
    assert walk(mini, make_v1_packet, steps) == [(0, 0, False), (0, 1, False), (1, 0, False), (1, 1, False)]


def test_counting_that_goes_on_after_done_is_still_a_new_episode(mini, make_v1_packet):
    steps = [(0, False), (1, True), (2, False), (3, False)]
    assert walk(mini, make_v1_packet, steps) == [(0, 0, False), (0, 1, False), (1, 0, False), (1, 1, False)]


@pytest.mark.parametrize("again", [0, 1, 4])
def test_a_counter_that_does_not_grow_begins_a_new_episode(mini, make_v1_packet, again):
    steps = [(3, False), (4, False), (again, False), (again + 1, False)]
    assert walk(mini, make_v1_packet, steps) == [(0, 0, False), (0, 1, False), (1, 0, False), (1, 1, False)]


def test_missing_steps_are_a_gap_in_the_same_episode(mini, make_v1_packet):
    steps = [(0, False), (1, False), (5, False), (6, False)]
    assert walk(mini, make_v1_packet, steps) == [(0, 0, False), (0, 1, False), (0, 2, True), (0, 3, False)]


def test_a_refused_packet_leaves_the_session_as_it_was(mini, make_v1_packet):
    session = V1Session(mini, "b")
    session.accept(make_v1_packet(mini, episode_step=0), 1)
    for bad in (b"", make_v1_packet(mini, episode_step=9, done=True, proprio=np.full(6, math.nan, np.float32))):
        with pytest.raises(WireError):
            session.accept(bad, 2)
    record = session.accept(make_v1_packet(mini, episode_step=1), 3).record
    assert (record.sequence, record.episode, record.index, record.gap) == (1, 0, 1, False)


def test_an_episode_begins_from_standing_still(mini, make_v1_packet):
    session = V1Session(mini, "b")
    session.accept(make_v1_packet(mini, episode_step=0, done=True), 1)
    assert session.accept(make_v1_packet(mini, episode_step=0), 2).record.previous_command == (0.0, 0.0)
