from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command, Stamps, Step
from policyloop.errors import WireError
from policyloop.link.telemetry import columns, proprio_of, telemetry
from policyloop.wire.codec import encode_step


def test_a_row_names_what_a_step_holds(mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    step = make_step(
        mini,
        4,
        stamps=Stamps(2_000_000_000, 2_005_000_000, 2_007_500_000),
        command=Command((0.25, -0.5), ("slew", "distance")),
        reward_terms={"forward": 0.5, "time": -0.25},
    )
    row = telemetry(step.record, proprio_of(encode_step(step, mini)[1:], mini), mini)
    assert (row["captured_s"], row["infer_ms"], row["act_ms"]) == (2.0, 5.0, 7.5)
    assert (row["gate"], row["source"], row["policy_version"]) == ("slew distance", "policy", 1)
    assert (row["reward"], row["reward_terms/forward"], row["reward_terms/spin"]) == (0.25, 0.5, 0.0)
    assert (row["command/linear"], row["command/angular"]) == (0.25, -0.5)
    assert row["proprio/min_forward_dist"] == pytest.approx(float(step.observation["proprio"][5]))


def test_every_row_has_the_same_keys(mini: RobotProfile, walker: RobotProfile, make_step: Callable[..., Step]) -> None:
    for profile in (mini, walker):
        for source in ("policy", "human"):
            step = make_step(profile, source=source)
            row = telemetry(step.record, proprio_of(encode_step(step, profile)[1:], profile), profile)
            assert list(row) == columns(profile)
    assert "proprio/joints/5" in columns(walker)


def test_proprioception_that_is_damaged_is_an_error_of_the_wire(mini: RobotProfile) -> None:
    nan = np.full(6, np.nan, np.float32).tobytes()
    for frames in ([], [b"", b""], [b"", b"", b"x"], [b"", b"", nan]):
        with pytest.raises(WireError):
            proprio_of(frames, mini)
