from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.spec import Quantity
from policyloop.sim.randomization import NOMINAL, Randomization

Fixed = Callable[..., Randomization]


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


@pytest.fixture(scope="session")
def aware(empty: RobotProfile) -> RobotProfile:
    """A rover whose policy is told its last action and how old its observation is."""
    told = (Quantity(name="last_action", unit="1", size=2), Quantity(name="delay", unit="s", scale=0.1))
    return msgspec.structs.replace(empty, proprio=(told[0], *empty.proprio, told[1]))


@pytest.fixture(scope="session")
def fixed() -> Fixed:
    """Return a randomization that is the nominal world but for what is given."""

    def make(**quantities: float) -> Randomization:
        worlds = {**msgspec.structs.asdict(NOMINAL), **quantities}
        return Randomization(**{name: (value, value) for name, value in worlds.items()})

    return make
