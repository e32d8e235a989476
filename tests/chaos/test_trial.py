"""The simulated robot under every fault: it stops, says why, stays stopped, and is armed again by hand."""

from __future__ import annotations

import pytest

from policyloop.chaos.faults import FAULTS, Fault
from policyloop.chaos.trial import Outcome, try_fault
from policyloop.core.profile import RobotProfile

REASONS = {
    "no-new-frame": "stale",
    "frozen-picture": "frozen",
    "unplugged": "no-observation",
    "black-depth": "distance",
    "nan-odometry": "no-observation",
    "clock-ahead": "stale",
    "clock-behind": "stale",
    "nan-policy": "not-finite",
    "failing-policy": "no-proposal",
    "reckless-policy": "distance",
    "hung-inference": "late",
}


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_robot_does_what_it_must_and_says_why(mini: RobotProfile, fault: Fault) -> None:
    outcome = try_fault(mini, fault)
    assert outcome.passed, outcome
    assert not outcome.contact
    assert not outcome.moved_by_itself
    if fault.name in REASONS:
        assert REASONS[fault.name] in outcome.said
    if fault.must == "stand":
        assert outcome.state == "tripped"
        assert outcome.stopped_after_s is not None
        assert outcome.travelled_m < 0.3


def test_a_robot_without_a_gate_would_not_pass(mini: RobotProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyloop.chaos.trial.SafetyGate", lambda profile: OpenGate())
    passed = {fault.name: try_fault(mini, fault).passed for fault in FAULTS if not fault.real_time}
    assert not passed["reckless-policy"]
    assert not passed["no-new-frame"]
    assert not passed["frozen-picture"]


class OpenGate:
    """Lets everything through."""

    def unfit(self, observation: object, now_ns: int) -> str:
        return ""

    def check(self, action: object, observation: object, now_ns: int, state: str) -> object:
        from policyloop.core.step import Action, Command

        if not isinstance(action, Action) or state != "armed":
            return Command((0.0, 0.0), (state,))
        return Command((min(action.values[0], 0.6), action.values[1]))


def test_an_outcome_can_be_written_down(mini: RobotProfile) -> None:
    import msgspec

    outcome = try_fault(mini, FAULTS[0], seed=5)
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome
