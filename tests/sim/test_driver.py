from __future__ import annotations

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command, Observation
from policyloop.errors import ConfigError
from policyloop.evaluate import drive_episode
from policyloop.sim.driver import RandomDriver, ScriptedDriver


def observe(profile: RobotProfile, depth_mm: int | np.ndarray, *, linear: float = 0.0) -> Observation:
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in profile.observation_specs.items()}
    arrays["depth"][:] = depth_mm
    arrays["proprio"][0] = linear
    return Observation(arrays, 0)


@pytest.mark.parametrize("arena_seed", range(60_000, 60_005))
def test_the_scripted_driver_gets_far_and_touches_nothing(mini: RobotProfile, arena_seed: int) -> None:
    episode = drive_episode(mini, "scripted", arena_seed, "limits")
    assert not episode.collided
    assert episode.steps == 300
    assert episode.score > 250
    assert episode.distance_m > 10


def test_with_nothing_in_sight_it_drives_straight_at_full_speed(mini: RobotProfile) -> None:
    action = ScriptedDriver(mini).propose(observe(mini, 10_000))
    assert action.values == (0.6, 0.0)
    assert action.source == "scripted"


@pytest.mark.parametrize(("blocked", "sign"), [("left", -1), ("right", 1)])
def test_in_the_open_it_steers_away_from_the_side_that_is_blocked(mini: RobotProfile, blocked: str, sign: int) -> None:
    driver = ScriptedDriver(mini)
    for _ in range(25):
        driver.propose(observe(mini, 10_000, linear=0.6))
    depth = np.full((36, 64), 10_000, np.uint16)
    depth[:, slice(0, 36) if blocked == "left" else slice(28, 64)] = 1200
    linear, angular = driver.propose(observe(mini, depth, linear=0.6)).values
    assert linear > 0
    assert angular * sign > 0  # positive turns left


def test_before_a_wall_it_turns_on_the_spot_to_the_left(mini: RobotProfile) -> None:
    linear, angular = ScriptedDriver(mini).propose(observe(mini, 400)).values
    assert linear == 0
    assert angular > 0.4


def test_it_remembers_what_has_left_the_picture(mini: RobotProfile) -> None:
    def after_seeing(depth_mm: int) -> tuple[float, ...]:
        driver = ScriptedDriver(mini)
        for _ in range(12):
            driver.propose(observe(mini, depth_mm))
            driver.executed(Command((0.0, 0.0)))
        return driver.propose(observe(mini, 10_000)).values

    assert after_seeing(10_000) == (0.6, 0.0)
    assert after_seeing(500) != (0.6, 0.0)


def test_a_new_episode_begins_without_memories(mini: RobotProfile) -> None:
    driver, fresh = ScriptedDriver(mini), ScriptedDriver(mini)
    for _ in range(12):
        driver.propose(observe(mini, 500, linear=0.3))
    driver.reset()
    for depth_mm in (10_000, 900, 10_000):
        assert driver.propose(observe(mini, depth_mm)) == fresh.propose(observe(mini, depth_mm))


def test_it_proposes_only_what_the_limits_allow(mini: RobotProfile) -> None:
    rng = np.random.default_rng(0)
    driver = ScriptedDriver(mini)
    for _ in range(50):
        depth = rng.integers(0, 4000, (1, 64), np.uint16).repeat(36, axis=0)
        linear, angular = driver.propose(observe(mini, depth, linear=0.3)).values
        assert 0 <= linear <= 0.6
        assert abs(angular) <= 1.2


def test_it_drives_only_what_it_knows_how_to_drive(mini: RobotProfile) -> None:
    with pytest.raises(ConfigError):
        ScriptedDriver(msgspec.structs.replace(mini, camera=None))
    with pytest.raises(ConfigError):
        ScriptedDriver(msgspec.structs.replace(mini, action=mini.action[:1]))


def test_the_random_driver_holds_each_action_for_half_a_second(mini: RobotProfile) -> None:
    driver = RandomDriver(mini, np.random.default_rng(0))
    actions = [driver.propose(observe(mini, 1000)).values for _ in range(30)]
    assert [len(set(actions[start : start + 5])) for start in range(0, 30, 5)] == [1] * 6
    assert len(set(actions)) == 6


def test_the_random_driver_covers_the_action_range_and_does_not_leave_it(mini: RobotProfile) -> None:
    driver = RandomDriver(mini, np.random.default_rng(0))
    actions = np.array([driver.propose(observe(mini, 1000)).values for _ in range(2000)])
    assert driver.propose(observe(mini, 1000)).source == "random"
    np.testing.assert_allclose(actions.min(axis=0), [-0.1, -1.2], atol=0.03)
    np.testing.assert_allclose(actions.max(axis=0), [0.6, 1.2], atol=0.03)
    assert (actions >= [-0.1, -1.2]).all()
    assert (actions <= [0.6, 1.2]).all()


def test_the_random_driver_draws_anew_after_a_reset(mini: RobotProfile) -> None:
    driver = RandomDriver(mini, np.random.default_rng(0))
    before = driver.propose(observe(mini, 1000))
    driver.reset()
    assert driver.propose(observe(mini, 1000)) != before
