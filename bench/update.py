"""Updates of PPO side by side: ours, CleanRL's loop, stable-baselines3. One thread, the same network, the same data.

    python bench/update.py --network original --profile rover
    python bench/update.py --network spatial --profile rover-mini --samples 2048 --minibatch 256

Every contender is a process of its own and updates in turn, round after round, so that all meet the same load. The
others run twice: as they are, and with the allocator's setting that our learner makes (`keep_freed_memory`).
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import sys
from collections.abc import Callable

import msgspec
import torch
from contenders import serve, take_turns
from machine import machine

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.learn.device import keep_freed_memory
from policyloop.learn.distribution import gaussian_log_prob
from policyloop.learn.networks import SCAN_COLUMNS, ActorCritic, make_network
from policyloop.learn.ppo import PpoSettings, make_optimizer, ppo_update
from policyloop.learn.rollout import Rollout
from policyloop.learn.tuning import choose_execution

CONTENDERS = ("ours", "ours in float32", "CleanRL", "CleanRL, our allocator", "SB3", "SB3, our allocator")


def rollout(network: ActorCritic, profile: RobotProfile, samples: int) -> Rollout:
    """Return steps that `network` drew, with random pictures and advantages."""
    camera = profile.camera
    assert camera is not None
    features = {
        "rgb": torch.randint(0, 256, (samples, 3, camera.height, camera.width), dtype=torch.uint8),
        "depth": torch.randint(0, 256, (samples, 1, camera.height, camera.width), dtype=torch.uint8),
        "proprio": torch.randn(samples, profile.proprio_size),
        "scan": torch.rand(samples, SCAN_COLUMNS),
    }
    rows = torch.arange(samples).split(4)
    with torch.no_grad():
        parts = [network.mean_and_value({name: tensor[part] for name, tensor in features.items()}) for part in rows]
        mean, value = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        log_std = network.log_std.expand_as(mean).clone()
        sample = mean + log_std.exp() * torch.randn_like(mean)
    advantage = torch.randn(samples)
    log_prob = gaussian_log_prob(sample, mean, log_std)
    return Rollout(features, sample, log_prob, mean, log_std, mean, log_prob, advantage, value + advantage)


def our_update(
    network: ActorCritic, profile: RobotProfile, data: Rollout, arguments: argparse.Namespace
) -> Callable[[], Callable[[], object]]:
    """Return an update as the learner runs it: as is fastest here, or in float32."""
    execution = choose_execution(network, profile, arguments.minibatch, torch.device("cpu"))
    if arguments.contender == "ours in float32":
        execution = msgspec.structs.replace(execution, precision="float32", channels_last=True)
    print(execution, file=sys.stderr)
    execution.lay_out(network)
    settings = PpoSettings(epochs=arguments.epochs, minibatch=arguments.minibatch, max_kl=math.inf)
    optimizer, generator = make_optimizer(network, settings), torch.Generator().manual_seed(0)

    def update() -> None:
        with execution.applied_to(network):
            ppo_update(network, optimizer, data, settings, generator=generator, rows_at_once=execution.rows_at_once)

    return lambda: update


def contender(arguments: argparse.Namespace) -> Callable[[], Callable[[], object]]:
    """Return what prepares an update and returns it, ready to be called."""
    torch.manual_seed(0)
    profile = load_profile(arguments.profile)
    network = make_network(arguments.network, profile)
    data = rollout(network, profile, arguments.samples)
    name = arguments.contender.split(",")[0]
    if name.startswith("ours"):
        return our_update(network, profile, data, arguments)
    import peers

    if name == "SB3":
        theirs = peers.StableBaselines(network, data, arguments.epochs, arguments.minibatch)
        return lambda: (theirs.refill(), theirs.update)[1]
    loop = peers.CleanRl(network, arguments.epochs, arguments.minibatch)
    observations = {key: tensor.float() for key, tensor in data.features.items()}
    batch = {
        "action": data.sample,
        "log_prob": data.log_prob,
        "advantage": data.advantage,
        "target": data.value_target,
        "value": data.value_target - data.advantage,
    }
    return lambda: lambda: loop.update(observations, batch)


def compete(arguments: argparse.Namespace) -> None:
    """Be one contender: update in turn, and report user seconds, system seconds and peak MB."""
    torch.set_num_threads(1)
    if arguments.contender.startswith("ours") or "allocator" in arguments.contender:
        keep_freed_memory()
    prepare = contender(arguments)

    def measure() -> list[float]:
        update = prepare()
        before = resource.getrusage(resource.RUSAGE_SELF)
        update()
        after = resource.getrusage(resource.RUSAGE_SELF)
        user_s, system_s = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        return [user_s, system_s, after.ru_maxrss / 1024]

    serve(measure)


def main() -> None:
    """Print one row per contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="original")
    parser.add_argument("--profile", default="rover")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--minibatch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        return compete(arguments)
    print(machine())
    measured = list(take_turns(CONTENDERS, arguments.rounds))
    passes = arguments.samples * arguments.epochs
    print(f"{arguments.network}, {arguments.profile}: {passes} passes in minibatches of {arguments.minibatch}")
    print("| update | passes / CPU s | user ms / pass | system ms / pass | ours is faster by | peak MB |")
    print("|---|---|---|---|---|---|")
    for name in CONTENDERS:
        user, system, peak = (statistics.median(entry[name][i] for entry in measured) for i in range(3))
        ratios = sorted(sum(entry[name][:2]) / sum(entry["ours"][:2]) for entry in measured)
        print(
            f"| {name} | {passes / (user + system):.1f} | {1e3 * user / passes:.2f} | {1e3 * system / passes:.2f} | "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | {peak:.0f} |"
        )
    print(machine())


if __name__ == "__main__":
    main()
