"""Promise R29: a policy that wants to touch something never touches what the gate knows of (see bench/adversary.py)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from policyloop.core.profile import RobotProfile


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "adversary.py"
    spec = importlib.util.spec_from_file_location("bench_adversary", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_adversary"] = module
    spec.loader.exec_module(module)
    return module


adversary: Any = _load()


@pytest.fixture(scope="module")
def profile() -> RobotProfile:
    return adversary.profile_without_ends()


def sensed_contacts(profile: RobotProfile, indices: range) -> list[tuple[int, Any]]:
    outcomes = [(index, adversary.drive_random(profile, index)) for index in indices]
    assert sum(outcome.ticks for _, outcome in outcomes) > 90 * len(indices)
    return [(index, outcome) for index, outcome in outcomes if outcome.contact == "sensed"]


def test_random_adversaries_touch_nothing_that_was_sensed(profile: RobotProfile) -> None:
    assert sensed_contacts(profile, range(60)) == []


@pytest.mark.long
def test_hundreds_of_adversaries_touch_nothing_that_was_sensed(profile: RobotProfile) -> None:
    assert sensed_contacts(profile, range(60, 360)) == []


def test_without_the_rules_of_distance_the_same_adversaries_do_touch_something(profile: RobotProfile) -> None:
    outcomes = [
        adversary.drive(profile, "attack", np.zeros(adversary.PARAMETERS), seed, late_ticks=1, mode="limits")
        for seed in range(50_000, 50_003)
    ]
    assert [outcome.contact for outcome in outcomes] == ["sensed"] * 3


def full_left(profile: RobotProfile, seed: int) -> Any:
    """Ask for the same all the time: full speed, full left, a circle of half a metre."""
    parameters = np.zeros(adversary.PARAMETERS)
    parameters[0] = parameters[adversary.FEATURES] = 9.0
    return adversary.drive(profile, "linear", parameters, seed, late_ticks=0, ticks=60)


# In a curve of less than 1.5 m radius the inner front corner sweeps floor that the camera never sees.
@pytest.mark.parametrize("seed", [50_002, 50_003, 50_071])
def test_a_tight_curve_touches_nothing(profile: RobotProfile, seed: int) -> None:
    assert full_left(profile, seed).contact == ""


# Found by `bench/adversary.py --search 12 --seeds 3 --arenas 2`: it turns to and fro beside something,
# until dead reckoning is wrong by more than a margin that does not grow.
DRIFTER = np.array(
    [
        *(0.7178, -1.9757, 3.6492, -0.4218, -1.4875, 2.8037, 0.5252, 1.1096, 3.0568),
        *(0.2902, -4.3106, -0.9114, -1.7698, 0.4968, 0.6276, 3.593, -0.06),
    ]
)


def test_a_policy_that_turns_to_and_fro_beside_a_thing_touches_nothing(profile: RobotProfile) -> None:
    assert adversary.drive(profile, "linear", DRIFTER, 60_301, late_ticks=1).contact == ""
