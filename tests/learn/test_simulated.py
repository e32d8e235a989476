"""Learning from simulated robots whose best output is known, and what comes of their rewards by hand."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.errors import IncompatibleError
from policyloop.learn.checkpoint import CheckpointState, load_checkpoint
from policyloop.learn.feed import FeedState
from policyloop.learn.networks import MlpNetwork
from policyloop.learn.rollout import vtrace
from policyloop.learn.simulated import SimulatedLearner, SimulationProgress, SimulationSettings, advantages
from policyloop.runtime.policy import Policy

BEST = np.array([0.8, -0.6])


@dataclass
class Came:
    """What came of one tick of `Darts`."""

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_proprio: np.ndarray
    final_privileged: np.ndarray


class Darts:
    """Robots that are paid for outputs near `BEST`; every third is cut after five ticks, the next ends after seven."""

    privileged_size = 2

    def __init__(self, profile: RobotProfile, count: int = 12, seed: int = 0) -> None:
        self.profile, self.count = profile, count
        self._rng = np.random.default_rng(seed)
        self._age = np.zeros(count, int)
        self.outputs: list[np.ndarray] = []
        self._look()

    def _look(self) -> None:
        self._seen = self._rng.uniform(-1, 1, (self.count, self.profile.proprio_size)).astype(np.float32)

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        return self._seen, np.stack([self._age, self._age % 2], 1).astype(np.float32)

    def step(self, outputs: np.ndarray) -> Came:
        self.outputs.append(outputs)
        reward = -np.abs(outputs - BEST).sum(1).astype(np.float32)
        self._age += 1
        self._look()
        which = np.arange(self.count) % 3
        truncated, terminated = (which == 0) & (self._age == 5), (which == 1) & (self._age == 7)
        came = Came(reward, terminated, truncated, *self.observe())
        self._age[truncated | terminated] = 0
        self._look()
        return came


def settings(**changes: Any) -> SimulationSettings:
    quick = {"learning_rate": 3e-3, "minibatch": 96, "gamma": 0.5, **changes.pop("ppo", {})}
    ppo = msgspec.structs.replace(SimulationSettings().ppo, **quick)
    chosen = {"horizon": 16, "hidden_sizes": (16,), "steps": 192 * 40, **changes}
    return SimulationSettings(ppo=ppo, **chosen)


def learned(profile: RobotProfile, **changes: Any) -> tuple[SimulatedLearner, Darts, list[SimulationProgress]]:
    robots = Darts(profile)
    learner = SimulatedLearner(robots, settings(**changes))
    return learner, robots, list(learner.updates(threading.Event()))


def weights(learner: SimulatedLearner) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in learner.network.state_dict().items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


# -- advantages -------------------------------------------------------------------------------


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def found(reward: Any, value: Any, ended: Any, future: Any, gamma: float, lam: float) -> list[float]:
    ends = np.array(ended, bool)[:, None]
    return advantages(column(*reward), column(*value), ends, column(*future), gamma=gamma, lam=lam)[:, 0].tolist()


def test_advantages_of_an_episode_that_goes_on_by_hand() -> None:
    # deltas: 1 + 0.5 * 4 - 2 = 1 and 3 + 0.5 * 6 - 4 = 2; the first carries 0.5 * 0.8 * 2
    assert found([1, 3], [2, 4, 6], [0, 0], [0, 0], 0.5, 0.8) == pytest.approx([1.8, 2.0])


def test_a_termination_is_worth_nothing_afterwards_and_carries_nothing_over() -> None:
    # 1 + 0 - 2 = -1, whatever the next row, which is another episode's, is worth: 3 + 0.5 * 6 - 4 = 2
    assert found([1, 3], [2, 4, 6], [1, 0], [0, 0], 0.5, 0.8) == pytest.approx([-1.0, 2.0])


def test_a_cut_is_worth_what_came_after_it() -> None:
    # 1 + 0.5 * 10 - 2 = 4
    assert found([1, 3], [2, 4, 6], [1, 0], [10, 0], 0.5, 0.8) == pytest.approx([4.0, 2.0])


def test_the_future_of_somebody_who_goes_on_does_not_count() -> None:
    assert found([1, 3], [2, 4, 6], [0, 0], [99, 99], 0.5, 0.8) == pytest.approx([1.8, 2.0])


def test_lambda_zero_is_one_step_and_lambda_one_is_the_whole_return() -> None:
    reward, value = [1.0, 2.0, 4.0], [10.0, 20.0, 30.0, 40.0]
    assert found(reward, value, [0, 0, 0], [0, 0, 0], 0.5, 0.0) == pytest.approx([1.0, -3.0, -6.0])
    # 1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 40 = 8, less 10; 2 + 0.5 * 4 + 0.25 * 40 = 14; 4 + 0.5 * 40 = 24
    assert found(reward, value, [0, 0, 0], [0, 0, 0], 0.5, 1.0) == pytest.approx([-2.0, -6.0, -6.0])


def test_many_robots_at_once_are_each_trace_by_itself() -> None:
    rng = np.random.default_rng(0)
    ticks, count = 40, 7
    reward, value = (rng.normal(size=(n, count)).astype(np.float32) for n in (ticks, ticks + 1))
    ended, terminated = rng.random((ticks, count)) < 0.15, rng.random((ticks, count)) < 0.5
    future = np.where(ended & ~terminated, rng.normal(size=(ticks, count)), 0).astype(np.float32)
    ours = advantages(reward, value, ended, future, gamma=0.97, lam=0.9)
    assert ours.dtype == np.float32
    assert ended.sum() > 20
    for robot in range(count):
        ends = [*np.flatnonzero(ended[:, robot]).tolist(), *([] if ended[-1, robot] else [ticks - 1])]
        start = 0
        for end in ends:
            rows = slice(start, end + 1)
            last = float(future[end, robot] if ended[end, robot] else value[end + 1, robot])
            ones = np.ones_like(reward[rows, robot])
            trace, _ = vtrace(reward[rows, robot], value[rows, robot], last, ones, gamma=0.97, lam=0.9)
            np.testing.assert_allclose(ours[rows, robot], trace, atol=1e-5)
            start = end + 1
        assert start == ticks


# -- learning ---------------------------------------------------------------------------------


def test_it_finds_the_best_output(blind: RobotProfile) -> None:
    learner, robots, progress = learned(blind)
    assert [entry.update for entry in progress] == list(range(1, 41))
    assert [entry.steps for entry in progress] == [192 * n for n in range(1, 41)]
    with torch.no_grad():
        seen = {"proprio": torch.from_numpy(blind.nominal_normalizer(robots.observe()[0]))}
        answers = learner.network.mean(seen).numpy()
    assert np.abs(answers - BEST).max() < 0.2
    assert progress[-1].reward > progress[0].reward + 0.7
    assert progress[-1].reward > -0.6  # 0.4 of it is noise: two outputs, 0.8 * 0.25 each


def test_progress_tells_rewards_and_falls_as_they_were(blind: RobotProfile) -> None:
    """Of 12 robots every third is cut after 5, 10 and 15 of 16 ticks, and every third ends after 7 and 14."""
    _, robots, progress = learned(blind, steps=1, ppo={"reward_scale": 0.1})
    (only,) = progress
    earned = [-np.abs(outputs - BEST).sum(1).mean() for outputs in robots.outputs]
    assert only.reward == pytest.approx(np.mean(earned), rel=1e-5)
    assert only.falls == pytest.approx(4 * 2 / (12 * 16))
    assert only.elapsed_s > 0
    assert only.cpu_s > 0


def test_what_was_drawn_is_learned_from_under_the_density_it_was_drawn_with(blind: RobotProfile) -> None:
    """In a single pass over a single minibatch network and recorded behaviour agree: nothing is clipped."""
    _, _, (only,) = learned(blind, steps=1, ppo={"epochs": 1, "minibatch": 192})
    assert only.statistics["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert only.statistics["clipfrac"] == 0
    assert only.statistics["policy_loss"] == pytest.approx(0, abs=1e-5)  # minus the mean of normalised advantages


def test_exploration_narrows_first_and_the_learning_rate_falls_to_the_end(blind: RobotProfile) -> None:
    wide, narrow = 0.8, 0.2
    ppo = {
        "initial_log_std": math.log(wide),
        "final_log_std": math.log(narrow),
        "entropy_weight": 1.0,  # exploration always wants to grow
        "desired_kl": 1e6,  # and so does the learning rate; only the schedule holds them
        "learning_rate_floor": 0.1,
    }
    _, robots, progress = learned(blind, steps=192 * 8, narrow_by=0.5, ppo=ppo)
    done = np.arange(8) / 8
    expected = wide + (narrow - wide) * np.minimum(1, done / 0.5)
    assert [entry.statistics["std"] for entry in progress] == pytest.approx(expected.tolist(), rel=1e-5)
    rates = [entry.statistics["learning_rate"] for entry in progress]
    assert rates[-3:] == pytest.approx((3e-3 * (1 - 0.9 * done))[-3:].tolist())
    first, last = np.concatenate(robots.outputs[:16]), np.concatenate(robots.outputs[-16:])
    assert first.std(0) == pytest.approx(wide, rel=0.25)
    assert last.std(0) == pytest.approx(narrow, rel=0.4)


def test_it_ends_when_it_is_told_to(blind: RobotProfile) -> None:
    stop = threading.Event()
    learner = SimulatedLearner(Darts(blind), settings())
    updates = 0
    for _ in learner.updates(stop):
        updates += 1
        if updates == 2:
            stop.set()
    assert (updates, learner.update, learner.steps) == (2, 2, 384)


def test_equal_seeds_give_equal_weights_and_others_others(blind: RobotProfile) -> None:
    one, again, other = (weights(learned(blind, steps=192 * 3, seed=seed)[0]) for seed in (3, 3, 4))
    assert same(one, again)
    assert not same(one, other)


def test_the_critic_sees_what_the_policy_does_not(blind: RobotProfile) -> None:
    learner = SimulatedLearner(Darts(blind), settings())
    seen = torch.zeros(1, 4)
    with torch.no_grad():
        means, values = zip(
            *(
                learner.network.mean_and_value({"proprio": seen, "privileged": torch.full((1, 2), n)})
                for n in (0.0, 5.0)
            ),
            strict=True,
        )
    assert torch.equal(*means)
    assert not torch.equal(*values)


# -- what is left behind ----------------------------------------------------------------------


def test_the_export_is_a_bundle_that_a_robot_opens(blind: RobotProfile, tmp_path: Path) -> None:
    learner, _, _ = learned(blind, steps=192 * 2, seed=5)
    bundle = learner.export(9)
    assert bundle.manifest.version == 9
    assert bundle.manifest.training == {"learner": "ppo, simulated robots", "update": 2, "steps": 384, "seed": 5}
    policy = Policy.load(Store(tmp_path / "store").add(bundle), blind)
    proprio = np.array([0.3, -0.2, 1.5, 0.1], np.float32)
    with torch.no_grad():
        seen = {"proprio": torch.from_numpy(blind.nominal_normalizer(proprio[None]))}
        expected = learner.network.mean(seen).numpy()[0]
    action = policy.act(Observation({"proprio": proprio}, 0))
    assert action.behaviour is not None
    assert action.behaviour.sample == pytest.approx(expected.tolist(), abs=1e-5)
    assert action.values == pytest.approx(blind.actions_of(expected).tolist(), abs=1e-5)
    policy.close()


def state(profile: RobotProfile, bundle: Bundle, learner: SimulatedLearner) -> CheckpointState:
    return CheckpointState(
        profile=profile,
        profile_digest=profile.digest,
        network="mlp",
        normalizer=bundle.manifest.normalizer,
        version=1,
        update=learner.update,
        seed=0,
        cloned=False,
        demonstrations_until=0,
        feed=FeedState(ledger={"trained": learner.steps}),
        elapsed_s=0.0,
        settings={},
    )


@pytest.fixture
def saved(blind: RobotProfile, tmp_path: Path) -> tuple[SimulatedLearner, Path]:
    """A learner after three updates, and its checkpoint."""
    learner, _, _ = learned(blind, steps=192 * 3)
    bundle = learner.export(1)
    learner.save(tmp_path / "checkpoints", state(blind, bundle, learner), bundle)
    return learner, tmp_path / "checkpoints" / "000003"


def test_a_checkpoint_gives_weights_moments_and_random_state_back_exactly(
    saved: tuple[SimulatedLearner, Path], blind: RobotProfile
) -> None:
    before, path = saved
    after = SimulatedLearner(Darts(blind, seed=7), settings(seed=99, steps=192 * 4))
    assert not same(weights(before), weights(after))
    after.restore(load_checkpoint(path))
    assert same(weights(before), weights(after))
    assert (after.update, after.steps) == (3, 576)
    before._robots, before._settings = Darts(blind, seed=7), after._settings
    for learner in (before, after):
        assert [entry.update for entry in learner.updates(threading.Event())] == [4]
    assert same(weights(before), weights(after))


def test_a_checkpoint_of_another_profile_is_refused(saved: tuple[SimulatedLearner, Path], blind: RobotProfile) -> None:
    faster = msgspec.structs.replace(blind, rates=msgspec.structs.replace(blind.rates, control_hz=20.0))
    learner = SimulatedLearner(Darts(faster), settings())
    before = weights(learner)
    with pytest.raises(IncompatibleError, match="another profile than 'blind'") as caught:
        learner.restore(load_checkpoint(saved[1]))
    assert caught.value.exit_code == 7
    assert same(before, weights(learner))


def test_a_checkpoint_of_another_network_is_refused(saved: tuple[SimulatedLearner, Path], blind: RobotProfile) -> None:
    learner = SimulatedLearner(Darts(blind), settings(hidden_sizes=(32,)))
    with pytest.raises(IncompatibleError, match="has shape"):
        learner.restore(load_checkpoint(saved[1]))


def test_the_network_is_what_the_settings_say(blind: RobotProfile) -> None:
    learner = SimulatedLearner(Darts(blind), settings(hidden_sizes=(8, 4), activation="tanh"))
    assert isinstance(learner.network, MlpNetwork)
    shapes = [tuple(tensor.shape) for name, tensor in learner.network.actor.state_dict().items() if "weight" in name]
    assert shapes == [(8, 4), (4, 8), (2, 4)]
