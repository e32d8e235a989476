"""What `policyloop run` drives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from policyloop.core.clock import Clock
from policyloop.core.profile import RobotProfile
from policyloop.robot.io import CommandSink, SensorSource

__all__ = ["Machine", "open_machine"]


class Machine(SensorSource, CommandSink, Protocol):
    """A robot that can be let go."""

    def close(self) -> None:
        """Let it go."""


def open_machine(
    io: str, profile: RobotProfile, name: str, rng: np.random.Generator, clock: Clock
) -> tuple[Machine, Callable[[int], bool] | None]:
    """Open the robot that `--io` means, and what waits for its next input if its controller sets the pace.

    A simulator is imported only for a simulated robot.
    """
    if io == "sim":
        from policyloop.sim.machine import simulated_machine

        return simulated_machine(profile, rng, clock), None
    from policyloop.robot.bridge.opening import open_bridge
    from policyloop.robot.bridge.shared_memory import SharedMemoryBridge

    bridge = open_bridge(io, profile, name)
    return bridge, None if isinstance(bridge, SharedMemoryBridge) else bridge.wait
