"""Observation -> network inputs. Training, calibration and driving all use this code and no other.

Every image is uint8 planes (channels, height, width), so that an NPU takes it as it is. Depth
becomes inverse depth: 255 at `depth_near_m` and closer, 1 far away, 0 where nothing was measured;
eight bits are then fine where it matters, close by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import Camera, RobotProfile
from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays
from policyloop.errors import VerificationError

__all__ = ["encode_depth", "feature_specs", "features"]


@lru_cache(maxsize=8)
def _depth_codes(camera: Camera) -> NDArray[np.uint8]:
    """Return the code of every possible depth in mm, shape (65536,)."""
    depth_m = np.arange(65536) * 0.001
    with np.errstate(divide="ignore"):
        codes = np.clip(np.rint(255 * camera.depth_near_m / depth_m), 1, 255)
    codes[0] = 0
    return codes.astype(np.uint8)


def encode_depth(depth_mm: NDArray[np.uint16], camera: Camera) -> NDArray[np.uint8]:
    """Return the inverse-depth code of each pixel, same shape, uint8."""
    return _depth_codes(camera)[depth_mm]


def features(
    profile: RobotProfile, normalizer: Normalizer, arrays: Arrays, inputs: Iterable[str] | None = None
) -> Arrays:
    """Return what the network sees: `rgb` (3, H, W) uint8, `depth` (1, H, W) uint8, `proprio` (n,) float32.

    With `inputs`, those that it takes, in its order: no robot works for a picture that nobody looks at.
    """
    makers: dict[str, Callable[[], NDArray[np.generic]]] = {}
    if (camera := profile.camera) is not None:
        makers["rgb"] = lambda: np.ascontiguousarray(arrays["rgb"].transpose(2, 0, 1))
        makers["depth"] = lambda: encode_depth(arrays["depth"], camera)[None]
    makers["proprio"] = lambda: normalizer(arrays["proprio"])
    return {name: makers[name]() for name in (makers if inputs is None else inputs)}


def feature_specs(profile: RobotProfile, inputs: Sequence[str] | None = None) -> dict[str, ArraySpec]:
    """Return the specs of `features`; with `inputs`, of those that a network takes, in its order.

    Raises:
        VerificationError: The network takes something that is no feature of this profile.
    """
    specs = []
    if profile.camera is not None:
        height, width = profile.camera.height, profile.camera.width
        specs.append(ArraySpec(name="rgb", shape=(3, height, width), dtype="uint8"))
        specs.append(ArraySpec(name="depth", shape=(1, height, width), dtype="uint8"))
    specs.append(ArraySpec(name="proprio", shape=(profile.proprio_size,), dtype="float32"))
    found = {spec.name: spec for spec in specs}
    if inputs is None:
        return found
    for name in inputs:
        if name not in found:
            raise VerificationError(
                f"the network takes '{name[:64]}', profile '{profile.name}' has {', '.join(found)}",
                "start the robot with the profile that the network was made for",
            )
    return {name: found[name] for name in inputs}
