"""PPO on Ant-v5 from end to end, collecting and updating: ours, CleanRL's loop, stable-baselines3, rsl-rl-lib.

    pip install glfw imageio rsl-rl-lib      (glfw and imageio: Gymnasium imports them before it steps an Ant)
    python bench/ant.py [--threads 2]

Eight Ants, 256 steps each, then four epochs of minibatches of 256; an actor of 512-256 and a critic of 128-128, tanh.
Every contender is a process of its own and works in turn, round after round. "ours" steps MuJoCo itself, in `--threads`
threads, and gives what Ant-v5 gives: checked when it starts. "ours, Gymnasium's Ants" steps what the others step. With
one thread the CPU's time counts, with more the clock on the wall; others then step each Ant in a process of its own.
"""

from __future__ import annotations

import argparse
import io
import math
import resource
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from contenders import serve, take_turns
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from machine import machine
from numpy.typing import NDArray

from policyloop.core.profile import EpisodeRules, Limits, RobotProfile
from policyloop.core.spec import Quantity, RangedQuantity
from policyloop.learn.device import keep_freed_memory
from policyloop.learn.networks import MlpNetwork
from policyloop.learn.ppo import PpoSettings
from policyloop.learn.simulated import SimulatedLearner, SimulationSettings

ANT, ANTS, HORIZON, EPOCHS, MINIBATCH = "Ant-v5", 8, 256, 4, 256
ACTOR, CRITIC = (512, 256), (128, 128)  # the critic is that of policyloop's MlpNetwork
GAMMA, LAMBDA, LEARNING_RATE = 0.99, 0.95, 3e-4
SEEN, ACTIONS, EPISODE_STEPS = 105, 8, 1000

Float32 = NDArray[np.float32]
Flags = NDArray[np.bool_]


def profile() -> RobotProfile:
    """Describe an Ant."""
    return RobotProfile(
        name="ant",
        proprio=tuple(Quantity(name=f"seen_{i}", unit="1") for i in range(SEEN)),
        action=tuple(RangedQuantity(name=f"torque_{i}", unit="1", low=-1.0, high=1.0) for i in range(ACTIONS)),
        limits=Limits(max_forward_mps=1.0, max_reverse_mps=1.0, max_angular_radps=1.0),
        episode=EpisodeRules(max_steps=EPISODE_STEPS),
    )


@dataclass(frozen=True)
class Came:
    """What came of one tick; see `policyloop.learn.simulated.Outcomes`."""

    reward: Float32
    terminated: Flags
    truncated: Flags
    final_proprio: Float32

    @property
    def final_privileged(self) -> Float32:
        """There is nothing that only the critic sees."""
        return np.zeros((len(self.reward), 0), np.float32)


class GymnasiumAnts:
    """Ants as others step them."""

    privileged_size = 0

    def __init__(self, seed: int = 0) -> None:
        self.profile, self.count = profile(), ANTS
        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        self._envs = SyncVectorEnv([lambda: gymnasium.make(ANT)] * ANTS, autoreset_mode=mode)
        self._seen = self._envs.reset(seed=seed)[0].astype(np.float32)

    def observe(self) -> tuple[Float32, Float32]:
        """See `policyloop.learn.simulated.SimulatedRobots`."""
        return self._seen, np.zeros((ANTS, 0), np.float32)

    def step(self, outputs: NDArray[np.floating]) -> Came:
        """See `policyloop.learn.simulated.SimulatedRobots`."""
        seen, reward, terminated, truncated, info = self._envs.step(outputs.clip(-1, 1))
        final = seen.astype(np.float32)
        for row in np.flatnonzero(terminated | truncated):
            final[row] = info["final_obs"][row]
        self._seen = seen.astype(np.float32)
        return Came(reward.astype(np.float32), terminated, truncated, final)


class NativeAnts:
    """The same Ants without Gymnasium between them and MuJoCo, which steps in threads."""

    privileged_size = 0

    def __init__(self, threads: int, seed: int = 0) -> None:
        self.profile, self.count = profile(), ANTS
        self._env = gymnasium.make(ANT).unwrapped
        self._model = self._env.model
        self._data = [mujoco.MjData(self._model) for _ in range(ANTS)]
        self._rng = np.random.default_rng(seed)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._parts = [self._data[i::threads] for i in range(threads)]
        self._age = np.zeros(ANTS, int)
        for data in self._data:
            self._restart(data)
        self._seen = self._look()

    def _restart(self, data: mujoco.MjData) -> None:
        env, rng, noise = self._env, self._rng, 0.1
        mujoco.mj_resetData(self._model, data)
        data.qpos[:] = env.init_qpos + rng.uniform(-noise, noise, self._model.nq)
        data.qvel[:] = env.init_qvel + noise * rng.standard_normal(self._model.nv)
        mujoco.mj_forward(self._model, data)

    def _look(self) -> NDArray[np.float64]:
        rows = [(data.qpos[2:], data.qvel, data.cfrc_ext[1:].ravel()) for data in self._data]
        seen = np.array([np.concatenate(row) for row in rows])
        np.clip(seen[:, 27:], -1, 1, out=seen[:, 27:])
        return seen

    def _advance(self, part: list[mujoco.MjData]) -> None:
        for data in part:
            mujoco.mj_step(self._model, data, nstep=self._env.frame_skip)
            mujoco.mj_rnePostConstraint(self._model, data)

    def observe(self) -> tuple[Float32, Float32]:
        """See `policyloop.learn.simulated.SimulatedRobots`."""
        return self._seen.astype(np.float32), np.zeros((ANTS, 0), np.float32)

    def step(self, outputs: NDArray[np.floating]) -> Came:
        """See `policyloop.learn.simulated.SimulatedRobots`; the reward is that of Ant-v5."""
        control = outputs.clip(-1, 1)
        before = np.array([data.xpos[1, 0] for data in self._data])
        for data, row in zip(self._data, control, strict=True):
            data.ctrl[:] = row
        if self._pool is None:
            self._advance(self._data)
        else:
            list(self._pool.map(self._advance, self._parts))
        seen = self._look()
        forward = (np.array([data.xpos[1, 0] for data in self._data]) - before) / self._env.dt
        healthy = np.isfinite(seen).all(axis=1) & (seen[:, 0] >= 0.2) & (seen[:, 0] <= 1.0)
        touch = np.array([data.cfrc_ext[0] for data in self._data]).clip(-1, 1)  # the world's row is not observed
        cost = 0.5 * (control**2).sum(1) + 5e-4 * ((seen[:, 27:] ** 2).sum(1) + (touch**2).sum(1))
        self._age += 1
        truncated = self._age >= EPISODE_STEPS
        ended = ~healthy | truncated
        self._seen = seen
        if ended.any():
            for row in np.flatnonzero(ended):
                self._restart(self._data[row])
            self._age[ended], self._seen = 0, self._look()
        return Came((forward + healthy - cost).astype(np.float32), ~healthy, truncated, seen.astype(np.float32))

    def check(self, steps: int = 20) -> None:
        """Raise unless an Ant here does what Gymnasium's does."""
        env, data = self._env, self._data[0]
        env.reset(seed=0)
        mujoco.mj_resetData(self._model, data)
        data.qpos[:], data.qvel[:] = env.data.qpos, env.data.qvel
        mujoco.mj_forward(self._model, data)
        rng = np.random.default_rng(0)
        for _ in range(steps):
            outputs = rng.uniform(-1, 1, (ANTS, ACTIONS))
            seen, reward, terminated, _, _ = env.step(outputs[0])
            came = self.step(outputs)
            np.testing.assert_allclose(came.final_proprio[0], seen, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(came.reward[0], reward, rtol=1e-5, atol=1e-5)
            assert bool(came.terminated[0]) == terminated


Iteration = Callable[[], float]
"""Collects and updates once; returns the CPU seconds of the update."""


def ours(robots: GymnasiumAnts | NativeAnts) -> Iteration:
    """Learn with policyloop."""
    ppo = PpoSettings(
        learning_rate=LEARNING_RATE,
        critic_learning_rate=LEARNING_RATE,
        entropy_weight=0.0,
        gamma=GAMMA,
        lam=LAMBDA,
        epochs=EPOCHS,
        minibatch=MINIBATCH,
        reward_scale=1.0,
        critic_warmup_updates=0,
        max_kl=math.inf,  # all epochs, as the others
    )
    settings = SimulationSettings(horizon=HORIZON, hidden_sizes=ACTOR, activation="tanh", steps=10**9, ppo=ppo)
    learner = SimulatedLearner(robots, settings)
    updates = learner.updates(threading.Event())
    collected_s = 0.0
    collect = learner._collect

    def timed() -> Any:
        nonlocal collected_s
        started_s = time.process_time()
        result = collect()
        collected_s = time.process_time() - started_s
        return result

    learner._collect = timed  # type: ignore[method-assign]

    def iterate() -> float:
        started_s = time.process_time()
        next(updates)
        return time.process_time() - started_s - collected_s

    return iterate


def vector_env(threads: int) -> VectorEnv:
    """Return Gymnasium's eight Ants, in processes if there are cores for them."""
    made = [lambda: gymnasium.wrappers.ClipAction(gymnasium.make(ANT))] * ANTS
    return AsyncVectorEnv(made) if threads > 1 else SyncVectorEnv(made)


def cleanrl(threads: int) -> Iteration:
    """Learn as CleanRL's ppo_continuous_action.py does, without its normalising wrappers."""
    import peers

    envs = vector_env(threads)
    network = MlpNetwork(profile(), initial_log_std=0.0, hidden_sizes=ACTOR, activation="tanh")
    loop = peers.CleanRl(network, EPOCHS, MINIBATCH)
    seen, actions = torch.zeros(HORIZON, ANTS, SEEN), torch.zeros(HORIZON, ANTS, ACTIONS)
    log_probs, rewards, ends, values = (torch.zeros(HORIZON, ANTS) for _ in range(4))
    now, ended = torch.tensor(envs.reset(seed=0)[0], dtype=torch.float32), torch.zeros(ANTS)

    def iterate() -> float:
        nonlocal now, ended
        for step in range(HORIZON):
            seen[step], ends[step] = now, ended
            with torch.no_grad():
                mean, values[step] = network.mean_and_value({"proprio": now})
                policy = torch.distributions.Normal(mean, network.log_std.expand_as(mean).exp())
                actions[step] = action = policy.sample()
                log_probs[step] = policy.log_prob(action).sum(1)
            after, reward, terminated, truncated, _ = envs.step(action.numpy())
            rewards[step] = torch.tensor(reward).view(-1)
            now = torch.tensor(after, dtype=torch.float32)
            ended = torch.tensor(np.logical_or(terminated, truncated), dtype=torch.float32)
        started_s = time.process_time()
        advantages, following = torch.zeros(HORIZON, ANTS), torch.zeros(ANTS)
        with torch.no_grad():
            next_value = network.value({"proprio": now})
        for step in reversed(range(HORIZON)):
            goes_on = 1.0 - (ended if step == HORIZON - 1 else ends[step + 1])
            next_values = next_value if step == HORIZON - 1 else values[step + 1]
            error = rewards[step] + GAMMA * next_values * goes_on - values[step]
            advantages[step] = following = error + GAMMA * LAMBDA * goes_on * following
        flat = {"action": actions, "log_prob": log_probs, "advantage": advantages, "value": values}
        batch = {name: tensor.flatten(0, 1) for name, tensor in flat.items()}
        loop.update({"proprio": seen.flatten(0, 1)}, {**batch, "target": batch["advantage"] + batch["value"]})
        return time.process_time() - started_s

    return iterate


def stable_baselines(threads: int) -> Iteration:
    """Learn with stable-baselines3."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    envs = make_vec_env(ANT, ANTS, seed=0, vec_env_cls=SubprocVecEnv if threads > 1 else DummyVecEnv)
    shapes = {"net_arch": {"pi": list(ACTOR), "vf": list(CRITIC)}}
    learner = PPO(
        "MlpPolicy", envs, n_steps=HORIZON, batch_size=MINIBATCH, n_epochs=EPOCHS, policy_kwargs=shapes, device="cpu"
    )
    spent_s = timed(learner, "train")

    def iterate() -> float:
        learner.learn(HORIZON * ANTS, reset_num_timesteps=False)
        return spent_s()

    return iterate


class RslEnvs:
    """Gymnasium's Ants as rsl_rl wants them."""

    num_envs, num_actions, max_episode_length, device = ANTS, ACTIONS, EPISODE_STEPS, "cpu"

    def __init__(self, threads: int) -> None:
        self.cfg: dict[str, Any] = {}
        self._envs = vector_env(threads)
        self._seen = self._tensors(self._envs.reset(seed=0)[0])
        self.episode_length_buf = torch.zeros(ANTS, dtype=torch.long)

    def _tensors(self, seen: NDArray[np.float64]) -> Any:
        from tensordict import TensorDict

        return TensorDict({"policy": torch.as_tensor(seen, dtype=torch.float32)}, batch_size=[ANTS])

    def get_observations(self) -> Any:
        """Return what is seen now."""
        return self._seen

    def step(self, actions: torch.Tensor) -> tuple[Any, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Step all Ants."""
        seen, reward, terminated, truncated, _ = self._envs.step(actions.numpy())
        self._seen = self._tensors(seen)
        ended = torch.as_tensor(terminated | truncated)
        return (
            self._seen,
            torch.as_tensor(reward, dtype=torch.float32),
            ended,
            {"time_outs": torch.as_tensor(truncated)},
        )


def rsl_rl(threads: int) -> Iteration:
    """Learn with rsl-rl-lib."""
    from rsl_rl.runners import OnPolicyRunner

    shape = {"class_name": "MLPModel", "activation": "tanh", "obs_normalization": False}
    exploration = {"class_name": "GaussianDistribution", "init_std": 1.0}
    settings = {
        "num_steps_per_env": HORIZON,
        "save_interval": 10**6,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": {**shape, "hidden_dims": list(ACTOR), "distribution_cfg": exploration},
        "critic": {**shape, "hidden_dims": list(CRITIC)},
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": EPOCHS,
            "num_mini_batches": HORIZON * ANTS // MINIBATCH,
            "learning_rate": LEARNING_RATE,
            "max_grad_norm": 0.5,
            "gamma": GAMMA,
            "lam": LAMBDA,
        },
    }
    runner = OnPolicyRunner(RslEnvs(threads), settings, log_dir=None, device="cpu")  # type: ignore[arg-type]
    spent_s = timed(runner.alg, "update")

    def iterate() -> float:
        runner.learn(1)
        return spent_s()

    return iterate


def timed(owner: Any, name: str) -> Callable[[], float]:
    """Replace a method by one that takes its time; returns what tells how long the last call took."""
    method, spent_s = getattr(owner, name), 0.0

    def measured(*arguments: Any, **more: Any) -> Any:
        nonlocal spent_s
        started_s = time.process_time()
        result = method(*arguments, **more)
        spent_s = time.process_time() - started_s
        return result

    setattr(owner, name, measured)
    return lambda: spent_s


def native(threads: int) -> Iteration:
    """Learn with policyloop; MuJoCo steps in threads."""
    ants = NativeAnts(threads)
    ants.check()
    return ours(ants)


CONTENDERS: dict[str, Callable[[int], Iteration]] = {
    "ours": native,
    "ours, Gymnasium's Ants": lambda threads: ours(GymnasiumAnts()),
    "CleanRL": cleanrl,
    "SB3": stable_baselines,
    "rsl-rl-lib": rsl_rl,
}


def compete(name: str, threads: int) -> None:
    """Be one contender: iterate in turn, and report user, system, wall and update seconds."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    if name.startswith("ours"):
        keep_freed_memory()
    with redirect_stdout(io.StringIO()):
        iterate = CONTENDERS[name](threads)

    def measure() -> list[float]:
        before, started_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        with redirect_stdout(io.StringIO()):
            update_s = iterate()
        wall_s, after = time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_SELF)
        return [after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, wall_s, update_s]

    serve(measure)


def main() -> None:
    """Print one row per contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        return compete(arguments.contender, arguments.threads)
    print(machine())
    measured = list(take_turns(CONTENDERS, arguments.rounds, threads=arguments.threads))
    steps = ANTS * HORIZON

    def cost_s(entry: list[float]) -> float:
        return entry[0] + entry[1] if arguments.threads == 1 else entry[2]

    unit = "CPU s" if arguments.threads == 1 else "s"
    print(f"{arguments.threads} threads, {len(measured)} rounds of {steps} steps")
    print(f"| learner | steps / {unit} | user s | system s | update, passes / CPU s | ours is faster by |")
    print("|---|---|---|---|---|---|")
    for name in CONTENDERS:
        user_s, system_s, _, update_s = (statistics.median(entry[name][i] for entry in measured) for i in range(4))
        cost = statistics.median(cost_s(entry[name]) for entry in measured)
        ratios = sorted(cost_s(entry[name]) / cost_s(entry["ours"]) for entry in measured)
        print(
            f"| {name} | {steps / cost:.0f} | {user_s:.2f} | {system_s:.2f} | {EPOCHS * steps / update_s:.0f} | "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    print(machine())


if __name__ == "__main__":
    main()
