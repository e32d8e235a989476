"""Which bridge `--io` means."""

from __future__ import annotations

from pathlib import Path

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError, UsageError
from policyloop.robot.bridge.header import LONGEST_VALIDITY_NS
from policyloop.robot.bridge.paced import PacedBridge
from policyloop.robot.bridge.shared_file import shared_path
from policyloop.robot.bridge.shared_memory import SharedMemoryBridge
from policyloop.robot.bridge.sockets import SocketBridge
from policyloop.robot.bridge.zeromq import ZeroMqBridge

__all__ = ["BRIDGES", "IO_FORMS", "open_bridge", "parsed"]

BRIDGES = ("bridge", "unix", "tcp", "zmq")
IO_FORMS = "bridge, bridge:FILE, unix:PATH, tcp:PORT, tcp:HOST:PORT or zmq:ADDRESS"


def open_bridge(io: str, profile: RobotProfile, robot: str) -> SharedMemoryBridge | PacedBridge:
    """Open the bridge to a controller that drives the motors and reads the sensors of a robot.

    Args:
        io: One of `IO_FORMS`; `bridge` is shared memory.
        profile: The robot's; it has no camera.
        robot: Names the shared memory unless `io` does.

    Raises:
        ConfigError: The robot has a camera, or its commands are valid for longer than shared memory allows.
        UsageError: `io` is none of these.
        PolicyloopError: See the bridges.
    """
    kind, where = parsed(io)
    if profile.camera is not None:
        raise ConfigError(
            f"profile '{profile.name}' has a camera, and a bridge carries no pictures", "use a profile without [camera]"
        )
    states, size, targets = profile.sensed_indices, profile.proprio_size, len(profile.action)
    if kind == "bridge":
        if (valid_ns := profile.rates.command_valid_ns) > LONGEST_VALIDITY_NS:
            raise ConfigError(
                f"commands of profile '{profile.name}' are valid for {valid_ns * 1e-9:g} s, and a controller obeys none"
                f" for more than {LONGEST_VALIDITY_NS * 1e-9:g} s",
                "lower command_valid_s in [rates]; two ticks must fit into it",
            )
        joints = profile.joints
        return SharedMemoryBridge(
            Path(where) if where else shared_path(robot),
            states=states,
            proprio_size=size,
            targets=targets,
            digest=profile.digest,
            kp=() if joints is None else (joints.kp,) * targets,
            kd=() if joints is None else (joints.kd,) * targets,
            pose=() if joints is None else profile.stop().values,
            longest_validity_ns=valid_ns,
        )
    if kind == "unix":
        return SocketBridge.unix(Path(where), states=states, proprio_size=size, targets=targets)
    if kind == "zmq":
        return ZeroMqBridge(where, states=states, proprio_size=size, targets=targets)
    host, _, port = where.rpartition(":")
    return SocketBridge.tcp(host or "127.0.0.1", int(port), states=states, proprio_size=size, targets=targets)


def parsed(io: str) -> tuple[str, str]:
    """Return the kind of a bridge and where it is; UsageError if it is none of `IO_FORMS`."""
    kind, _, where = io.partition(":")
    complete = {"bridge": True, "unix": where != "", "tcp": where.rpartition(":")[2].isdecimal(), "zmq": where != ""}
    if not complete.get(kind):
        raise UsageError(f"--io {io}", f"use sim, {IO_FORMS}; or module:factory, a robot of your own")
    return kind, where
