"""The Lite3 as a Gymnasium environment."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policyloop.core.profile import EpisodeRules, RobotProfile
from policyloop.core.step import Observation
from policyloop.runtime.policy import Policy
from policyloop.sim.lite3_env import Lite3Env, make_lite3, register

AHEAD = {"wanted": (0.5, 0.0, 0.0)}
HOLDING_NM = np.array([1.80, -0.52, -3.30, -1.86, -0.42, -3.22, 2.40, -0.57, -4.02, -2.42, -0.46, -3.94])
HOLDING = (HOLDING_NM / 30 / ([0.125, 0.25, 0.25] * 4)).astype(np.float32)
"""Outputs that carry the robot."""
DOWN = np.array([0, -7.4, 5.6] * 4, np.float32)


@pytest.mark.filterwarnings("ignore::UserWarning")  # it recommends bounds; physics have none
def test_it_keeps_gymnasiums_rules(lite3: RobotProfile) -> None:
    check_env(Lite3Env(lite3), skip_render_check=True)


def test_it_is_registered_by_name() -> None:
    register()  # again, which is fine
    env = gymnasium.make("PolicyLoop/Lite3-v0")
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    assert seen["proprio"].shape == (45,)
    assert env.action_space.shape == (12,)
    env.close()


def test_calibration_can_make_one() -> None:
    assert isinstance(make_lite3(), Lite3Env)


def answer(policy: Policy, seen: dict[str, Any]) -> np.ndarray:
    behaviour = policy.act(Observation(seen, 0)).behaviour
    assert behaviour is not None
    return np.array(behaviour.sample, np.float32)


def test_the_vendors_policy_is_paid_for_walking_as_asked(lite3: RobotProfile, lite3_policy: Policy) -> None:
    env = Lite3Env(lite3, randomise=False)
    seen, info = env.reset(seed=1, options=AHEAD)
    assert info["wanted"] == AHEAD["wanted"]
    assert seen["proprio"][6:9].tolist() == [0.5, 0, 0]
    rewards, speeds = [], []
    for _ in range(833):
        seen, reward, terminated, truncated, info = env.step(answer(lite3_policy, seen))
        assert not terminated and not truncated
        assert 0 < reward <= 1
        rewards.append(reward)
        speeds.append(info["motion"].forward_mps)
    assert np.mean(rewards) > 0.7
    assert 0.35 < np.mean(speeds[167:]) < 0.60


def test_the_reward_is_a_bell_of_the_error_of_the_velocity(lite3: RobotProfile) -> None:
    env = Lite3Env(lite3, randomise=False)
    env.reset(seed=1, options={"wanted": (0.3, -0.2, 0.4)})
    _, reward, _, _, info = env.step(HOLDING)
    motion = info["motion"]
    error = (motion.forward_mps - 0.3) ** 2 + (motion.left_mps + 0.2) ** 2 + (motion.yaw_radps - 0.4) ** 2
    assert reward == pytest.approx(math.exp(-error / 0.25))


def test_a_fall_terminates(lite3: RobotProfile) -> None:
    env = Lite3Env(lite3, randomise=False)
    env.reset(seed=1, options=AHEAD)
    ticks, terminated = 0, False
    while not terminated and ticks < 200:
        _, _, terminated, truncated, info = env.step(DOWN)
        assert not truncated
        ticks += 1
    assert terminated
    assert ticks > 5
    assert info["motion"].height_m < 0.2


def test_time_is_up_at_the_end_of_an_episode_and_that_is_no_fall(lite3: RobotProfile) -> None:
    env = Lite3Env(msgspec.structs.replace(lite3, episode=EpisodeRules(max_steps=20)), randomise=False)
    for _ in range(2):
        env.reset(seed=1, options=AHEAD)
        ends = [env.step(HOLDING)[2:4] for _ in range(20)]
        assert ends == [(False, False)] * 19 + [(False, True)]


def test_the_last_action_is_in_the_observation_and_a_start_has_none(lite3: RobotProfile) -> None:
    env = Lite3Env(lite3, randomise=False)
    seen, _ = env.reset(seed=1)
    assert not seen["proprio"][33:].any()
    action = np.linspace(-0.5, 0.5, 12, dtype=np.float32)
    seen = env.step(action)[0]
    np.testing.assert_array_equal(seen["proprio"][33:], action)
    seen = env.step(np.full(12, 1e6, np.float32))[0]
    np.testing.assert_array_equal(seen["proprio"][33:], np.full(12, 100.0))  # as the vendor's training clips
    seen, _ = env.reset(seed=1)
    assert not seen["proprio"][33:].any()


def test_targets_are_kept_within_the_joints_ranges(lite3: RobotProfile) -> None:
    env = Lite3Env(lite3, randomise=False)
    env.reset(seed=1)
    env.step(np.full(12, 100.0, np.float32))
    np.testing.assert_allclose(env._body._data.ctrl, [entry.high for entry in lite3.action], atol=1e-6)
    env.step(np.full(12, -100.0, np.float32))
    np.testing.assert_allclose(env._body._data.ctrl, [entry.low for entry in lite3.action], atol=1e-6)


def machines(env: Lite3Env, episodes: int) -> list[tuple[float, float, int]]:
    """Return friction, mass and latency in steps of the physics of each episode."""
    found = []
    for episode in range(episodes):
        env.reset(seed=0 if episode == 0 else None)
        model = env._body._model
        found.append((float(model.geom_friction[0, 0]), float(model.body_mass.sum()), env._body._delay))
    return found


def test_every_episode_is_another_machine_if_it_is_randomised(lite3: RobotProfile) -> None:
    env = Lite3Env(lite3, latency_s=0.02)
    found = machines(env, 20)
    frictions, masses, delays = (set(values) for values in zip(*found, strict=True))
    assert len(frictions) == len(masses) == 20
    assert 0.3 <= min(frictions) < 0.5 < 1.0 < max(frictions) <= 1.2
    assert 11.93 < min(masses) < 12.7 < 14.1 < max(masses) < 14.94
    assert min(delays) <= 2 and 8 <= max(delays) <= 10
    assert machines(Lite3Env(lite3, latency_s=0.02), 20) == found  # equal seeds, equal machines


def test_without_randomisation_it_is_always_the_same_machine_that_nobody_pushes(
    lite3: RobotProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Lite3Env(lite3, randomise=False)
    assert len(set(machines(env, 3))) == 1
    monkeypatch.setattr(env._body, "push", lambda *values: pytest.fail("pushed"))
    for _ in range(260):
        env.step(HOLDING)


def test_a_randomised_robot_is_pushed_every_three_seconds(lite3: RobotProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    env = Lite3Env(lite3)
    env.reset(seed=0)
    pushes: list[tuple[int, float]] = []
    monkeypatch.setattr(env._body, "push", lambda speed, direction: pushes.append((env._steps, speed)))
    monkeypatch.setattr(env._body, "drive", lambda target: None)
    for _ in range(501):
        env.step(HOLDING)
    assert pushes == [(250, 0.4), (500, 0.4)]


def test_something_else_is_wanted_in_every_episode(lite3: RobotProfile) -> None:
    env = Lite3Env(lite3, randomise=False)
    wanted = [env.reset(seed=3 if n == 0 else None)[1]["wanted"] for n in range(50)]
    forward, left, turning = (np.array(values) for values in zip(*wanted, strict=True))
    for values, most in ((forward, 0.8), (left, 0.4), (turning, 0.6)):
        assert len(set(values.tolist())) == 50
        assert 0.8 * most < np.abs(values).max() <= most


def test_equal_seeds_and_actions_are_equal_episodes(lite3: RobotProfile) -> None:
    ends = []
    for _ in range(2):
        env = Lite3Env(lite3)
        env.reset(seed=11)
        ends.append([env.step(HOLDING)[0]["proprio"] for _ in range(30)][-1])
    np.testing.assert_array_equal(*ends)
