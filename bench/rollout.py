"""What a rollout of 8192 steps costs: its memory, its pictures held compressed, and its V-trace.

    python bench/rollout.py ../shared/data/d435i/aligned.npz

Pictures are views of real ones, 424x240. Compressed they are what is on the wire (JPEG, which decodes to the very
bytes that the network saw) and, for depth, zstandard of the eight-bit codes that the network sees; both would be
decoded anew whenever a step is learned from.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
import zstandard
from machine import machine

from policyloop.core.features import encode_depth
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.learn.device import keep_freed_memory
from policyloop.learn.distribution import gaussian_log_prob
from policyloop.learn.networks import SCAN_COLUMNS, make_network
from policyloop.learn.ppo import PpoSettings, make_optimizer, ppo_update
from policyloop.learn.rollout import Rollout, Trace, vtrace
from policyloop.learn.simulated import advantages
from policyloop.learn.tuning import choose_execution
from policyloop.wire.rgb import pack_rgb, unpack_rgb

STEPS, TRACE = 8192, 300


def views(paths: Sequence[Path], profile: RobotProfile) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return colour and depth, as a robot's camera gives them."""
    assert profile.camera is not None
    height, width = profile.camera.height, profile.camera.width
    found = []
    for path in paths:
        with np.load(path) as file:
            rgb, depth = file["rgb"], file["depth_mm"]
        for row, column in np.ndindex(3, 3):
            cut = (slice(row, None, 3), slice(column, None, 3))
            found.append((rgb[cut][:height, :width], depth[cut][:height, :width]))
    return [(np.ascontiguousarray(rgb), np.ascontiguousarray(depth)) for rgb, depth in found]


def traces(pictures: list[tuple[np.ndarray, np.ndarray]], profile: RobotProfile, steps: int) -> list[Trace]:
    """Return steps with these pictures, over and over."""
    rng, made = np.random.default_rng(0), []
    while steps:
        length = min(TRACE, steps)
        seen = [pictures[i % len(pictures)] for i in range(length + 1)]
        features = {
            "rgb": np.stack([rgb.transpose(2, 0, 1) for rgb, _ in seen]),
            "depth": np.stack([encode_depth(depth, profile.camera)[None] for _, depth in seen]),
            "proprio": rng.normal(size=(length + 1, profile.proprio_size)).astype(np.float32),
            "scan": rng.uniform(size=(length + 1, SCAN_COLUMNS)).astype(np.float32),
        }
        sample = torch.from_numpy(rng.normal(size=(length, len(profile.action))).astype(np.float32))
        mean, log_std = torch.zeros_like(sample), torch.full_like(sample, -0.5)
        log_prob = gaussian_log_prob(sample, mean, log_std).numpy()
        reward = rng.normal(size=length).astype(np.float32)
        made.append(Trace(features, sample.numpy(), log_prob, mean.numpy(), log_std.numpy(), reward, terminated=True))
        steps -= length
    return made


def size_bytes(rollout: Rollout) -> int:
    """Return what its tensors take."""
    vectors = [value for value in vars(rollout).values() if isinstance(value, torch.Tensor)]
    return sum(tensor.nbytes for tensor in [*rollout.features.values(), *vectors])


def least_s(work: Callable[[], object], times: int = 5) -> float:
    """Return the least CPU time that it takes."""
    taken = []
    for _ in range(times):
        started_s = time.process_time()
        work()
        taken.append(time.process_time() - started_s)
    return min(taken)


def update_s(name: str, rollout: Rollout, profile: RobotProfile, precision: str) -> float:
    """Return CPU seconds per pass."""
    torch.manual_seed(0)
    network = make_network(name, profile)
    execution = choose_execution(network, profile, 256, torch.device("cpu"))
    if precision == "float32":
        execution = msgspec.structs.replace(execution, precision="float32", channels_last=True)
    execution.lay_out(network)
    settings = PpoSettings(epochs=1, minibatch=len(rollout), max_kl=math.inf, min_effective=0)
    optimizer, generator = make_optimizer(network, settings), torch.Generator().manual_seed(0)
    rows = execution.rows_at_once

    def update() -> None:
        with execution.applied_to(network):
            ppo_update(network, optimizer, rollout, settings, generator=generator, rows_at_once=rows)

    update()
    return least_s(update, 3) / len(rollout)


def memory(made: list[Trace], profile: RobotProfile, pictures: list[tuple[np.ndarray, np.ndarray]]) -> Rollout:
    """Print bytes of a rollout in several forms; returns it."""
    torch.manual_seed(0)
    network = make_network("spatial", profile)
    device, steps = torch.device("cpu"), sum(map(len, made))
    rollout = Rollout.build(
        made, network, gamma=0.99, lam=0.95, reward_scale=0.1, device=device, rows_at_once=16, correct_lag=False
    )
    ours = size_bytes(rollout) / steps
    pixels = sum(tensor[0].nbytes for name, tensor in rollout.features.items() if tensor.dtype == torch.uint8)
    naive = ours + 3 * pixels
    jpegs = [pack_rgb(rgb, profile.stream) for rgb, _ in pictures]
    codes = [encode_depth(depth, profile.camera) for _, depth in pictures]
    packer, unpacker = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()
    packed = [packer.compress(code.tobytes()) for code in codes]
    held = ours - pixels + statistics.mean(map(len, jpegs)) + statistics.mean(map(len, packed))
    print("| layout of 8192 steps | GB | of float32 |\n|---|---|---|")
    for name, size in (("float32 colour and depth", naive), ("ours: bytes", ours), ("held compressed", held)):
        print(f"| {name} | {size * STEPS / 1e9:.2f} | 1/{naive / size:.1f} |")
    shape = pictures[0][0].shape

    def decode() -> None:
        for jpeg, code in zip(jpegs, packed, strict=True):
            np.ascontiguousarray(unpack_rgb(jpeg, shape).transpose(2, 0, 1))
            np.frombuffer(unpacker.decompress(code), np.uint8)

    decode_s = least_s(decode) / len(pictures)
    print(f"decoding: {1e3 * decode_s:.2f} ms of CPU per step\n")
    print("| network | precision | ms / pass | slower by decoding |\n|---|---|---|---|")
    some = rollout.rows(torch.arange(64))
    for name in ("original", "spatial"):
        for precision in ("float32", "chosen here"):
            pass_s = update_s(name, some, profile, precision)
            print(f"| {name} | {precision} | {1e3 * pass_s:.2f} | {decode_s / pass_s:.1%} |", flush=True)
    return rollout


def values(profile: RobotProfile) -> None:
    """Print what advantages cost beside the cheapest update there is, that of a small network without pictures."""
    rng = np.random.default_rng(0)
    lengths = [TRACE] * (STEPS // TRACE) + [STEPS % TRACE]
    numbers = [tuple(rng.normal(size=length).astype(np.float32) for _ in range(3)) for length in lengths]
    one_s = least_s(
        lambda: [vtrace(r, v, 0.1, np.exp(ratio), gamma=0.99, lam=0.95) for r, v, ratio in numbers], times=20
    )
    robots, ticks = 256, STEPS // 256
    reward, value = (rng.normal(size=(n, robots)).astype(np.float32) for n in (ticks, ticks + 1))
    ended, future = np.zeros((ticks, robots), bool), np.zeros((ticks, robots), np.float32)
    many_s = least_s(lambda: advantages(reward, value, ended, future, gamma=0.99, lam=0.95), times=20)
    torch.manual_seed(0)
    network = make_network("mlp", profile)
    features = {"proprio": torch.randn(STEPS, profile.proprio_size)}
    with torch.no_grad():
        mean = network.mean(features)
        log_std = network.log_std.expand_as(mean).clone()
        sample = mean + log_std.exp() * torch.randn_like(mean)
    density, advantage = gaussian_log_prob(sample, mean, log_std), torch.randn(STEPS)
    rollout = Rollout(features, sample, density, mean, log_std, mean, density, advantage, advantage)
    settings = PpoSettings(max_kl=math.inf)
    optimizer, generator = make_optimizer(network, settings), torch.Generator().manual_seed(0)
    update = least_s(lambda: ppo_update(network, optimizer, rollout, settings, generator=generator), times=3)
    for what, spent_s in ((f"V-trace, one robot, {len(lengths)} traces", one_s), (f"GAE, {robots} robots", many_s)):
        print(
            f"{what}: {1e3 * spent_s:.2f} ms for {STEPS} steps, {spent_s / update:.2%} of an update of {update:.2f} s"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(machine())
    profile = load_profile("rover")
    values(load_profile("lite3"))
    pictures = views(arguments.pictures, profile)
    memory(traces(pictures, profile, arguments.steps), profile, pictures)
    print(machine())


if __name__ == "__main__":
    main()
