"""Promise R30: every reachable state of the arming machine, every event in each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.errors import SafetyRefusal
from policyloop.safety.arming import Arming, ArmingLimits, ArmingSwitch

LIMITS = ArmingLimits(healthy_ticks=3, unhealthy_ticks=2)


def arm(arming: Arming) -> Arming:
    try:
        return arming.armed(LIMITS)
    except SafetyRefusal:
        return arming


EVENTS: dict[str, Callable[[Arming], Arming]] = {
    "healthy tick": lambda arming: arming.ticked(LIMITS, healthy=True),
    "unhealthy tick": lambda arming: arming.ticked(LIMITS, healthy=False),
    "arm": arm,
    "disarm": Arming.disarmed,
    "trip": lambda arming: arming.tripped("something"),
    "press stop": lambda arming: arming.stopped(held=True),
    "release stop": lambda arming: arming.stopped(held=False),
    "take over": lambda arming: arming.taken(by_human=True),
    "let go": lambda arming: arming.taken(by_human=False),
}


def explored() -> list[tuple[Arming, str, Arming]]:
    """Return every transition that can be reached from the start."""
    found: list[tuple[Arming, str, Arming]] = []
    seen, waiting = {Arming()}, [Arming()]
    while waiting:
        state = waiting.pop()
        for name, event in EVENTS.items():
            after = event(state)
            found.append((state, name, after))
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    return found


TRANSITIONS = explored()


def test_the_machine_is_small_and_every_state_is_reached() -> None:
    states = {before for before, _, _ in TRANSITIONS}
    assert {state.state for state in states} == {"disarmed", "armed", "human", "tripped"}
    assert len(states) < 150


def test_a_robot_is_armed_by_a_person_or_when_a_person_lets_go_of_what_the_policy_drove() -> None:
    ways = {(before.state, name) for before, name, after in TRANSITIONS if after.state == "armed" != before.state}
    assert ways == {("disarmed", "arm"), ("tripped", "arm"), ("human", "let go")}
    for before, name, after in TRANSITIONS:
        if after.state == "armed" != before.state:
            assert not before.stop_held
            assert before.healthy >= LIMITS.healthy_ticks if name == "arm" else before.resumes and before.healthy


def test_an_emergency_stop_wins_in_every_state_and_stays_until_somebody_arms_again() -> None:
    for before, name, after in TRANSITIONS:
        if name == "press stop":
            assert (after.state, after.stop_held) == ("tripped", True)
        if before.stop_held and name != "release stop":
            assert after.state == "tripped"
        if name == "release stop":
            assert after.state == before.state


def test_a_trip_is_left_by_nobody_but_a_person() -> None:
    ways = {name for before, name, after in TRANSITIONS if before.state == "tripped" != after.state}
    assert ways == {"arm", "disarm"}


def test_a_person_takes_over_from_the_policy_at_once_and_never_from_a_trip() -> None:
    for before, name, after in TRANSITIONS:
        if name == "take over":
            assert after.state == ("tripped" if before.state == "tripped" else "human")


def test_the_policy_resumes_only_where_it_drove_before() -> None:
    assert Arming(healthy=3).taken(by_human=True).taken(by_human=False).state == "disarmed"
    driving = Arming(healthy=3).armed(LIMITS)
    assert driving.taken(by_human=True).taken(by_human=False).state == "armed"
    for before, name, after in TRANSITIONS:
        if name in ("trip", "disarm", "press stop") and not before.stop_held:
            assert not after.resumes or before.state == "tripped"


def test_unhealthy_input_trips_after_its_time_and_not_before() -> None:
    driving = Arming(healthy=3).armed(LIMITS)
    once = EVENTS["unhealthy tick"](driving)
    assert once.state == "armed"
    assert EVENTS["unhealthy tick"](once).state == "tripped"
    assert EVENTS["unhealthy tick"](EVENTS["healthy tick"](once)).state == "armed"


@pytest.mark.parametrize(
    ("arming", "words"),
    [
        (Arming(healthy=3, stop_held=True, state="tripped"), "emergency stop is pressed"),
        (Arming(healthy=2), "not been healthy"),
        (Arming(healthy=3, state="human"), "a person drives"),
    ],
)
def test_a_refusal_to_arm_says_why(arming: Arming, words: str) -> None:
    with pytest.raises(SafetyRefusal, match=words) as caught:
        arming.armed(LIMITS)
    assert (caught.value.exit_code, bool(caught.value.remedy)) == (6, True)


def test_a_second_is_counted_in_the_profiles_ticks(mini: RobotProfile) -> None:
    assert ArmingLimits.of(mini) == ArmingLimits(healthy_ticks=10, unhealthy_ticks=10)


def test_the_switch_says_what_changed(caplog: pytest.LogCaptureFixture) -> None:
    switch = ArmingSwitch(LIMITS)
    assert [switch.tick(healthy=True, by_human=False) for _ in range(3)] == ["disarmed"] * 3
    switch.arm()
    assert switch.tick(healthy=True, by_human=False) == "armed"
    assert switch.tick(healthy=True, by_human=True) == "human"
    assert switch.tick(healthy=True, by_human=False) == "armed"
    switch.stop(held=True)
    assert switch.tick(healthy=True, by_human=True) == "tripped"
    switch.disarm()
    assert switch.now.state == "tripped"
    switch.stop(held=False)
    switch.disarm()
    assert switch.now == Arming(healthy=3)
    switch.trip("the loop hung")
    assert [record.message for record in caplog.records][-1] == "the robot is tripped: the loop hung"
