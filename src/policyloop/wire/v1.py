"""The original v1 packet, accepted unchanged as demonstrations (row S4).

One frame: `u32le length`, JSON metadata, JPEG or raw RGB, float32 depth in metres, float32
proprioception, float32 action. It has no sequence number, policy version or log-probability, and
its RGB length is known only by subtraction: everything else must therefore add up exactly.
"""

from __future__ import annotations

import math
import struct

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Arrays, Command, Stamps, Step, StepRecord
from policyloop.errors import WireError
from policyloop.wire.rgb import JPEG_END, unpack_rgb

__all__ = ["V1Metadata", "V1Session", "decode_v1"]

_MAX_METADATA_BYTES = 16 << 10


class V1Metadata(msgspec.Struct, frozen=True):
    """The JSON part; unknown keys are ignored, as the original trainer did."""

    timestamp: float
    episode_step: int
    reward: float
    done: bool
    rgb_shape: tuple[int, int, int]
    depth_shape: tuple[int, int]
    proprio_shape: tuple[int]
    action_shape: tuple[int]
    rgb_compressed: bool = True


_metadata = msgspec.json.Decoder(V1Metadata)


def decode_v1(packet: bytes, profile: RobotProfile) -> tuple[V1Metadata, Arrays, tuple[float, ...]]:
    """Check and decode one packet; returns metadata, observation arrays and the action.

    Depth becomes uint16 mm; what is not finite, negative or beyond the camera's range becomes 0,
    no measurement.

    Raises:
        WireError: `v1-length`, `v1-metadata`, `v1-shape`, `v1-values` or `bad-rgb`.
    """
    if len(packet) < 4:
        raise WireError("v1-length", f"{len(packet)} bytes hold no metadata length")
    (size,) = struct.unpack_from("<I", packet)
    if size > _MAX_METADATA_BYTES or 4 + size > len(packet):
        raise WireError("v1-length", f"metadata of {size} bytes in a packet of {len(packet)}")
    try:
        metadata = _metadata.decode(packet[4 : 4 + size])
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError("v1-metadata", str(error)) from None
    specs = profile.observation_specs
    if "rgb" not in specs:
        raise WireError("v1-shape", f"profile '{profile.name}' has no camera, a v1 packet always has pictures")
    claimed = {"rgb": metadata.rgb_shape, "depth": metadata.depth_shape, "proprio": metadata.proprio_shape}
    for name, shape in {**claimed, "action": metadata.action_shape}.items():
        expected = profile.action_spec.shape if name == "action" else specs[name].shape
        if tuple(shape) != expected:
            raise WireError("v1-shape", f"{name} of shape {tuple(shape)}, profile '{profile.name}' has {expected}")
    depth_bytes = 4 * int(np.prod(metadata.depth_shape))
    tail = depth_bytes + 4 * (metadata.proprio_shape[0] + metadata.action_shape[0])
    rgb_bytes = len(packet) - 4 - size - tail
    if rgb_bytes <= 0 or (not metadata.rgb_compressed and rgb_bytes != specs["rgb"].nbytes):
        raise WireError("v1-length", f"{len(packet)} bytes leave {rgb_bytes} for the picture")
    picture = packet[4 + size : 4 + size + rgb_bytes]
    if metadata.rgb_compressed and not picture.endswith(JPEG_END):
        raise WireError("bad-rgb", "the JPEG does not end where the numbers must begin")
    rgb = unpack_rgb(picture, specs["rgb"].shape)
    numbers = np.frombuffer(packet, "<f4", offset=4 + size + rgb_bytes)
    pixels = depth_bytes // 4
    depth, rest = numbers[:pixels].reshape(metadata.depth_shape), numbers[pixels:]
    proprio = rest[: metadata.proprio_shape[0]].astype(np.float32)
    action = rest[metadata.proprio_shape[0] :]
    finite = np.isfinite(rest).all() and math.isfinite(metadata.timestamp) and math.isfinite(metadata.reward)
    if not finite or metadata.episode_step < 0:
        raise WireError("v1-values", "timestamp, reward, proprio and action must be finite, episode_step not negative")
    arrays: Arrays = {"rgb": rgb, "depth": _millimetres(depth, profile), "proprio": proprio}
    return metadata, arrays, tuple(float(a) for a in action)


def _millimetres(depth_m: NDArray[np.float32], profile: RobotProfile) -> NDArray[np.uint16]:
    assert profile.camera is not None
    measured = (depth_m > 0) & (depth_m <= profile.camera.depth_max_m)  # false for NaN
    return np.rint(np.where(measured, depth_m, 0) * 1000).astype(np.uint16)


class V1Session:
    """Gives the packets of one PUSH socket what they lack: a boot, sequence numbers, episodes.

    A new episode begins after `done` and when `episode_step` does not grow. PUSH cannot tell
    robots apart: two v1 robots on one port look like one that keeps starting episodes.
    """

    def __init__(self, profile: RobotProfile, boot: str) -> None:
        self._profile = profile
        self._boot = boot
        self._sequence = 0
        self._episode = 0
        self._index = 0
        self._last_step = -1
        self._previous = tuple(0.0 for _ in profile.action)

    def accept(self, packet: bytes, received_ns: int) -> Step:
        """Turn one packet into a human step, or raise WireError and leave the session as it was."""
        metadata, arrays, action = decode_v1(packet, self._profile)
        gap = self._index > 0 and metadata.episode_step != self._last_step + 1
        if gap and metadata.episode_step <= self._last_step:
            self._begin_episode()
            gap = False
        collided = metadata.done and self._collided(arrays["proprio"])
        record = StepRecord(
            robot="v1",
            boot=self._boot,
            sequence=self._sequence,
            episode=self._episode,
            index=self._index,
            profile_digest=self._profile.digest,
            stamps=Stamps(received_ns, received_ns, received_ns),
            previous_command=self._previous,
            action=Action(action, "human"),
            command=Command(action),
            reward_terms={"reported": metadata.reward},
            terminated=collided,
            truncated=metadata.done and not collided,
            gap=gap,
            wall_clock_s=metadata.timestamp,
        )
        self._sequence += 1
        self._previous = action
        self._last_step = metadata.episode_step
        self._index += 1
        if metadata.done:
            self._begin_episode()
        return Step(record, arrays)

    def _begin_episode(self) -> None:
        self._episode += 1
        self._index = 0
        self._previous = tuple(0.0 for _ in self._profile.action)

    def _collided(self, proprio: NDArray[np.float32]) -> bool:
        if all(quantity.name != "min_forward_dist" for quantity in self._profile.proprio):
            return False
        distance = proprio[self._profile.proprio_index("min_forward_dist")]
        return bool(distance < self._profile.episode.collision_distance_m)
