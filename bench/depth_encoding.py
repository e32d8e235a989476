"""Eight bits for depth: a linear clip against inverse depth, on real and simulated pictures.

python bench/depth_encoding.py ../shared/data/d435i/*.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray

from policyloop.core.features import encode_depth
from policyloop.core.profile import Camera, load_profile
from policyloop.sim.env import RoverEnv

CLIPS_M = (6.0, 10.0)
BANDS_M = ((0.2, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 10.0))

Encoding = Callable[[NDArray[np.uint16]], NDArray[np.float64]]


def linear(clip_m: float) -> Encoding:
    """Return what is left of depth, m, after 255 equal levels up to `clip_m`."""
    return lambda depth: np.clip(np.rint(depth / 1000 / clip_m * 255), 1, 255) / 255 * clip_m


def inverse(camera: Camera) -> Encoding:
    """Return what is left of depth, m, after the code that the policy gets."""
    return lambda depth: camera.depth_near_m * 255 / encode_depth(depth, camera)


def real(paths: list[Path]) -> NDArray[np.uint16]:
    """Return every measured depth of the recorded pictures, mm."""
    parts = []
    for path in paths:
        with np.load(path) as stored:
            parts += [stored[name].ravel() for name in stored.files if stored[name].dtype == np.uint16]
    depths = np.concatenate(parts)
    return depths[depths > 0]


def simulated(profile_name: str) -> NDArray[np.uint16]:
    """Return the measured depths of 100 simulated pictures, mm."""
    env = RoverEnv(load_profile(profile_name))
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    parts = []
    for _ in range(100):
        parts.append(observation["depth"].ravel())
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            observation, _ = env.reset()
    depths = np.concatenate(parts)
    return depths[depths > 0]


def main() -> None:
    """Print the 95th percentile of the error in each band of depth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path)
    paths = parser.parse_args().pictures
    camera = load_profile("rover").camera
    assert camera is not None
    encodings = {f"linear, clipped at {clip_m:g} m": linear(clip_m) for clip_m in CLIPS_M}
    encodings["inverse depth"] = inverse(camera)
    print(machine())
    sources = {"real": real(paths)} if paths else {}
    for source, depths in {**sources, "simulated": simulated("rover-mini")}.items():
        print(f"{source}, {len(depths):,} measured pixels; 95th percentile of the error, cm")
        print(f"{'':26}" + "".join(f"{f'{low:g}-{high:g} m':>12}" for low, high in BANDS_M))
        for name, encoding in encodings.items():
            row = []
            for low, high in BANDS_M:
                band = depths[(depths >= 1000 * low) & (depths < 1000 * high)]
                error = np.abs(encoding(band) - band / 1000)
                row.append(f"{100 * np.quantile(error, 0.95):12.1f}" if len(band) > 100 else f"{'-':>12}")
            print(f"{name:26}" + "".join(row))


if __name__ == "__main__":
    main()
