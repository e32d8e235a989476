from __future__ import annotations

import math

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError
from policyloop.learn.speed import measure_passes_per_s


@pytest.mark.parametrize("network", ["spatial", "original", "mlp"])
def test_every_network_can_be_tried(network: str, request: pytest.FixtureRequest) -> None:
    profile = "lite3" if network == "mlp" else "mini"
    found = measure_passes_per_s(request.getfixturevalue(profile), network, "cpu", seconds=0.01)
    assert math.isfinite(found)
    assert found > 0


def test_a_device_that_is_not_there_is_said(mini: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="device 'moon'"):
        measure_passes_per_s(mini, device_name="moon")
