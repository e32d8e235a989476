"""Learning to walk: our PPO beside rsl-rl-lib's on the same simulated Lite3s, scored without exploration noise.

python bench/walking.py ours|rsl_rl [--cpu-minutes 10] [--every-minutes 1] [--seed 0] [--out FOLDER]
(rsl_rl: pip install rsl-rl-lib; its settings are those of its own legged robots)

After every CPU-minute of training the mean of the policy walks 20 times through the robot's program, gate and all, in
another physics than it was trained in (the whole body, finer contacts), at 0.5 m/s with pushes of 0.4 m/s.
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policyloop.bundle.build import Bundle
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.evaluate import BorrowedPolicy
from policyloop.learn.networks import MlpNetwork, NetworkSettings
from policyloop.learn.simulated import SimulatedLearner, SimulationSettings
from policyloop.runtime.policy import Policy
from policyloop.sim.lite3_walking import WalkingLite3s
from policyloop.walking import walk

ROBOTS, RUNS = 256, 20
WANTED = (0.5, 0.0, 0.0)


def score(bundle: Bundle, profile: RobotProfile, folder: Path) -> str:
    """Walk and say how it went."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in bundle.contents.items():
        (folder / name).write_bytes(content)
    policy = Policy.load(folder, profile)
    walks = [walk(profile, BorrowedPolicy("walker", policy), WANTED, seed) for seed in range(RUNS)]
    policy.close()
    falls = sum(done.fell for done in walks)
    up = " ".join(f"{share:.2f}" for share in np.nanmean([done.feet_up for done in walks], axis=0))
    return f"{np.nanmean([done.forward_mps for done in walks]):.3f} | {falls} of {RUNS} | {up}"


class Watch:
    """Scores at every so many CPU-seconds of training; its own time does not count."""

    def __init__(self, profile: RobotProfile, every_s: float, budget_s: float, out: Path) -> None:
        self._profile, self._every_s, self._budget_s, self._out = profile, every_s, budget_s, out
        self._began_s, self._away_s, self._due_s = time.process_time(), 0.0, every_s
        print("| CPU s | steps | m/s at 0.5 | falls | feet up FL FR HL HR |\n|---|---|---|---|---|", flush=True)

    def look(self, steps: int, export: Callable[[], Bundle]) -> bool:
        """Return whether time is up."""
        spent_s = time.process_time() - self._began_s - self._away_s
        if spent_s >= self._due_s:
            begun_s = time.process_time()
            text = score(export(), self._profile, self._out / f"{round(spent_s)}")
            print(f"| {spent_s:.0f} | {steps} | {text} |", flush=True)
            self._away_s += time.process_time() - begun_s
            self._due_s += self._every_s
        return spent_s >= self._budget_s


def ours(profile: RobotProfile, seed: int, watch: Watch, steps: int) -> None:
    """Train with policyloop."""
    robots = WalkingLite3s(profile, ROBOTS, seed)
    learner = SimulatedLearner(robots, SimulationSettings(seed=seed, steps=steps))
    for progress in learner.updates(threading.Event()):
        if watch.look(progress.steps, lambda: learner.export(1)):
            return


def rsl_rl(profile: RobotProfile, seed: int, watch: Watch, steps: int) -> None:
    """Train with rsl-rl-lib."""
    from rsl_rl.env import VecEnv
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    torch.manual_seed(seed)
    robots = WalkingLite3s(profile, ROBOTS, seed)
    normalizer = profile.nominal_normalizer
    horizon = 24

    class Environment(VecEnv):
        num_envs, num_actions, device = ROBOTS, len(profile.action), "cpu"
        max_episode_length = round(10 * profile.rates.control_hz)
        cfg: dict[str, Any] = {}

        def __init__(self) -> None:
            self.episode_length_buf = torch.zeros(ROBOTS, dtype=torch.long)

        def get_observations(self) -> TensorDict:
            proprio, privileged = robots.observe()
            seen = torch.from_numpy(normalizer(proprio))
            return TensorDict({"policy": seen, "privileged": torch.from_numpy(privileged)}, batch_size=ROBOTS)

        def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict[str, Any]]:
            came = robots.step(actions.numpy().astype(np.float64))
            ended = torch.from_numpy(came.terminated | came.truncated)
            extras = {"time_outs": torch.from_numpy(came.truncated)}
            return self.get_observations(), torch.from_numpy(came.reward), ended.long(), extras

    model = {"class_name": "MLPModel", "hidden_dims": [256, 128], "activation": "elu", "obs_normalization": False}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"}
    settings = {
        "num_steps_per_env": horizon,
        "save_interval": 10**9,
        "obs_groups": {"actor": ["policy"], "critic": ["policy", "privileged"]},
        "actor": {**model, "distribution_cfg": gaussian},
        "critic": {**model},
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": 5,
            "num_mini_batches": 4,
            "clip_param": 0.2,
            "gamma": 0.99,
            "lam": 0.95,
            "value_loss_coef": 1.0,
            "entropy_coef": 0.005,
            "learning_rate": 1e-3,
            "max_grad_norm": 1.0,
            "schedule": "adaptive",
            "desired_kl": 0.01,
        },
    }
    runner = OnPolicyRunner(Environment(), settings, log_dir=None, device="cpu")
    runner.logger.log = lambda **numbers: None  # its console

    def export() -> Bundle:
        network = MlpNetwork(profile, initial_log_std=math.log(0.25), settings=NetworkSettings(activation="elu"))
        theirs = {name: tensor for name, tensor in runner.alg.actor.state_dict().items() if name.startswith("mlp.")}
        network.actor["head"].load_state_dict({name.removeprefix("mlp."): value for name, value in theirs.items()})
        return export_bundle(
            network,
            profile,
            normalizer,
            network_name="mlp",
            version=1,
            noise_hold_ticks=1,
            observations=probe_features(profile),
            training={"learner": "rsl_rl"},
        )

    done = 0
    while done < steps:
        runner.learn(1)
        done += horizon * ROBOTS
        if watch.look(done, export):
            return


def main() -> None:
    """Learn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learner", choices=["ours", "rsl_rl"])
    parser.add_argument("--cpu-minutes", type=float, default=10.0)
    parser.add_argument("--every-minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=SimulationSettings().steps)
    parser.add_argument("--out", type=Path, default=Path("walking"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    profile = load_profile("lite3")
    out = arguments.out / f"{arguments.learner}-{arguments.seed}"
    watch = Watch(profile, 60 * arguments.every_minutes, 60 * arguments.cpu_minutes, out)
    train = ours if arguments.learner == "ours" else rsl_rl
    train(profile, arguments.seed, watch, arguments.steps)


if __name__ == "__main__":
    main()
