import math
import random
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyloop.core.profile import RobotProfile, Stream
from policyloop.core.step import Step
from policyloop.errors import IncompatibleError, WireError
from policyloop.wire.codec import (
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    decode_from_gateway,
    decode_from_robot,
    decode_step,
    encode,
    encode_step,
    join_frames,
    split_frames,
)
from policyloop.wire.messages import PROTOCOL, Ack, Hello, Refusal, StepHeader, Welcome

Tree = dict[str, Any]


def decode(frames: list[bytes], profile: RobotProfile) -> Step | None:
    """Decode a message as the gateway does; None for a greeting."""
    header = decode_from_robot(frames[0] if frames else b"")
    return decode_step(header, frames[1:], profile) if isinstance(header, StepHeader) else None


def with_header(frames: list[bytes], change: Callable[[Tree], Any]) -> list[bytes]:
    """Return `frames` with the header's fields changed in place by `change`."""
    tree = msgspec.msgpack.decode(frames[0])
    change(tree)
    return [msgspec.msgpack.encode(tree), *frames[1:]]


def refusal(frames: list[bytes], profile: RobotProfile) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(frames, profile)
    return caught.value


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert list(left) == list(right)
    for name, array in left.items():
        assert right[name].dtype == array.dtype
        np.testing.assert_array_equal(right[name], array)


@pytest.fixture(scope="module", params=["raw", "jpeg"])
def profile(request, mini):
    return msgspec.structs.replace(mini, stream=Stream(rgb_encoding=request.param, jpeg_quality=95))


# Round trips


@pytest.mark.parametrize("end", [{}, {"terminated": True}, {"truncated": True}])
def test_a_step_survives_the_wire(profile, make_step, end):
    step = make_step(profile, 5, episode=2, index=3, **end)
    frames = encode_step(step, profile)
    assert len(frames) == (7 if end else 4)
    copy = decode(frames, profile)
    assert copy.record == step.record
    assert (copy.final_observation is None) == (not end)
    pairs = [(step.observation, copy.observation)]
    if end:
        pairs.append((step.final_observation, copy.final_observation))
    for sent, received in pairs:
        if profile.stream.rgb_encoding == "jpeg":
            assert np.abs(received["rgb"].astype(int) - sent["rgb"]).mean() < 3
            sent, received = ({**arrays, "rgb": np.zeros(1)} for arrays in (sent, received))
        same(sent, received)


@pytest.mark.parametrize("source", ["policy", "human", "scripted", "random"])
def test_every_source_survives_the_wire(mini, make_step, source):
    step = make_step(mini, source=source, intervention="start" if source == "human" else "", gap=True, contact=True)
    assert decode(encode_step(step, mini), mini).record == step.record


def test_a_robot_without_camera_sends_one_picture_less(mini, make_step):
    blind = msgspec.structs.replace(mini, camera=None)
    step = make_step(blind, terminated=True)
    frames = encode_step(step, blind)
    assert len(frames) == 3
    copy = decode(frames, blind)
    same(step.observation, copy.observation)
    same(step.final_observation, copy.final_observation)


def test_numbers_survive_to_the_last_bit(mini, make_step):
    step = make_step(mini, reward_terms={"forward": 0.1 + 0.2, "time": -5e-324}, wall_clock_s=1.7976931348623157e308)
    assert decode(encode_step(step, mini), mini).record == step.record


@pytest.mark.parametrize("message", [Hello(protocol=PROTOCOL, robot="r", boot="b", profile_digest="d")])
def test_messages_of_a_robot_survive(message):
    assert decode_from_robot(encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Welcome(protocol=PROTOCOL),
        Ack(boot="b", sequence=-1),
        Ack(boot="b", sequence=2**40, hold=True, policy_version=12),
        Refusal(reason="bad-depth", detail="why", boot="b", sequence=3),
    ],
)
def test_messages_of_a_gateway_survive(message):
    assert decode_from_gateway(encode(message)) == message


def test_the_sides_do_not_take_each_others_messages():
    with pytest.raises(WireError, match="bad-header"):
        decode_from_robot(encode(Welcome(protocol=PROTOCOL)))
    with pytest.raises(WireError, match="bad-header"):
        decode_from_gateway(encode(Hello(protocol=PROTOCOL, robot="r", boot="b", profile_digest="d")))


@given(frames=st.lists(st.binary(max_size=50), max_size=MAX_FRAMES))
def test_joined_frames_split_again(frames):
    assert split_frames(join_frames(frames)) == frames


# What is refused before it is sent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proprio", np.full(6, np.nan, np.float32)),
        ("proprio", np.zeros(5, np.float32)),
        ("depth", np.zeros((36, 64), np.float32)),
        ("rgb", np.zeros((36, 64, 4), np.uint8)),
    ],
)
def test_a_robot_does_not_send_arrays_that_do_not_fit(mini, make_step, name, value):
    step = make_step(mini)
    broken = Step(step.record, {**step.observation, name: value})
    with pytest.raises(IncompatibleError, match=name):
        encode_step(broken, mini)


# What is refused on arrival


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("change", ["one less", "one more", "none"])
def test_another_number_of_frames_is_refused(mini, make_step, final, change):
    frames = encode_step(make_step(mini, terminated=final), mini)
    frames = {"one less": frames[:-1], "one more": [*frames, b""], "none": frames[:1]}[change]
    assert refusal(frames, mini).reason == "bad-frames"


@pytest.mark.parametrize("claimed", [False, True])
def test_a_lie_about_the_final_observation_is_refused(mini, make_step, claimed):
    frames = encode_step(make_step(mini, terminated=not claimed), mini)
    assert refusal(with_header(frames, lambda tree: tree.update(final=claimed)), mini).reason == "bad-frames"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [3, 6])
def test_proprioception_that_is_not_finite_is_refused(mini, make_step, bad, position):
    frames = encode_step(make_step(mini, terminated=True), mini)
    frames[position] = np.array([0, 0, bad, 0, 0, 0], np.float32).tobytes()
    error = refusal(frames, mini)
    assert (error.reason, error.detail) == ("bad-proprio", "not finite")


@pytest.mark.parametrize("size", [0, 23, 25, 48])
def test_proprioception_of_another_length_is_refused(mini, make_step, size):
    frames = encode_step(make_step(mini), mini)
    frames[3] = bytes(size)
    error = refusal(frames, mini)
    assert (error.reason, error.detail) == ("bad-proprio", f"{size} bytes, expected 24")


def test_an_oversized_header_is_refused_unread(mini, make_step):
    frames = encode_step(make_step(mini, reward_terms={f"term-{i:04}": 1.0 for i in range(1200)}), mini)
    assert len(frames[0]) > MAX_HEADER_BYTES
    error = refusal(frames, mini)
    assert (error.reason, f"at most {MAX_HEADER_BYTES}" in error.detail) == ("bad-header", True)
    with pytest.raises(WireError, match="bad-header"):
        decode_from_gateway(frames[0])


def test_a_header_of_just_the_largest_size_is_read(mini, make_step):
    terms = {"x": 1.0}
    short = len(encode_step(make_step(mini, reward_terms=terms), mini)[0])
    name = "x" * (MAX_HEADER_BYTES - short - 1)  # a longer name also has a length two bytes longer
    frames = encode_step(make_step(mini, reward_terms={name: 1.0}), mini)
    assert len(frames[0]) == MAX_HEADER_BYTES
    assert decode(frames, mini).record.reward_terms == {name: 1.0}


def test_a_step_of_another_profile_is_refused(mini, make_step):
    error = refusal(encode_step(make_step(mini, profile_digest="f" * 64), mini), mini)
    assert error.reason == "wrong-profile"
    assert "f" * 12 in error.detail and mini.digest[:12] in error.detail


def test_a_policy_step_without_its_behaviour_is_refused(mini, make_step):
    frames = with_header(
        encode_step(make_step(mini), mini), lambda tree: tree["record"]["action"].update(behaviour=None)
    )
    error = refusal(frames, mini)
    assert (error.reason, "behaviour" in error.detail) == ("bad-record", True)


VECTORS = {
    "action": ("action", "values"),
    "command": ("command", "values"),
    "previous command": ("previous_command",),
    "mean": ("action", "behaviour", "mean"),
    "deviation": ("action", "behaviour", "log_std"),
    "draw": ("action", "behaviour", "sample"),
}
NUMBERS = {
    **{name: (*path, 1) for name, path in VECTORS.items()},
    "log probability": ("action", "behaviour", "log_prob"),
    "reward": ("reward_terms", "spin"),
    "wall clock": ("wall_clock_s",),
}


def put(path: tuple[Any, ...], value: Any) -> Callable[[Tree], None]:
    def change(tree: Tree) -> None:
        node: Any = tree["record"]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


@pytest.mark.parametrize("vector", [[], [0.1], [0.1, 0.2, 0.3]])
@pytest.mark.parametrize("path", VECTORS.values(), ids=VECTORS)
def test_a_vector_of_another_length_is_refused(mini, make_step, path, vector):
    error = refusal(with_header(encode_step(make_step(mini), mini), put(path, vector)), mini)
    assert (error.reason, error.detail) == ("bad-record", f"a vector of {len(vector)} numbers, expected 2")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("path", NUMBERS.values(), ids=NUMBERS)
def test_a_number_that_is_not_finite_is_refused(mini, make_step, path, bad):
    error = refusal(with_header(encode_step(make_step(mini), mini), put(path, bad)), mini)
    assert (error.reason, error.detail) == ("bad-record", "a number is not finite")


@pytest.mark.parametrize("key", ["sequence", "episode", "index"])
def test_a_negative_count_is_refused(mini, make_step, key):
    error = refusal(with_header(encode_step(make_step(mini), mini), put((key,), -1)), mini)
    assert (error.reason, "negative" in error.detail) == ("bad-record", True)


@pytest.mark.parametrize("key", ["robot", "boot"])
@pytest.mark.parametrize(("name", "accepted"), [("", False), ("x", True), ("x" * 256, True), ("x" * 257, False)])
def test_a_name_has_1_to_256_characters(mini, make_step, key, name, accepted):
    frames = with_header(encode_step(make_step(mini), mini), put((key,), name))
    if accepted:
        assert getattr(decode(frames, mini).record, key) == name
    else:
        assert refusal(frames, mini).reason == "bad-record"


BAD_HEADERS: dict[str, Callable[[Tree], Any]] = {
    "another type": lambda tree: tree.update(type="stop"),
    "no type": lambda tree: tree.pop("type"),
    "an unknown field": lambda tree: tree.update(extra=1),
    "an unknown field of the record": put(("extra",), 1),
    "a missing field": lambda tree: tree["record"].pop("boot"),
    "text for a number": put(("sequence",), "1"),
    "a fraction for a count": put(("sequence",), 1.5),
    "nothing for a number": put(("wall_clock_s",), None),
    "an unknown source": put(("action", "source"), "ghost"),
    "an unknown intervention": put(("intervention",), "perhaps"),
    "no record": lambda tree: tree.update(record=None),
}


@pytest.mark.parametrize("change", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_header_of_another_form_is_refused(mini, make_step, change):
    assert refusal(with_header(encode_step(make_step(mini), mini), change), mini).reason == "bad-header"


@pytest.mark.parametrize(
    "header",
    [b"", b"\xc1", b"\xc0", b"\x91" * 16_000, b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b'{"type": "hello"}'],
    ids=["empty", "reserved", "nil", "deep", "huge map", "huge list", "json"],
)
def test_bytes_that_are_no_header_are_refused(mini, header):
    assert refusal([header], mini).reason == "bad-header"
    with pytest.raises(WireError, match="bad-header"):
        decode_from_gateway(header)


@pytest.mark.parametrize(("old", "new"), [(b"r-2-d-2", b"r-\xff-d-2"), (b"robot", b"r\xffbot"), (b"step", b"st\xffp")])
def test_a_header_that_is_not_utf8_is_refused(mini, make_step, old, new):
    frames = encode_step(make_step(mini, robot="r-2-d-2"), mini)
    assert old in frames[0]
    frames[0] = frames[0].replace(old, new, 1)
    assert refusal(frames, mini).reason == "bad-header"


def test_a_gateways_header_that_is_not_utf8_is_refused():
    with pytest.raises(WireError, match="bad-header"):
        decode_from_gateway(encode(Ack(boot="boot", sequence=1)).replace(b"\xa4boot\xa4boot", b"\xa4boot\xa4b\xfft"))


@pytest.mark.parametrize(
    ("position", "frame", "reason"),
    [
        (1, b"\xff\xd8\xff\xe0 and no more", "bad-rgb"),
        (1, b"", "bad-rgb"),
        (1, bytes(36 * 64 * 3 - 3), "bad-rgb"),
        (2, b"", "bad-depth"),
        (2, b"\x09", "bad-depth"),
        (2, b"\x01 not zstandard", "bad-depth"),
        (5, b"\x01", "bad-depth"),
        (4, b"\xff\xd8", "bad-rgb"),
    ],
)
def test_a_broken_picture_is_refused_by_name(mini, make_step, position, frame, reason):
    frames = encode_step(make_step(mini, truncated=True), mini)
    frames[position] = frame
    assert refusal(frames, mini).reason == reason


def test_swapped_pictures_are_refused(mini, make_step):
    frames = encode_step(make_step(mini), mini)
    frames[1], frames[2] = frames[2], frames[1]
    assert refusal(frames, mini).reason == "bad-rgb"


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x01",
        b"\x01\x00",
        b"\x01\x00\x05\x00\x00",
        b"\x01\x00\x05\x00\x00\x00abcd",
        b"\x01\x00\x05\x00\x00\x00abcdef",
        b"\x02\x00\xff\xff\xff\xff\x01\x00\x00\x00",
        b"\x00\x00rest",
        join_frames([b""] * (MAX_FRAMES + 1)),
    ],
)
def test_a_record_whose_lengths_do_not_add_up_is_refused(record):
    with pytest.raises(WireError, match="bad-record"):
        split_frames(record)


# Whatever arrives, only WireError comes of it

HOSTILE: list[Any] = [
    *[None, True, "", "x" * 300, "\x00", b"", b"\xff\xfe", [], {}, [[]], {"": {}}, [0.0] * 3],
    *[math.nan, math.inf, -math.inf, 1e308, -0.0, 0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)],
    *["step", "hello", "policy", "human", "start", msgspec.Raw(b"\xc7\x01\x05x"), msgspec.Raw(b"\xa2\xff\xfe")],
]


def nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a decoded header."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    return [place for key in keys for place in [(tree, key), *nodes(tree[key])]]


def mutate_header(frames: list[bytes], rng: random.Random) -> None:
    tree = msgspec.msgpack.decode(frames[0])
    for _ in range(rng.choice([1, 1, 2, 5])):
        container, key = rng.choice(nodes(tree))
        action = rng.random()
        if action < 0.7:
            container[key] = rng.choice(HOSTILE)
        elif action < 0.85:
            del container[key]
        elif isinstance(container, dict):
            container[rng.choice(["x", "", "type", "record", "values"])] = rng.choice(HOSTILE)
        else:
            container.append(rng.choice(HOSTILE))
        if not nodes(tree):
            break
    frames[0] = msgspec.msgpack.encode(tree)


def mutate_bytes(frames: list[bytes], rng: random.Random) -> None:
    which = rng.randrange(len(frames))
    data = bytearray(frames[which])
    for _ in range(rng.choice([1, 1, 1, 4, 30])):
        if data:
            data[rng.randrange(len(data))] = rng.choice([0, 0xFF, rng.randrange(256)])
    action = rng.random()
    if action < 0.2:
        del data[rng.randrange(len(data) + 1) :]
    elif action < 0.3:
        data += rng.randbytes(rng.randrange(40))
    frames[which] = bytes(data)


def mutate_frames(frames: list[bytes], rng: random.Random) -> None:
    here, there = rng.randrange(len(frames)), rng.randrange(len(frames))
    action = rng.randrange(4)
    if action == 0:
        frames[here], frames[there] = frames[there], frames[here]
    elif action == 1:
        frames.insert(here, frames[there])
    elif action == 2:
        frames[here] = rng.choice([b"", b"\x01", b"\xff\xd8", frames[there] * 2, rng.randbytes(rng.randrange(200))])
    else:
        del frames[here]


def test_3000_mutations_of_a_message_cause_nothing_but_wire_errors(mini, make_step):
    jpeg = msgspec.structs.replace(mini, stream=Stream(rgb_encoding="jpeg"))
    seeds = [
        encode_step(make_step(mini), mini),
        encode_step(make_step(mini, 1, terminated=True), jpeg),
        encode_step(make_step(jpeg, 2, source="human"), jpeg),
    ]
    rng = random.Random(20)
    reasons: dict[str, int] = {}
    escaped = {}
    for trial in range(3000):
        frames = list(rng.choice(seeds))
        rng.choice([mutate_header, mutate_header, mutate_bytes, mutate_frames])(frames, rng)
        try:
            step = decode(frames, mini)
        except WireError as error:
            reasons[error.reason] = reasons.get(error.reason, 0) + 1
            continue
        except Exception as error:
            escaped[type(error).__name__] = (trial, str(error)[:80])
            continue
        if step is not None:
            assert step.record.profile_digest == mini.digest
            for name, spec in mini.observation_specs.items():
                spec.validate(step.observation[name])
            assert len(split_frames(join_frames(frames))) == len(frames)
    assert set(reasons) >= {"bad-header", "bad-record", "bad-frames", "bad-rgb", "bad-depth", "bad-proprio"}
    assert escaped == {}


@given(st.binary(max_size=300))
def test_garbage_causes_nothing_but_wire_errors(data):
    for decoder in (decode_from_robot, decode_from_gateway, split_frames):
        try:
            decoder(data)
        except WireError:
            continue
