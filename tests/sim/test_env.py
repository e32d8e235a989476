from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation, Stamps, Step
from policyloop.robot.recorder import Recorder
from policyloop.sim.env import RoverEnv, register
from policyloop.sim.randomization import Randomization

Fixed = Callable[..., Randomization]
IDS = {"PolicyLoop/Rover-v0": "rover", "PolicyLoop/RoverMini-v0": "rover-mini"}
STAND = np.array([-0.25 / 0.35, 0.0], np.float32)  # action 0 is the middle of the range: 0.25 m/s
FULL_SPEED = np.array([1.0, 0.0], np.float32)


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    if not IDS.keys() <= gymnasium.registry.keys():
        register()


@pytest.fixture
def env() -> RoverEnv:
    return RoverEnv("rover-mini")


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_makes_it_and_its_checker_finds_no_fault(name: str) -> None:
    env = gymnasium.make(name).unwrapped
    assert isinstance(env, RoverEnv)
    assert env.profile.name == IDS[name]
    with warnings.catch_warnings():
        # Velocities and distances have no bound that is known beforehand.
        warnings.filterwarnings("ignore", ".*Box observation space m(in|ax)imum value is -?infinity.*", UserWarning)
        check_env(env)


def test_a_fresh_program_makes_it_by_module_and_name() -> None:
    program = 'import gymnasium; print(gymnasium.make("policyloop.sim.env:PolicyLoop/RoverMini-v0").spec.id)'
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "PolicyLoop/RoverMini-v0"


def test_an_episode_is_truncated_after_300_steps(env: RoverEnv) -> None:
    env.reset(seed=1)
    ends = [env.step(STAND)[2:4] for _ in range(300)]
    assert ends == [(False, False)] * 299 + [(False, True)]


def test_the_profile_decides_when_an_episode_is_truncated(mini: RobotProfile) -> None:
    episode = msgspec.structs.replace(mini.episode, max_steps=4)
    env = RoverEnv(msgspec.structs.replace(mini, episode=episode))
    env.reset(seed=1)
    assert [env.step(STAND)[3] for _ in range(4)] == [False, False, False, True]
    env.reset()
    assert [env.step(STAND)[3] for _ in range(4)] == [False, False, False, True]


def test_standing_still_is_standing_still_and_zero_is_the_middle_of_the_range(env: RoverEnv) -> None:
    env.reset(seed=1)
    for _ in range(8):
        observation, *_ = env.step(STAND)
    assert abs(observation["proprio"][0]) < 0.01
    for _ in range(8):
        observation, *_ = env.step(np.zeros(2, np.float32))
    assert observation["proprio"][0] == pytest.approx(0.25, abs=0.02)


def test_actions_beyond_one_are_as_one(env: RoverEnv) -> None:
    seen = []
    for action in (FULL_SPEED, 50 * FULL_SPEED):
        env.reset(seed=1)
        seen.append([float(env.step(action)[0]["proprio"][0]) for _ in range(8)])
    assert seen[0] == seen[1]
    assert seen[0][-1] == pytest.approx(0.6, abs=0.02)


def test_equal_seeds_and_actions_give_equal_episodes() -> None:
    runs = []
    for _ in range(2):
        env = RoverEnv("rover-mini")
        env.action_space.seed(3)
        first, info = env.reset(seed=3)
        steps = [env.step(env.action_space.sample()) for _ in range(15)]
        runs.append((info["arena"], first, steps))
    assert runs[0][0] == runs[1][0]
    for one, other in zip(*[[run[1], *(step[0] for step in run[2])] for run in runs], strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert [step[1:4] for step in runs[0][2]] == [step[1:4] for step in runs[1][2]]


def test_arenas_come_from_the_given_range_or_the_options(mini: RobotProfile) -> None:
    env = RoverEnv(mini, arenas=range(500, 503))
    drawn = {env.reset(seed=seed)[1]["arena"] for seed in range(20)}
    assert drawn == {500, 501, 502}
    assert env.reset(options={"arena": 42})[1]["arena"] == 42


def test_the_reward_is_the_profiles_and_reads_the_new_observation(env: RoverEnv) -> None:
    env.reset(seed=2)
    rng = np.random.default_rng(0)
    prices = set()
    for _ in range(60):
        observation, reward, terminated, truncated, info = env.step(rng.uniform([0, -1], 1).astype(np.float32))
        linear, angular, distance = observation["proprio"][[0, 1, 5]]
        price = 5.0 if distance < 0.3 else 1.0 if distance < 0.5 else 0.0
        prices.add(price)
        assert reward == pytest.approx(2 * linear - 0.5 * abs(angular) - price - 0.01, abs=1e-6)
        assert reward == pytest.approx(sum(info["reward_terms"].values()))
        if terminated or truncated:
            env.reset()
    assert len(prices) > 1


def test_randomised_episodes_repeat_with_their_seed_and_differ_from_the_nominal_ones(mini: RobotProfile) -> None:
    def life(randomization: Randomization | None, seed: int) -> bytes:
        env = RoverEnv(mini, randomization=randomization)
        first, _ = env.reset(seed=seed)
        seen = [first, *(env.step(FULL_SPEED)[0] for _ in range(5)), env.reset()[0]]
        return b"".join(array.tobytes() for arrays in seen for array in arrays.values())

    ranges = Randomization()
    assert life(ranges, 1) == life(ranges, 1) not in (life(ranges, 2), life(None, 1))


def test_a_policy_is_told_its_last_action_and_the_age_of_what_it_sees(aware: RobotProfile, fixed: Fixed) -> None:
    env = RoverEnv(aware, randomization=fixed(observation_latency_ms=70))
    first, _ = env.reset(seed=1)
    np.testing.assert_allclose(first["proprio"][[0, 1, -1]], [0, 0, 0.07], atol=1e-6)
    second, *_ = env.step(np.array([0.5, -0.25], np.float32))
    np.testing.assert_allclose(second["proprio"][[0, 1, -1]], [0.5, -0.25, 0.07], atol=1e-6)
    assert env.observation_space.contains(second)
    again, _ = env.reset()
    np.testing.assert_array_equal(again["proprio"][:2], 0)


def test_a_collision_terminates(env: RoverEnv) -> None:
    env.reset(seed=1)
    for _ in range(250):
        observation, _, terminated, truncated, _ = env.step(FULL_SPEED)
        if terminated:
            break
    assert terminated
    assert not truncated
    assert observation["proprio"][5] < 0.3


def test_a_step_in_the_env_earns_what_the_same_step_earns_a_recorded_robot(mini: RobotProfile) -> None:
    _compare_with_recorder(mini)


def test_a_collision_costs_the_same_in_the_env_and_on_a_recorded_robot(mini: RobotProfile) -> None:
    _compare_with_recorder(msgspec.structs.replace(mini, reward={**mini.reward, "collision": -80.0}))


def _compare_with_recorder(profile: RobotProfile) -> None:
    """Drive into something, and let a recorder judge the same observations."""
    env = RoverEnv(profile)
    seen, _ = env.reset(seed=1)
    steps: list[Step] = []
    recorder = Recorder(profile, "r0", "b0", steps.append)
    rewards = []
    for tick in range(250):
        recorder.act(
            Observation(seen, tick), Action((0.6, 0.0), "random"), Command((0.6, 0.0)), Stamps(tick, tick, tick)
        )
        seen, reward, terminated, *_ = env.step(FULL_SPEED)
        rewards.append(reward)
        recorder.observe(Observation(seen, tick + 1, contact=terminated))
        if terminated:
            break
    assert [step.record.terminated for step in steps] == [False] * (len(steps) - 1) + [True]
    assert rewards == [step.record.reward for step in steps]


def test_rendering_gives_the_cameras_picture(mini: RobotProfile) -> None:
    env = RoverEnv(mini, render_mode="rgb_array")
    first, _ = env.reset(seed=1)
    np.testing.assert_array_equal(env.render(), first["rgb"])
    second, *_ = env.step(FULL_SPEED)
    np.testing.assert_array_equal(env.render(), second["rgb"])
    assert not np.array_equal(first["rgb"], second["rgb"])


def test_spaces_follow_the_profiles_specs(env: RoverEnv, mini: RobotProfile) -> None:
    assert isinstance(env.observation_space, gymnasium.spaces.Dict)
    assert {name: (space.shape, space.dtype) for name, space in env.observation_space.items()} == {
        name: (spec.shape, np.dtype(spec.dtype)) for name, spec in mini.observation_specs.items()
    }
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
