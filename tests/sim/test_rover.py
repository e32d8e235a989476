from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.spec import Quantity
from policyloop.errors import ConfigError
from policyloop.sim.rover import Rover, arena

LINEAR, ANGULAR, ROLL, PITCH, ACCELERATION = range(5)


def placed(profile: RobotProfile, seed: int) -> Rover:
    rover = Rover(profile)
    rover.reset(arena(seed, profile.simulation), np.random.default_rng(seed))
    return rover


def fingerprint(rover: Rover, ticks: int = 20) -> str:
    """Drive a fixed weave and hash everything seen."""
    digest = hashlib.sha256()
    for tick in range(ticks):
        rover.drive(0.3 + 0.02 * tick, math.sin(tick))
        for array in rover.observe().values():
            digest.update(array.tobytes())
    return digest.hexdigest()


def sense(rover: Rover, index: int) -> float:
    return float(rover.observe()["proprio"][index])


def test_two_rovers_with_equal_seeds_and_commands_see_equal_bytes(mini: RobotProfile) -> None:
    first, second = fingerprint(placed(mini, 4)), fingerprint(placed(mini, 4))
    assert first == second != fingerprint(placed(mini, 5))


def test_a_used_rover_sees_what_a_fresh_one_would(mini: RobotProfile) -> None:
    used = placed(mini, 4)
    fingerprint(used, 30)
    used.reset(arena(4, mini.simulation), np.random.default_rng(4))
    assert fingerprint(used) == fingerprint(placed(mini, 4))
    used.reset(arena(5, mini.simulation), np.random.default_rng(5))
    assert fingerprint(used) == fingerprint(placed(mini, 5))


def test_an_observation_has_the_profiles_arrays(mini: RobotProfile) -> None:
    observation = placed(mini, 0).observe()
    assert list(observation) == list(mini.observation_specs)
    for name, spec in mini.observation_specs.items():
        spec.validate(observation[name])


def test_a_rover_at_rest_reads_rest(empty: RobotProfile) -> None:
    proprio = placed(empty, 0).observe()["proprio"]
    np.testing.assert_allclose(proprio[[LINEAR, ANGULAR, ROLL, PITCH]], 0, atol=0.01)
    assert proprio[ACCELERATION] == pytest.approx(9.81, abs=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_driving_straight_reaches_full_speed_within_a_second_without_turning(empty: RobotProfile, seed: int) -> None:
    rover = placed(empty, seed)
    x, y, yaw = rover.pose
    speeds = []
    for tick in range(12):
        rover.drive(0.6, 0.0)
        proprio = rover.observe()["proprio"]
        speeds.append(float(proprio[LINEAR]))
        if tick > 0:
            assert abs(proprio[ANGULAR]) < 0.01
    assert max(speeds[:10]) == pytest.approx(0.6, abs=0.01)
    # Casters that drag would eat more than a few percent of it.
    np.testing.assert_allclose(speeds[6:], 0.6, rtol=0.03)
    new_x, new_y, new_yaw = rover.pose
    ahead, aside = _in_frame(new_x - x, new_y - y, yaw)
    assert abs(aside) < 0.01
    assert abs(math.remainder(new_yaw - yaw, math.tau)) < 0.01
    assert ahead == pytest.approx(0.1 * math.fsum(speeds), rel=0.1)


def _in_frame(dx: float, dy: float, yaw: float) -> tuple[float, float]:
    return math.cos(yaw) * dx + math.sin(yaw) * dy, math.cos(yaw) * dy - math.sin(yaw) * dx


def test_speed_grows_no_faster_than_the_acceleration_limit(empty: RobotProfile) -> None:
    rover = placed(empty, 1)
    for tick in range(1, 6):
        rover.drive(0.6, 0.0)
        assert sense(rover, LINEAR) == pytest.approx(0.1 * tick, abs=0.025)  # 1 m/s^2 at 10 Hz


def test_speed_falls_no_faster_than_the_deceleration_limit(empty: RobotProfile) -> None:
    rover = placed(empty, 1)
    for _ in range(10):
        rover.drive(0.6, 0.0)
    for expected in (0.45, 0.30, 0.15, 0.0, 0.0):  # 1.5 m/s^2 at 10 Hz
        rover.drive(0.0, 0.0)
        assert sense(rover, LINEAR) == pytest.approx(expected, abs=0.03)


def test_the_profiles_limits_decide_the_acceleration(empty: RobotProfile) -> None:
    limits = msgspec.structs.replace(empty.limits, max_acceleration_mps2=0.4)
    rover = placed(msgspec.structs.replace(empty, limits=limits), 1)
    for _ in range(5):
        rover.drive(0.6, 0.0)
    assert sense(rover, LINEAR) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("turn", [1.2, -1.2])
def test_a_positive_angular_command_turns_left_and_a_negative_one_right(empty: RobotProfile, turn: float) -> None:
    rover = placed(empty, 2)
    x, y, yaw = rover.pose
    rates = []
    for _ in range(15):
        rover.drive(0.0, turn)
        rates.append(sense(rover, ANGULAR))
    new_x, new_y, new_yaw = rover.pose
    assert rates[0] == pytest.approx(math.copysign(0.4, turn), abs=0.1)  # 4 rad/s^2 at 10 Hz
    assert np.mean(rates[5:]) == pytest.approx(turn, rel=0.15)  # tyres slip a little
    # 0.4 + 0.8 + 13 * 1.2 rad/s, each for 0.1 s
    assert math.remainder(new_yaw - yaw - math.copysign(1.68, turn), math.tau) == pytest.approx(0, abs=0.2)
    assert math.dist((x, y), (new_x, new_y)) < 0.05


def test_it_drives_backwards(empty: RobotProfile) -> None:
    rover = placed(empty, 2)
    x, y, yaw = rover.pose
    for _ in range(10):
        rover.drive(-0.1, 0.0)
    assert sense(rover, LINEAR) == pytest.approx(-0.1, abs=0.01)
    new_x, new_y, _ = rover.pose
    assert _in_frame(new_x - x, new_y - y, yaw)[0] == pytest.approx(-0.1, abs=0.02)


def test_driving_freely_is_no_contact_and_driving_into_a_wall_is(empty: RobotProfile) -> None:
    rover = placed(empty, 1)
    assert not rover.contact
    for tick in range(400):
        rover.drive(0.6, 0.0)
        x, y, _ = rover.pose
        if rover.contact:
            break
        # the front reaches 0.18 m ahead of the axle, a corner 0.25 m
        assert max(abs(x), abs(y)) < 4.9 - 0.15, f"went through the wall at tick {tick}"
    assert rover.contact
    assert 4.9 - 0.3 < max(abs(x), abs(y)) < 4.9 - 0.15


def test_contact_with_an_obstacle_is_noticed_and_ends_when_it_backs_away(quiet: RobotProfile) -> None:
    rover = placed(quiet, 7)
    for _ in range(400):
        rover.drive(0.6, 0.0)
        if rover.contact:
            break
    assert rover.contact
    for _ in range(20):
        rover.drive(-0.1, 0.0)
    assert not rover.contact


def test_the_control_rate_is_the_profiles(empty: RobotProfile) -> None:
    rates = msgspec.structs.replace(empty.rates, control_hz=50.0)
    rover = placed(msgspec.structs.replace(empty, rates=rates), 1)
    x, y, _ = rover.pose
    for _ in range(50):
        rover.drive(0.5, 0.0)
    # one second: half of it speeding up at 1 m/s^2 (0.125 m), half at 0.5 m/s (0.25 m)
    assert math.dist((x, y), rover.pose[:2]) == pytest.approx(0.375, abs=0.02)


def test_a_profile_that_senses_what_the_rover_does_not_is_refused_by_name(mini: RobotProfile) -> None:
    odd = msgspec.structs.replace(mini, proprio=(*mini.proprio, Quantity(name="battery", unit="1")))
    with pytest.raises(ConfigError, match="battery"):
        Rover(odd)


def test_a_profile_that_is_no_rovers_is_refused(mini: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="camera"):
        Rover(msgspec.structs.replace(mini, camera=None))
    with pytest.raises(ConfigError, match="linear"):
        Rover(msgspec.structs.replace(mini, action=mini.action[:1]))
