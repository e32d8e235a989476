from __future__ import annotations

import msgspec
import pytest

from policyloop.core.profile import RobotProfile


@pytest.fixture(scope="session")
def quiet(mini: RobotProfile) -> RobotProfile:
    """rover-mini with a perfect camera."""
    simulation = msgspec.structs.replace(mini.simulation, sensor_noise=False)
    return msgspec.structs.replace(mini, simulation=simulation)


@pytest.fixture(scope="session")
def empty(mini: RobotProfile) -> RobotProfile:
    """rover-mini with a perfect camera between four bare walls, 4.9 m from the middle."""
    simulation = msgspec.structs.replace(mini.simulation, sensor_noise=False, obstacles=0)
    return msgspec.structs.replace(mini, simulation=simulation)
