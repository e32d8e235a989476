from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Action, Observation
from policyloop.errors import IncompatibleError
from policyloop.learn.networks import ActorCritic
from policyloop.runtime.policy import Exploration, Policy

STD = np.exp([-0.5, -1.25])  # the fixture network's


def noise_of(action: Action) -> tuple[float, ...]:
    """Return the standard normal draw behind an action."""
    assert action.behaviour is not None
    noise = (np.array(action.behaviour.sample) - action.behaviour.mean) / STD
    return tuple(noise.round(9).tolist())


@pytest.fixture
def policy(tmp_path: Path, mini: RobotProfile, make_bundle: Callable[..., Bundle]) -> Policy:
    return Policy.load(Store(tmp_path).add(make_bundle(5)), mini)


def test_the_mean_is_that_of_the_trained_network_on_hand_made_features(
    policy: Policy, network: ActorCritic, observation: Observation
) -> None:
    arrays = observation.arrays
    depth_m = arrays["depth"] / 1000
    with np.errstate(divide="ignore"):
        codes = np.where(depth_m > 0, np.clip(np.rint(255 * 0.25 / depth_m), 1, 255), 0)
    proprio = (arrays["proprio"] - [0, 0, 0, 0, 9.81, 2.0]) / [0.6, 1.2, 1, 1, 9.81, 2.0]
    inputs = {
        "rgb": torch.tensor(arrays["rgb"].transpose(2, 0, 1)[None].copy()),
        "depth": torch.tensor(codes[None, None].astype(np.uint8)),
        "proprio": torch.tensor(proprio[None], dtype=torch.float32),
    }
    with torch.no_grad():
        expected = network.mean(inputs)[0].numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(policy.mean(observation), expected, atol=1e-5)


def test_without_exploration_the_action_is_center_plus_half_range_times_tanh_of_the_mean(
    policy: Policy, observation: Observation
) -> None:
    mean = policy.mean(observation).astype(np.float64)
    action = policy.act(observation)
    # linear -0.1..0.6, angular -1.2..1.2
    assert action.values == pytest.approx((0.25 + 0.35 * math.tanh(mean[0]), 1.2 * math.tanh(mean[1])), abs=1e-7)
    assert action.source == "policy"
    assert action.behaviour is not None
    assert action.behaviour.sample == action.behaviour.mean == pytest.approx(mean.tolist())


def test_the_density_at_the_mean_is_the_gaussians_peak(policy: Policy, observation: Observation) -> None:
    behaviour = policy.act(observation).behaviour
    assert behaviour is not None
    # -log(std) - log(2 pi) / 2 for each action
    assert behaviour.log_prob == pytest.approx(0.5 + 1.25 - math.log(2 * math.pi), abs=1e-9)


def test_with_exploration_the_density_is_that_of_the_draw(policy: Policy, observation: Observation) -> None:
    exploration = Exploration(np.random.default_rng(1), 2)
    for _ in range(12):
        action = policy.act(observation, exploration)
        behaviour = action.behaviour
        assert behaviour is not None
        assert behaviour.log_std == (-0.5, -1.25)
        density = 1.0
        for sample, mean, std in zip(behaviour.sample, behaviour.mean, STD, strict=True):
            density *= math.exp(-((sample - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
        assert behaviour.log_prob == pytest.approx(math.log(density), abs=1e-9)
        squashed = (0.25 + 0.35 * math.tanh(behaviour.sample[0]), 1.2 * math.tanh(behaviour.sample[1]))
        assert action.values == pytest.approx(squashed, abs=1e-7)


def test_noise_is_held_for_noise_hold_ticks_and_then_drawn_anew(policy: Policy, observation: Observation) -> None:
    exploration = Exploration(np.random.default_rng(1), 2)
    drawn = [noise_of(policy.act(observation, exploration)) for _ in range(9)]
    twin = np.random.default_rng(1)
    expected = [tuple(twin.standard_normal(2).round(9).tolist()) for _ in range(3)]
    assert drawn == [noise for noise in expected for _ in range(3)]


def test_held_noise_is_added_to_the_mean_of_its_own_tick(
    policy: Policy, observation: Observation, mini: RobotProfile
) -> None:
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in mini.observation_specs.items()}
    exploration = Exploration(np.random.default_rng(1), 2)
    first = policy.act(observation, exploration)
    second = policy.act(Observation(arrays, 0), exploration)
    assert first.behaviour is not None
    assert second.behaviour is not None
    assert noise_of(first) == noise_of(second)
    assert np.abs(np.subtract(first.behaviour.mean, second.behaviour.mean)).max() > 0.01


def test_a_new_episode_gets_new_noise(policy: Policy, observation: Observation) -> None:
    exploration = Exploration(np.random.default_rng(1), 2)
    before = noise_of(policy.act(observation, exploration))
    exploration.reset()
    assert noise_of(policy.act(observation, exploration)) != before


@pytest.mark.parametrize("hold_ticks", [0, 1])
def test_noise_that_is_not_held_changes_at_every_tick(hold_ticks: int) -> None:
    exploration = Exploration(np.random.default_rng(1), 2)
    drawn = {tuple(exploration.draw(hold_ticks).tolist()) for _ in range(10)}
    assert len(drawn) == 10


def test_exploration_has_the_spread_it_claims(policy: Policy, observation: Observation) -> None:
    exploration = Exploration(np.random.default_rng(2), 2)
    draws = np.array([exploration.draw(1) for _ in range(4000)])
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(draws.std(axis=0), 1, atol=0.05)


def test_the_wildest_draw_stays_within_the_action_range(
    tmp_path: Path, mini: RobotProfile, make_bundle: Callable[..., Bundle], observation: Observation
) -> None:
    policy = Policy.load(Store(tmp_path).add(make_bundle(1, log_std=(6.0, 6.0))), mini)
    exploration = Exploration(np.random.default_rng(1), 2)
    extremes = set()
    for _ in range(60):
        for value, quantity in zip(policy.act(observation, exploration).values, mini.action, strict=True):
            assert quantity.low - 1e-6 <= value <= quantity.high + 1e-6
            extremes.add(round(value, 3))
    assert {-0.1, 0.6, -1.2, 1.2} <= extremes


def test_every_action_names_the_policy_that_proposed_it(
    tmp_path: Path, mini: RobotProfile, make_bundle: Callable[..., Bundle], observation: Observation
) -> None:
    path = Store(tmp_path).add(make_bundle(41))
    policy = Policy.load(path, mini)
    behaviour = policy.act(observation).behaviour
    assert behaviour is not None
    assert behaviour.policy_version == policy.version == 41
    assert behaviour.policy_digest == policy.digest == open_bundle(path, mini).digest
    assert behaviour.backend == "onnxruntime"


def test_equal_policies_and_seeds_propose_equal_actions(
    tmp_path: Path, mini: RobotProfile, make_bundle: Callable[..., Bundle], observation: Observation
) -> None:
    path = Store(tmp_path).add(make_bundle(1))
    runs = []
    for _ in range(2):
        policy, exploration = Policy.load(path, mini), Exploration(np.random.default_rng(9), 2)
        runs.append([policy.act(observation, exploration) for _ in range(5)])
        policy.close()
    assert runs[0] == runs[1]


def test_a_policy_of_another_robot_is_refused(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    with pytest.raises(IncompatibleError):
        Policy.load(Store(tmp_path).add(make_bundle(1)), load_profile("rover"))
