"""Advantages on paper, against another library, and trace by trace."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from policyloop.core.profile import RobotProfile
from policyloop.learn.distribution import gaussian_log_prob
from policyloop.learn.networks import SCAN_COLUMNS, make_network
from policyloop.learn.rollout import Rollout, Trace, vtrace

REWARD = np.array([1.0, 2.0, 3.0], np.float32)
VALUE = np.array([0.5, 0.6, 0.7], np.float32)


def generalized_advantages(
    reward: np.ndarray, value: np.ndarray, last_value: float, *, gamma: float, lam: float
) -> np.ndarray:
    """Return what V-trace gives for steps that the present policy drew."""
    return vtrace(reward, value, last_value, np.ones_like(reward), gamma=gamma, lam=lam)[0]


def test_advantages_of_a_terminated_trace_by_hand() -> None:
    # deltas 1 + .9*.6 - .5 = 1.04, 2 + .9*.7 - .6 = 2.03, 3 + 0 - .7 = 2.3; each carries .72 of the next
    advantages = generalized_advantages(REWARD, VALUE, 0.0, gamma=0.9, lam=0.8)
    assert advantages.tolist() == pytest.approx([3.69392, 3.686, 2.3], rel=1e-6)


def test_advantages_of_a_trace_that_goes_on_by_hand() -> None:
    # the last delta becomes 3 + .9*.8 - .7 = 3.02
    advantages = generalized_advantages(REWARD, VALUE, 0.8, gamma=0.9, lam=0.8)
    assert advantages.tolist() == pytest.approx([4.067168, 4.2044, 3.02], rel=1e-6)


def test_lambda_one_gives_the_discounted_return_less_the_value() -> None:
    # returns 1 + .9*2 + .81*3 + .729*.8 = 5.8132, 2 + .9*3 + .81*.8 = 5.348, 3 + .9*.8 = 3.72
    advantages = generalized_advantages(REWARD, VALUE, 0.8, gamma=0.9, lam=1.0)
    assert advantages.tolist() == pytest.approx([5.8132 - 0.5, 5.348 - 0.6, 3.72 - 0.7], rel=1e-6)


def test_lambda_zero_gives_the_one_step_temporal_difference() -> None:
    advantages = generalized_advantages(REWARD, VALUE, 0.8, gamma=0.9, lam=0.0)
    assert advantages.tolist() == pytest.approx([1.04, 2.03, 3.02], rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_advantages_equal_those_of_stable_baselines3(seed: int) -> None:
    """One trace per episode here; there one buffer with flags, and truncation as a bonus in the reward."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffers = pytest.importorskip(
            "stable_baselines3.common.buffers", reason="stable_baselines3 is missing: advantages are NOT compared"
        )
        spaces = pytest.importorskip("gymnasium.spaces")
    rng = np.random.default_rng(seed)
    steps, robots, gamma, lam = 64, 3, 0.97, 0.9
    reward = rng.normal(size=(steps, robots)).astype(np.float32)
    value = rng.normal(size=(steps + 1, robots)).astype(np.float32)
    final = rng.normal(size=(steps, robots)).astype(np.float32)
    terminated = rng.random((steps, robots)) < 0.05
    truncated = ~terminated & (rng.random((steps, robots)) < 0.05)
    done = terminated | truncated
    assert terminated.any()
    assert truncated.any()
    box = spaces.Box(-1, 1, (1,))
    buffer = buffers.RolloutBuffer(steps, box, box, "cpu", gae_lambda=lam, gamma=gamma, n_envs=robots)
    begins = np.vstack([np.ones((1, robots), bool), done[:-1]])
    zero = np.zeros((robots, 1), np.float32)
    for t in range(steps):
        buffer.add(
            zero,
            zero,
            reward[t] + gamma * final[t] * truncated[t],
            begins[t],
            torch.from_numpy(value[t]),
            torch.zeros(robots),
        )
    buffer.compute_returns_and_advantage(torch.from_numpy(value[steps]), done[-1])
    ours = np.zeros_like(reward)
    for robot in range(robots):
        ends = [*np.flatnonzero(done[:, robot]), steps - 1]
        start = 0
        for end in dict.fromkeys(int(e) for e in ends):
            rows = slice(start, end + 1)
            follows = value[steps, robot] if not done[end, robot] else final[end, robot] * truncated[end, robot]
            ours[rows, robot] = generalized_advantages(
                reward[rows, robot], value[:steps][rows, robot], float(follows), gamma=gamma, lam=lam
            )
            start = end + 1
    assert np.abs(ours - buffer.advantages).max() < 1e-5


def test_vtrace_of_steps_that_another_policy_drew_by_hand() -> None:
    ratio = np.array([0.5, 2.0, 0.25], np.float32)
    advantage, target = vtrace(REWARD, VALUE, 0.0, ratio, gamma=0.9, lam=0.8)
    # errors 1.04, 2.03, 2.3 as above; kept 0.5, 1, 0.25
    # corrections: .25*2.3 = .575; 2.03 + .72*1*.575 = 2.444; .5*1.04 + .72*.5*2.444 = 1.39984
    assert target.tolist() == pytest.approx([0.5 + 1.39984, 0.6 + 2.444, 0.7 + 0.575], rel=1e-6)
    # advantages: 1.04 + .72*2.444, 2.03 + .72*.575, 2.3
    assert advantage.tolist() == pytest.approx([2.79968, 2.444, 2.3], rel=1e-6)


def gae(reward: np.ndarray, value: np.ndarray, last_value: float, gamma: float, lam: float) -> np.ndarray:
    """Return the textbook's sum, term by term in float64."""
    following = np.append(value[1:], last_value)
    errors = reward + gamma * following - value
    return np.array(
        [sum((gamma * lam) ** k * errors[t + k] for k in range(len(errors) - t)) for t in range(len(errors))]
    )


def test_vtrace_at_lag_zero_is_gae_and_its_targets_are_value_plus_advantage() -> None:
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=50).astype(np.float32), rng.normal(size=50).astype(np.float32)
    advantage, target = vtrace(reward, value, 0.3, np.ones(50, np.float32), gamma=0.97, lam=0.95)
    expected = gae(reward.astype(float), value.astype(float), 0.3, 0.97, 0.95)
    assert np.abs(advantage - expected).max() < 2e-6
    assert np.abs(target - (value + advantage)).max() < 1e-6


def test_vtrace_with_lambda_one_on_policy_is_the_return() -> None:
    _, target = vtrace(REWARD, VALUE, 0.8, np.ones(3, np.float32), gamma=0.9, lam=1.0)
    assert target.tolist() == pytest.approx([5.8132, 5.348, 3.72], rel=1e-6)


def test_a_step_that_the_present_policy_would_never_do_teaches_no_value() -> None:
    _, target = vtrace(REWARD, VALUE, 0.8, np.zeros(3, np.float32), gamma=0.9, lam=0.95)
    assert target.tolist() == VALUE.tolist()


def trace(profile: RobotProfile, length: int, seed: int, *, terminated: bool) -> Trace:
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return Trace(
        features={"proprio": numbers(length + 1, profile.proprio_size)},
        sample=numbers(length, 2),
        log_prob=numbers(length),
        mean=numbers(length, 2),
        log_std=numbers(length, 2),
        reward=numbers(length),
        terminated=terminated,
    )


def test_a_rollout_values_each_trace_by_itself(blind: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network("mlp", blind)
    traces = [trace(blind, 4, 1, terminated=True), trace(blind, 6, 2, terminated=False)]
    rollout = Rollout.build(
        traces, network, gamma=0.9, lam=0.8, reward_scale=0.5, device=torch.device("cpu"), correct_lag=False
    )
    assert len(rollout) == 10
    expected = []
    for entry in traces:
        with torch.no_grad():
            value = network.value({"proprio": torch.from_numpy(entry.features["proprio"])}).numpy()
        last = 0.0 if entry.terminated else float(value[-1])
        expected.append(generalized_advantages(0.5 * entry.reward, value[:-1], last, gamma=0.9, lam=0.8))
    assert torch.equal(rollout.ratio, torch.ones(10))
    assert rollout.advantage.numpy() == pytest.approx(np.concatenate(expected), abs=1e-6)
    with torch.no_grad():
        now = network.value(rollout.features)
    assert torch.allclose(rollout.value_target, rollout.advantage + now, atol=1e-6)


def test_the_ratio_is_that_of_the_present_policy_to_the_one_that_drew(blind: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network("mlp", blind)
    entry = trace(blind, 5, 1, terminated=False)
    with torch.no_grad():
        mean = network.mean({"proprio": torch.from_numpy(entry.features["proprio"][:-1])})
        # it was drawn by a policy whose means were 0.3 lower, with the same deviation s: the ratio is known
        shifted = mean - 0.3
        density = gaussian_log_prob(torch.from_numpy(entry.sample), shifted, network.log_std)
    s2 = float(network.log_std.detach()[0].exp()) ** 2
    entry = replace(entry, mean=shifted.numpy(), log_prob=density.numpy())
    rollout = Rollout.build([entry], network, gamma=0.9, lam=0.8, reward_scale=1.0, device=torch.device("cpu"))
    difference = torch.from_numpy(entry.sample) - mean
    # log N(u; m, s) - log N(u; m - d, s) = (d^2 + 2 d (u - m)) / (2 s^2), for each of two actions
    expected = ((0.09 + 0.6 * difference) / (2 * s2)).sum(-1).exp()
    assert torch.allclose(rollout.ratio, expected, rtol=1e-4)
    with torch.no_grad():
        value = network.value({"proprio": torch.from_numpy(entry.features["proprio"])}).numpy()
    by_hand = vtrace(entry.reward, value[:-1], float(value[-1]), expected.numpy(), gamma=0.9, lam=0.8)
    assert rollout.advantage.numpy() == pytest.approx(by_hand[0], rel=1e-4)
    assert rollout.value_target.numpy() == pytest.approx(by_hand[1], rel=1e-4)
    assert torch.allclose(rollout.start_mean, mean)


def test_a_rollout_learns_from_steps_but_not_from_the_states_behind_them(blind: RobotProfile) -> None:
    traces = [trace(blind, 3, 1, terminated=True), trace(blind, 2, 2, terminated=False)]
    rollout = Rollout.build(
        traces, make_network("mlp", blind), gamma=0.9, lam=0.8, reward_scale=1.0, device=torch.device("cpu")
    )
    seen = np.concatenate([entry.features["proprio"][:-1] for entry in traces])
    assert np.array_equal(rollout.features["proprio"].numpy(), seen)
    for name in ("sample", "log_prob", "mean", "log_std"):
        joined = np.concatenate([getattr(entry, name) for entry in traces])
        assert np.array_equal(getattr(rollout, name).numpy(), joined)


def test_rows_picks_the_same_rows_everywhere(blind: RobotProfile) -> None:
    rollout = Rollout.build(
        [trace(blind, 5, 3, terminated=False)],
        make_network("mlp", blind),
        gamma=0.9,
        lam=0.8,
        reward_scale=1.0,
        device=torch.device("cpu"),
    )
    some = rollout.rows(torch.tensor([4, 1]))
    assert len(some) == 2
    for name in ("sample", "log_prob", "mean", "log_std", "start_mean", "start_log_prob", "advantage", "value_target"):
        assert torch.equal(getattr(some, name), getattr(rollout, name)[[4, 1]])
    assert torch.equal(some.features["proprio"], rollout.features["proprio"][[4, 1]])


def test_pictures_stay_bytes_and_may_be_looked_at_a_few_at_a_time(mini: RobotProfile) -> None:
    torch.manual_seed(0)
    network, rng = make_network("spatial", mini), np.random.default_rng(0)
    assert mini.camera is not None
    height, width = mini.camera.height, mini.camera.width
    blind = trace(mini, 5, 1, terminated=False)
    features = {
        "rgb": rng.integers(0, 256, (6, 3, height, width), np.uint8),
        "depth": rng.integers(0, 256, (6, 1, height, width), np.uint8),
        "proprio": blind.features["proprio"],
        "scan": rng.uniform(size=(6, SCAN_COLUMNS)).astype(np.float32),
    }
    seen = replace(blind, features=features)
    settings = {"gamma": 0.9, "lam": 0.8, "reward_scale": 1.0, "device": torch.device("cpu"), "correct_lag": False}
    at_once, in_parts = (Rollout.build([seen], network, **settings, rows_at_once=rows) for rows in (0, 2))
    for name in ("rgb", "depth"):
        assert at_once.features[name].numpy().tobytes() == features[name][:5].tobytes()
    assert torch.allclose(in_parts.start_mean, at_once.start_mean, atol=1e-6)
    assert torch.allclose(in_parts.advantage, at_once.advantage, atol=1e-6)
