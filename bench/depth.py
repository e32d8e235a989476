"""The depth codec against RVL (Wilson 2017): bytes and milliseconds, both in numpy, on one core, interleaved.

python bench/depth.py [../shared/data/d435i/aligned.npz ...]

Each .npz holds `depth_mm`, uint16. From every picture nine views of 424x240 are taken at a third of
the resolution and three at full resolution. Simulated frames with independent noise stand beside them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray

from policyloop.core.profile import load_profile
from policyloop.sim.env import RoverEnv
from policyloop.wire.depth import pack_depth, unpack_depth

Depth = NDArray[np.uint16]


def rvl(depth: Depth) -> bytes:
    """Encode as RVL: runs of holes and of values in turn, values as differences, in nibbles of three bits each."""
    values = depth.ravel()
    valid = np.concatenate([[False], values != 0, [False]])
    edges = np.flatnonzero(valid[1:] != valid[:-1])
    starts, stops = edges[::2], edges[1::2]
    kept = values[values != 0].astype(np.int32)
    difference = np.diff(kept, prepend=np.int32(0))
    lengths, run = stops - starts, np.arange(len(starts))
    symbols = np.empty(len(kept) + 2 * len(starts) + 1, np.int64)
    symbols[np.arange(len(kept)) + 2 * (np.repeat(run, lengths) + 1)] = (difference << 1) ^ (difference >> 31)
    heads = np.cumsum(lengths) - lengths + 2 * run
    symbols[heads] = starts - np.concatenate([[0], stops[:-1]])
    symbols[heads + 1] = lengths
    symbols[-1] = len(values) - (stops[-1] if len(stops) else 0)
    count = 1 + sum((symbols >= 1 << (3 * k)).astype(np.int64) for k in range(1, 6))
    ends = np.cumsum(count)
    which = np.repeat(np.arange(len(symbols)), count)
    step = np.arange(ends[-1]) - (ends - count)[which]
    nibbles = (symbols[which] >> (3 * step)) & 7 | (step < (count - 1)[which]) << 3
    nibbles = np.append(nibbles, [0] * (len(nibbles) % 2)).astype(np.uint8)
    return bytes((nibbles[0::2] << 4 | nibbles[1::2]).astype(np.uint8))


def rvl_decoded(data: bytes, shape: tuple[int, ...]) -> Depth:
    """Decode, nibble by nibble: slow, and only here to prove that `rvl` writes RVL."""
    nibbles = (nibble for byte in data for nibble in (byte >> 4, byte & 15))

    def number() -> int:
        value = shift = 0
        while True:
            nibble = next(nibbles)
            value |= (nibble & 7) << shift
            shift += 3
            if nibble < 8:
                return value

    values: list[int] = []
    size, previous = int(np.prod(shape)), 0
    while len(values) < size:
        values += [0] * number()
        if len(values) >= size:
            break
        for _ in range(number()):
            code = number()
            previous += (code >> 1) ^ -(code & 1)
            values.append(previous)
    return np.array(values, np.uint16).reshape(shape)


def views(picture: Depth) -> list[Depth]:
    """Return pictures of 424x240 out of a larger one."""
    third = [picture[y::3, x::3][:240, :424] for y in range(3) for x in range(3)]
    full = [picture[y : y + 240, x : x + 424] for y, x in ((0, 0), (240, 400), (480, 800))]
    return [np.ascontiguousarray(view) for view in third + full]


def simulated(count: int) -> list[Depth]:
    """Return what the simulated rover sees."""
    env = RoverEnv(load_profile("rover"))
    frames = [env.reset(seed=seed)[0]["depth"] for seed in range(count)]
    env.close()
    return frames


def measured(function: Callable[[], object]) -> float:
    """Return the fastest of five calls, ms."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return 1e3 * min(times)


def report(name: str, frames: list[Depth]) -> None:
    """Print one row."""
    ratios, times = [], []
    for depth in frames:
        packed, anchor = pack_depth(depth), rvl(depth)
        assert (unpack_depth(packed, depth.shape) == depth).all()
        ratios.append(len(packed) / len(anchor))
        times.append(
            [
                measured(lambda depth=depth: pack_depth(depth)),  # type: ignore[misc]
                measured(lambda depth=depth: rvl(depth)),  # type: ignore[misc]
                measured(lambda packed=packed, depth=depth: unpack_depth(packed, depth.shape)),  # type: ignore[misc]
            ]
        )
    encode, anchor_ms, decode = np.mean(times, axis=0)
    print(
        f"| {name} | {len(frames)} | {np.mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | {encode:.2f} "
        f"| {anchor_ms:.2f} | {decode:.2f} |"
    )


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path)
    arguments = parser.parse_args()
    print(machine())
    print("| frames | number | bytes / RVL | encode ms | RVL encode ms | decode ms |")
    print("|---|---|---|---|---|---|")
    for path in arguments.pictures:
        frames = views(np.load(path)["depth_mm"])
        assert (rvl_decoded(rvl(frames[0]), frames[0].shape) == frames[0]).all()
        report(path.stem, frames)
    report("simulated", simulated(8))


if __name__ == "__main__":
    main()
