"""A node's parameters as settings of what they set; their names are those of the interface table."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import ConfigError
from policyloop.robot.calibration import CalibrationSettings
from policyloop.robot.program import ProgramSettings
from policyloop.robot.ros.limits import tightened
from policyloop.robot.ros.topics import TopicSettings
from policyloop.robot.service import LinkSettings
from policyloop.runtime.health import SwapSettings
from policyloop.runtime.rknn_backend import npu_present

__all__ = [
    "Values",
    "calibration_of",
    "gate_profile_of",
    "link_of",
    "profile_of",
    "program_of",
    "robot_of",
    "topics_of",
]

Values = Mapping[str, Any]

_CORES = {0: "auto", 1: "0", 2: "1", 3: "0_1", 4: "2", 7: "0_1_2"}
"""As RKNNLite's masks count the cores of an RK3588; with 0 a bundle without a network for the NPU runs on the CPU."""


def profile_of(values: Values, rate: str) -> RobotProfile:
    """Load the profile; ConfigError unless the parameter called `rate` is its own rate.

    What drives or records at another rate than the policy was made for is another robot.
    """
    profile = load_profile(values["profile"])
    if values[rate] != profile.rates.control_hz:
        raise ConfigError(
            f"{rate} is {values[rate]:g}, profile '{profile.name}' has control_hz = {profile.rates.control_hz:g}",
            "change one of them; a policy drives at the rate that it was trained for",
        )
    return profile


def topics_of(values: Values) -> TopicSettings:
    """Return where the sensors are."""
    return TopicSettings(
        rgb=values["rgb_topic"],
        depth=values["depth_topic"],
        odom=values["odom_topic"],
        imu=values["imu_topic"],
        distance=values["min_distance_topic"],
        depth_unit_m=values["depth_scale"],
        depth_clip_m=values["depth_clip_m"],
        tolerance_s=values["sync_tolerance_s"],
    )


def robot_of(values: Values) -> str:
    """Return the robot's name: the parameter, or the machine's."""
    return str(values["robot_name"]) or socket.gethostname()


def link_of(values: Values) -> LinkSettings:
    """Return where steps go."""
    return LinkSettings(
        address=values["server_address"],
        keys=_path(values["keys_dir"]),
        gateway_key=values["gateway_key"],
        spool=_path(values["spool_dir"]),
    )


def calibration_of(values: Values) -> tuple[Path | None, CalibrationSettings]:
    """Return the folder of calibration samples, None if none are taken, and how many of them."""
    wanted = CalibrationSettings(
        interval_s=values["calibration_sample_interval"], count=values["calibration_sample_count"]
    )
    return (Path(values["calibration_data_dir"]) if values["save_calibration_samples"] else None), wanted


def gate_profile_of(profile: RobotProfile, values: Values) -> RobotProfile:
    """Return the profile whose limits the gate obeys; ConfigError if no robot could drive within them."""
    return tightened(
        profile,
        max_linear_mps=values["max_linear_speed"],
        max_angular_radps=values["max_angular_speed"],
        safety_distance_m=values["safety_distance"],
    )


def program_of(values: Values) -> ProgramSettings:
    """Return how the robot is driven; ConfigError if there are no such cores."""
    return ProgramSettings(
        policy=Path(values["model_path"]),
        robot=robot_of(values),
        backend=_backend(values),
        trusted=_path(values["trusted_keys"]),
        proof=SwapSettings(shadow_ticks=values["shadow_ticks"], probation_s=values["probation_s"]),
        link=link_of(values),
        control=_path(values["control_socket"]),
    )


def _backend(values: Values) -> str:
    """Return what runs the network: the NPU where it is wanted and there, else the CPU (row S23)."""
    mask = values["npu_core_mask"]
    if mask not in _CORES:
        raise ConfigError(f"npu_core_mask is {mask}", f"use one of {', '.join(map(str, _CORES))}")
    if not values["use_npu"] or not npu_present():
        return "onnx"
    return f"rknn:{_CORES[mask]}" if mask else "auto"


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None
