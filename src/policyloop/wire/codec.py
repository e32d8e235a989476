"""Steps as multipart messages and as journal records, with every limit checked before it matters.

The one error that hostile bytes can cause here is `WireError`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays, Step, StepRecord
from policyloop.errors import WireError
from policyloop.wire.depth import pack_depth, unpack_depth
from policyloop.wire.messages import FromGateway, FromRobot, StepHeader
from policyloop.wire.rgb import pack_rgb, unpack_rgb

__all__ = [
    "MAX_FRAMES",
    "MAX_HEADER_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_STRING",
    "check_record",
    "decode_from_gateway",
    "decode_from_robot",
    "decode_step",
    "encode",
    "encode_step",
    "join_frames",
    "split_frames",
    "split_step",
]

MAX_MESSAGE_BYTES = 8 << 20
MAX_HEADER_BYTES = 16 << 10
MAX_FRAMES = 16
MAX_STRING = 256

_encoder = msgspec.msgpack.Encoder()
_from_robot = msgspec.msgpack.Decoder(FromRobot)
_from_gateway = msgspec.msgpack.Decoder(FromGateway)

Frames = Sequence[bytes]


def encode(message: FromRobot | FromGateway) -> bytes:
    """Encode a header."""
    return _encoder.encode(message)


def decode_from_robot(header: bytes) -> FromRobot:
    """Decode a header that a robot sent; WireError `bad-header` if it is not one."""
    if len(header) > MAX_HEADER_BYTES:
        raise WireError("bad-header", f"{len(header)} bytes, at most {MAX_HEADER_BYTES}")
    try:
        return _from_robot.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("bad-header", str(error)) from None


def decode_from_gateway(header: bytes) -> FromGateway:
    """Decode a header that a gateway sent; WireError `bad-header` if it is not one."""
    if len(header) > MAX_HEADER_BYTES:
        raise WireError("bad-header", f"{len(header)} bytes, at most {MAX_HEADER_BYTES}")
    try:
        return _from_gateway.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("bad-header", str(error)) from None


def encode_step(step: Step, profile: RobotProfile) -> list[bytes]:
    """Return the frames of a step: header, observation, and the final observation if there is one."""
    frames = [encode(StepHeader(record=step.record, final=step.final_observation is not None))]
    for arrays in (step.observation, step.final_observation):
        if arrays is not None:
            frames += [_pack(arrays[name], spec, profile) for name, spec in profile.observation_specs.items()]
    return frames


def decode_step(header: StepHeader, frames: Frames, profile: RobotProfile) -> Step:
    """Decode and check a step completely; WireError names what is wrong with it.

    Args:
        header: Decoded from the message's first frame.
        frames: The frames after it.
        profile: The gateway's profile; the step's digest must be the same.
    """
    record = header.record
    check_record(record, profile)
    specs = profile.observation_specs
    expected = len(specs) * (2 if header.final else 1)
    if len(frames) != expected:
        raise WireError("bad-frames", f"{len(frames)} frames, expected {expected}")
    observation = _unpack_all(frames[: len(specs)], specs)
    final = _unpack_all(frames[len(specs) :], specs) if header.final else None
    return Step(record, observation, final)


def _pack(array: NDArray[np.generic], spec: ArraySpec, profile: RobotProfile) -> bytes:
    spec.validate(array)
    if spec.name == "rgb":
        return pack_rgb(array, profile.stream)  # type: ignore[arg-type]
    if spec.name == "depth":
        return pack_depth(array)  # type: ignore[arg-type]
    return array.tobytes()


def _unpack_all(frames: Frames, specs: dict[str, ArraySpec]) -> Arrays:
    return {name: _unpack(frame, spec) for frame, (name, spec) in zip(frames, specs.items(), strict=True)}


def _unpack(frame: bytes, spec: ArraySpec) -> NDArray[np.generic]:
    if spec.name == "rgb":
        return unpack_rgb(frame, spec.shape)
    if spec.name == "depth":
        return unpack_depth(frame, spec.shape)
    if len(frame) != spec.nbytes:
        raise WireError(f"bad-{spec.name}", f"{len(frame)} bytes, expected {spec.nbytes}")
    array = np.frombuffer(frame, spec.dtype).reshape(spec.shape)
    if not np.isfinite(array).all():
        raise WireError(f"bad-{spec.name}", "not finite")
    return array


def check_record(record: StepRecord, profile: RobotProfile) -> None:
    """Refuse numbers that are not finite, vectors of another length and names that are too long; WireError."""
    if record.profile_digest != profile.digest:
        raise WireError(
            "wrong-profile", f"recorded with profile {record.profile_digest[:12]}, not {profile.digest[:12]}"
        )
    for name in (record.robot, record.boot):
        if not 0 < len(name) <= MAX_STRING:
            raise WireError("bad-record", f"a name of {len(name)} characters")
    if min(record.sequence, record.episode, record.index) < 0:
        raise WireError("bad-record", "negative sequence, episode or index")
    size = len(profile.action)
    vectors = [record.action.values, record.command.values, record.previous_command]
    numbers: list[float] = [*record.reward_terms.values(), record.wall_clock_s]
    if record.action.behaviour is not None:
        behaviour = record.action.behaviour
        vectors += [behaviour.mean, behaviour.log_std, behaviour.sample]
        numbers.append(behaviour.log_prob)
    elif record.action.source == "policy":
        raise WireError("bad-record", "a policy step without its behaviour record")
    for vector in vectors:
        if len(vector) != size:
            raise WireError("bad-record", f"a vector of {len(vector)} numbers, expected {size}")
        numbers += vector
    if not all(map(math.isfinite, numbers)):
        raise WireError("bad-record", "a number is not finite")


def join_frames(frames: Frames) -> bytes:
    """Return frames as one record: count, lengths, bytes (little-endian)."""
    return struct.pack(f"<H{len(frames)}I", len(frames), *map(len, frames)) + b"".join(frames)


def split_step(record: bytes, where: str) -> tuple[StepHeader, list[bytes]]:
    """Return the header of a stored step and all its frames, the header's first.

    Raises:
        WireError: It is damaged, or something else than a step; `where` names it.
    """
    frames = split_frames(record)
    header = decode_from_robot(frames[0]) if frames else None
    if not isinstance(header, StepHeader):
        raise WireError("bad-record", f"{where} is not a step")
    return header, frames


def split_frames(record: bytes) -> list[bytes]:
    """Undo `join_frames`; WireError `bad-record` if the lengths do not add up."""
    try:
        (count,) = struct.unpack_from("<H", record)
        if count > MAX_FRAMES:
            raise WireError("bad-record", f"{count} frames, at most {MAX_FRAMES}")
        lengths = struct.unpack_from(f"<{count}I", record, 2)
    except struct.error:
        raise WireError("bad-record", f"{len(record)} bytes hold no frame table") from None
    start = 2 + 4 * count
    if start + sum(lengths) != len(record):
        raise WireError("bad-record", f"frames of {sum(lengths)} bytes in {len(record) - start}")
    frames = []
    for length in lengths:
        frames.append(record[start : start + length])
        start += length
    return frames
