"""What a policy answered last is told to it: raw, and zeros when it starts."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.spec import Quantity
from policyloop.core.step import Action, Behaviour, Observation
from policyloop.robot.last_output import LastOutput

CENTERS = np.array([0, -0.65, 1.3] * 4)
SCALES = np.array([0.125, 0.25, 0.25] * 4)
RAW = np.linspace(-3, 18.9, 12)


def observation() -> Observation:
    return Observation(
        {"proprio": np.arange(45, dtype=np.float32), "scan": np.ones(2)}, 7, contact=True, followed=False
    )


def answered(*sample: float) -> Action:
    behaviour = Behaviour(
        mean=(0.0,) * len(sample),
        log_std=(-5.0,) * len(sample),
        sample=sample,
        log_prob=0.0,
        policy_version=1,
        policy_digest="0" * 64,
        backend="test",
    )
    return Action((0.3,) * 12, "policy", behaviour)


def told(last_output: LastOutput) -> list[float]:
    return last_output.told(observation()).arrays["proprio"][33:].tolist()


def test_a_start_is_all_zeros(lite3: RobotProfile) -> None:
    assert told(LastOutput(lite3)) == [0.0] * 12


def test_what_was_drawn_is_told_as_it_was_before_scale_and_limits(lite3: RobotProfile) -> None:
    last_output = LastOutput(lite3)
    last_output.learn(answered(*RAW))
    np.testing.assert_array_equal(told(last_output), RAW.astype(np.float32))
    last_output.learn(answered(*-RAW))
    np.testing.assert_array_equal(told(last_output), -RAW.astype(np.float32))
    np.testing.assert_array_equal(told(last_output), -RAW.astype(np.float32))  # until something newer is learned


def test_nothing_else_of_the_observation_changes_and_the_robots_own_arrays_do_not(lite3: RobotProfile) -> None:
    last_output = LastOutput(lite3)
    last_output.learn(answered(*RAW))
    before = observation()
    after = last_output.told(before)
    np.testing.assert_array_equal(after.arrays["proprio"][:33], np.arange(33))
    np.testing.assert_array_equal(before.arrays["proprio"], np.arange(45))
    assert after.arrays["scan"] is before.arrays["scan"]
    assert after.arrays["proprio"].dtype == np.float32
    assert (after.captured_ns, after.contact, after.followed) == (7, True, False)


def test_with_the_tanh_map_it_is_where_in_its_range_the_proposal_lay_whoever_made_it(mini: RobotProfile) -> None:
    two = Quantity(name="last_action", unit="1", size=2)
    last_output = LastOutput(msgspec.structs.replace(mini, proprio=(two,)))
    sample = (0.7, -1.2)
    values = tuple(float(value) for value in mini.actions_of(np.array(sample)))
    behaviour = answered(*sample).behaviour
    for action in (Action(values, "policy", behaviour), Action(values, "human")):
        last_output.learn(action)
        seen = last_output.told(Observation({"proprio": np.zeros(2, np.float32)}, 7))
        np.testing.assert_allclose(seen.arrays["proprio"], np.tanh(sample), atol=1e-6)
    last_output.learn(Action((0.6, -1.2), "scripted"))  # the ends of the ranges
    seen = last_output.told(Observation({"proprio": np.zeros(2, np.float32)}, 7))
    np.testing.assert_allclose(seen.arrays["proprio"], [1, -1], atol=1e-6)


def test_what_a_script_or_a_person_did_is_told_as_the_answer_that_leads_there(lite3: RobotProfile) -> None:
    last_output = LastOutput(lite3)
    last_output.learn(Action(tuple((CENTERS + SCALES * RAW).tolist()), "scripted"))
    np.testing.assert_allclose(told(last_output), RAW, atol=1e-5)


def test_it_is_forgotten_when_the_policy_is_not_in_command(lite3: RobotProfile) -> None:
    last_output = LastOutput(lite3)
    last_output.learn(answered(*RAW))
    last_output.clear()
    assert told(last_output) == [0.0] * 12


def test_it_lies_where_the_profile_says(lite3: RobotProfile) -> None:
    last_output = LastOutput(msgspec.structs.replace(lite3, proprio=(lite3.proprio[-1], *lite3.proprio[:-1])))
    last_output.learn(answered(*RAW))
    proprio = last_output.told(observation()).arrays["proprio"]
    np.testing.assert_array_equal(proprio[:12], RAW.astype(np.float32))
    np.testing.assert_array_equal(proprio[12:], np.arange(12, 45))


def test_a_robot_whose_policy_does_not_ask_is_told_nothing(mini: RobotProfile) -> None:
    last_output = LastOutput(mini)
    last_output.learn(answered(0.5, 0.5))
    seen = Observation({"proprio": np.ones(6, np.float32)}, 7)
    assert last_output.told(seen) is seen


@pytest.mark.parametrize("size", [0, 40, 44])
def test_an_observation_that_is_too_short_is_no_observation(size: int, lite3: RobotProfile) -> None:
    with pytest.raises(ValueError):
        LastOutput(lite3).told(Observation({"proprio": np.zeros(size, np.float32)}, 7))
