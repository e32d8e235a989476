"""The networks side by side: same demonstrations, same epochs, several seeds.

    python bench/networks.py --profile rover-mini --frames 6000 --episodes 50
    python bench/networks.py --networks original,spatial,depth,gray --frames 4000 --epochs 6 --episodes 20 --seeds 2
    python bench/networks.py --profile rover --frames 1500 --episodes 10 --epochs 5

Demonstrations come from the training arenas, the held-out frames from arenas 5000..5009, the drive
from the arenas of record.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine

from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Step
from policyloop.evaluate import evaluate
from policyloop.learn.bc import BcSettings, clone
from policyloop.learn.demonstrations import Demonstrations
from policyloop.learn.inputs import learner_inputs
from policyloop.learn.networks import make_network
from policyloop.sim.fleet import Fleet, FleetSettings


def demonstrations(profile: RobotProfile, frames: int, arenas: range, seed: int) -> Demonstrations:
    """Record the disturbed scripted driver."""
    inputs, actions = [], []

    def take(step: Step) -> None:
        inputs.append(learner_inputs(profile, profile.nominal_normalizer, step.observation))
        actions.append(step.record.action.values)

    settings = FleetSettings(driver="scripted", robots=4, seed=seed, arena_seeds=tuple(arenas), gate="limits")
    fleet = Fleet(profile, settings, Path(tempfile.gettempdir()), emit=take)
    fleet.run(threading.Event(), steps=frames)
    fleet.close()
    stacked = {name: np.stack([entry[name] for entry in inputs]) for name in inputs[0]}
    return Demonstrations(stacked, np.array(actions, np.float32), np.full(len(actions), -1))


def held_out(network: torch.nn.Module, data: Demonstrations, profile: RobotProfile) -> tuple[float, float]:
    """Return the turn's RMSE in shares of its range, and how often its side is right where it matters."""
    means = []
    with torch.no_grad():
        for start in range(0, len(data), 64):
            batch = {name: torch.from_numpy(array[start : start + 64]) for name, array in data.features.items()}
            means.append(torch.tanh(network.mean(batch))[:, 1].numpy())  # type: ignore[operator]
    turn = np.concatenate(means)
    wanted = (data.actions[:, 1] - profile.action_center[1]) / profile.action_half_range[1]
    sharp = np.abs(wanted) > 0.3
    return float(np.sqrt(np.mean((turn - wanted) ** 2))), float(np.mean(np.sign(turn[sharp]) == np.sign(wanted[sharp])))


def main() -> None:
    """Print one row per network and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="rover-mini")
    parser.add_argument("--networks", default="original,spatial", help="names, separated by commas")
    parser.add_argument("--frames", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    profile = load_profile(arguments.profile)
    print(machine())
    training = demonstrations(profile, arguments.frames, range(48), 0)
    judging = demonstrations(profile, max(200, arguments.frames // 4), range(5000, 5010), 1)
    print("network   seed  parameters  turn RMSE  right side   return  collisions  metres  BC CPU s")
    for seed in range(arguments.seeds):
        for name in arguments.networks.split(","):
            torch.manual_seed(seed)
            network = make_network(name, profile)
            started = time.process_time()
            clone(
                network,
                training,
                profile,
                BcSettings(epochs=arguments.epochs),
                generator=torch.Generator().manual_seed(seed),
                device=torch.device("cpu"),
            )
            cost = time.process_time() - started
            rmse, side = held_out(network, judging, profile)
            with tempfile.TemporaryDirectory() as folder:
                bundle = export_bundle(
                    network,
                    profile,
                    profile.nominal_normalizer,
                    network_name=name,
                    version=1,
                    noise_hold_ticks=1,
                    observations=[{key: array[0] for key, array in judging.features.items()}],
                    training={},
                )
                report = evaluate(profile, str(Store(Path(folder)).add(bundle)), episodes=arguments.episodes)
            count = sum(parameter.numel() for parameter in network.actor.parameters())
            print(
                f"{name:9} {seed:4}  {count:10}  {rmse:9.3f}  {side:10.3f}  {report.return_mean:7.1f}  "
                f"{report.collision_rate:10.0%}  {report.distance_m:6.1f}  {cost:8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
