"""What was measured: the numbers that plans rest on, each with its source. To be amended when something is."""

from __future__ import annotations

import msgspec

__all__ = [
    "CAMERA_STEPS_PER_S",
    "DEPTH_BYTES_PER_PIXEL",
    "HEADER_BYTES",
    "JPEG_BYTES_PER_PIXEL",
    "NEEDED",
    "PIXEL_PASSES_PER_S",
    "VECTOR_PASSES_PER_S",
    "WALKING_STEPS_PER_S",
    "WEAK_LINK_MBPS",
    "Need",
]


class Need(msgspec.Struct, frozen=True):
    """How many steps a good policy takes.

    Attributes:
        steps: Fewest and most.
        reached: What they led to.
        source: Where that was measured.
    """

    steps: tuple[int, int]
    reached: str
    source: str


NEEDED = {
    "bc": Need(
        (6_000, 6_000),
        "two clones of 6000 frames made 282 and 218 points, the scripted driver 316 (64x36, simulated)",
        "docs/benchmarks.md, What we tried",
    ),
    "ppo": Need(
        (130_000, 145_000),
        "from a clone, 64 to 70 updates of 2048 steps made 263 to 282 points, 0 to 2 % collisions (64x36, simulated)",
        "docs/benchmarks.md, The demo",
    ),
    "ppo from nothing": Need(
        (60_000, 90_000),
        "158 to 213 points, 0 to 8 % collisions (64x36, simulated)",
        "docs/benchmarks.md, PPO from nothing",
    ),
    "rlpd": Need(
        (2_000, 4_000),
        "five clones of 110 points on average made 207 and 199, 4 and 6 % collisions (64x36, simulated)",
        "docs/benchmarks.md, Learning: how well",
    ),
    "simulated": Need(
        (3_000_000, 3_000_000),
        "a quadruped walks at 0.49 to 0.55 m/s without a fall",
        "docs/benchmarks.md, Quadruped",
    ),
}
"""By learner."""

HEADER_BYTES = 820
"""Of a step that a policy drove, in a demo's journal (`policyloop journal info`)."""
JPEG_BYTES_PER_PIXEL, DEPTH_BYTES_PER_PIXEL = 0.38, 0.41
"""Whole pictures of a D435i at 424x240, quality 85 and lossless (`python bench/step_bytes.py`)."""
WEAK_LINK_MBPS = 20.0
"""What a 2.4 GHz link of one stream carries when it is not alone; an estimate."""

CAMERA_STEPS_PER_S = ((64 * 36, 1599.0), (106 * 60, 854.0), (212 * 120, 241.0), (424 * 240, 33.0))
"""Pixels, and steps that one core simulates of them (docs/benchmarks.md, Simulator)."""
WALKING_STEPS_PER_S = 7_500.0
"""Of simulated quadrupeds on one core, learning included: 3.0 M in 399 s (docs/benchmarks.md, Quadruped)."""

PIXEL_PASSES_PER_S = ((64 * 36, 3200.0), (424 * 240, 100.0))
"""Pixels, and PPO passes of the network `spatial` on one core of an AMD EPYC (`policyloop plan`)."""
VECTOR_PASSES_PER_S = 55_000.0
"""The same without a camera: of the network `mlp`."""
