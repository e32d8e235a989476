"""What a randomised world costs the scripted driver: all quantities at once, and a few at a time."""

from __future__ import annotations

import time

import msgspec
import numpy as np
from machine import machine

from policyloop.core.profile import load_profile
from policyloop.evaluate import evaluate
from policyloop.safety.gate import GateMode
from policyloop.sim.randomization import NOMINAL, Randomization

ARENAS, FIRST_SEED = 20, 3_000_000
GROUPS = {
    "latency": ("command_latency_ms", "command_jitter_ms", "observation_latency_ms"),
    "depth": ("depth_noise", "hole_share"),
    "motion": ("friction", "body_mass_kg", "acceleration"),
    "camera pose": ("camera_raised_m", "camera_forward_m", "camera_pitch_deg"),
    "light": ("brightness", "contrast", "warmth"),
}


def only(**ranges: tuple[float, float]) -> Randomization:
    """Return a world in which only these quantities are not nominal."""
    fixed = {name: (value, value) for name, value in msgspec.structs.asdict(NOMINAL).items()}
    return Randomization(**{**fixed, **ranges})


def worlds() -> dict[str, Randomization | None]:
    """Return the worlds to compare, by their labels."""
    default = msgspec.structs.asdict(Randomization())
    found: dict[str, Randomization | None] = {"nominal": None, "default ranges": Randomization()}
    found |= {f"only {label}": only(**{name: default[name] for name in names}) for label, names in GROUPS.items()}
    for late_ms in (100.0, 150.0, 190.0):
        found[f"commands {late_ms:.0f} ms late"] = only(command_latency_ms=(late_ms, late_ms))
        found[f"pictures {late_ms:.0f} ms late"] = only(observation_latency_ms=(late_ms, late_ms))
    return found


def main() -> None:
    """Print return, collisions and time of the scripted driver per world and gate."""
    print(machine())
    profile = load_profile("rover-mini")
    print(f"world                 gate    return              collisions  metres  gated  CPU s   ({ARENAS} arenas)")
    for label, randomization in worlds().items():
        gates: tuple[GateMode, ...] = ("limits",) if label.startswith("only") else ("limits", "full")
        for gate in gates:
            began_s = time.process_time()
            report = evaluate(
                profile, "scripted", episodes=ARENAS, arena_seed=FIRST_SEED, gate=gate, randomization=randomization
            )
            low, high = report.return_ci or (np.nan, np.nan)
            print(
                f"{label:21} {gate:6} {report.return_mean:6.1f} [{low:5.0f}, {high:4.0f}] {report.collision_rate:8.0%}"
                f" {report.distance_m:10.1f} {report.interventions:6.1f} {time.process_time() - began_s:6.1f}"
            )


if __name__ == "__main__":
    main()
