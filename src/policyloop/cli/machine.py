"""What `policyloop run` drives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from policyloop.core.clock import Clock
from policyloop.core.profile import RobotProfile
from policyloop.plugins import load_factory, make
from policyloop.robot.io import CommandSink, SensorSource

__all__ = ["Machine", "check_io", "open_machine"]


class Machine(SensorSource, CommandSink, Protocol):
    """A robot that can be let go."""

    def close(self) -> None:
        """Let it go."""


def check_io(io: str) -> None:
    """Find out what `--io` means before anything is opened.

    Raises:
        UsageError: It means nothing.
        ConfigError: It names a robot of the user's own, and there is none of that name.
    """
    if _is_factory(io):
        load_factory(io, "--io")
    elif io != "sim":
        from policyloop.robot.bridge.opening import parsed

        parsed(io)


def open_machine(
    io: str, profile: RobotProfile, name: str, rng: np.random.Generator, clock: Clock
) -> tuple[Machine, Callable[[int], bool] | None]:
    """Open the robot that `--io` means, and what waits for its next input if its controller sets the pace.

    A robot of the user's own is what the factory makes of the profile.
    A simulator is imported only for a simulated one.
    """
    if io == "sim":
        from policyloop.sim.machine import simulated_machine

        return simulated_machine(profile, rng, clock), None
    if _is_factory(io):
        return make(io, "--io", profile), None
    from policyloop.robot.bridge.opening import open_bridge
    from policyloop.robot.bridge.shared_memory import SharedMemoryBridge

    bridge = open_bridge(io, profile, name)
    return bridge, None if isinstance(bridge, SharedMemoryBridge) else bridge.wait


def _is_factory(io: str) -> bool:
    """Whether `--io` is `module:factory` and no bridge."""
    from policyloop.robot.bridge.opening import BRIDGES

    module, _, name = io.partition(":")
    return module not in BRIDGES and name.isidentifier() and all(map(str.isidentifier, module.split(".")))
