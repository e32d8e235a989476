"""Promise R30: every reachable state of the arming machine, every event in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
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
                assert len(seen) < 150
                waiting.append(after)
    return found


TRANSITIONS = explored()


def test_the_machine_is_small_and_every_state_is_reached() -> None:
    states = {before for before, _, _ in TRANSITIONS}
    assert {state.state for state in states} == {"disarmed", "armed", "human", "tripped"}


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


def test_a_switch_that_was_asked_to_arm_once_does_so_when_input_has_been_healthy_and_never_again() -> None:
    switch = ArmingSwitch(LIMITS, arm_once=True)
    states = [switch.tick(healthy=healthy, by_human=False) for healthy in (True, True, False, True, True, True, True)]
    assert states == ["disarmed"] * 6 + ["armed"]
    switch.trip("something")
    assert [switch.tick(healthy=True, by_human=False) for _ in range(5)] == ["tripped"] * 5
    switch.disarm()
    assert [switch.tick(healthy=True, by_human=False) for _ in range(5)] == ["disarmed"] * 5


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda switch: switch.stop(held=True),
        lambda switch: (switch.stop(held=True), switch.stop(held=False)),
        lambda switch: (switch.trip("the loop hung"), switch.disarm()),
        lambda switch: switch.tick(healthy=True, by_human=True),
    ],
    ids=["stop held", "stop released", "tripped and disarmed", "taken over"],
)
def test_a_switch_that_was_asked_to_arm_once_does_not_after_a_trip_or_a_take_over(
    meanwhile: Callable[[ArmingSwitch], object],
) -> None:
    switch = ArmingSwitch(LIMITS, arm_once=True)
    switch.tick(healthy=True, by_human=False)
    meanwhile(switch)
    assert "armed" not in {switch.tick(healthy=True, by_human=False) for _ in range(9)}
    switch.stop(held=False)
    switch.disarm()
    switch.arm()
    assert switch.now.state == "armed"


def test_a_trip_is_told_as_an_error_and_anything_else_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    switch = ArmingSwitch(LIMITS)
    for _ in range(3):
        switch.tick(healthy=True, by_human=False)
    switch.arm()
    switch.trip("the loop hung")
    switch.trip("and hung")  # tripped already: said once
    switch.disarm()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "the robot is armed"),
        ("ERROR", "the robot is tripped: the loop hung"),
        ("WARNING", "the robot is disarmed"),
    ]


def test_a_reason_is_kept_while_tripped_and_forgotten_when_it_is_left() -> None:
    tripped = Arming(healthy=3).tripped("smoke")
    assert (tripped.tripped("fire").reason, tripped.stopped(held=True).reason) == ("smoke", "smoke")
    assert (tripped.disarmed().reason, tripped.armed(LIMITS).reason) == ("", "")
    assert Arming().stopped(held=True).reason == "emergency stop"
    silent = Arming(healthy=3).armed(LIMITS).ticked(LIMITS, healthy=False).ticked(LIMITS, healthy=False)
    assert (silent.state, silent.reason) == ("tripped", "no healthy input")


def test_a_second_is_rounded_up_to_whole_ticks(mini: RobotProfile) -> None:
    rates = msgspec.structs.replace(mini.rates, control_hz=7.5)
    profile = msgspec.structs.replace(mini, rates=rates)
    assert ArmingLimits.of(profile) == ArmingLimits(healthy_ticks=8, unhealthy_ticks=8)


def test_nothing_changes_an_arming_in_place() -> None:
    arming: Any = Arming()
    with pytest.raises(AttributeError):
        arming.state = "armed"
    limits: Any = LIMITS
    with pytest.raises(AttributeError):
        limits.healthy_ticks = 0
    with pytest.raises(TypeError):
        limits.__class__(1, 2)
    with pytest.raises(TypeError):
        arming.__class__("armed")


@pytest.mark.parametrize(
    "unnamed",
    [
        lambda: Arming().ticked(LIMITS, True),  # type: ignore[misc]
        lambda: Arming().stopped(True),  # type: ignore[misc]
        lambda: Arming().taken(True),  # type: ignore[misc]
        lambda: ArmingSwitch(LIMITS, True),  # type: ignore[misc]
        lambda: ArmingSwitch(LIMITS).tick(True, False),  # type: ignore[misc]
        lambda: ArmingSwitch(LIMITS).stop(True),  # type: ignore[misc]
    ],
)
def test_nobody_can_say_yes_without_saying_to_what(unnamed: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        unnamed()


def test_input_that_has_been_healthy_for_longer_than_it_takes_is_healthy() -> None:
    assert Arming(healthy=5).armed(LIMITS).state == "armed"


def test_a_state_counts_by_its_name_wherever_that_was_read() -> None:
    def read(name: str) -> Any:
        return "".join(list(name))  # equal, and not the same object

    with pytest.raises(SafetyRefusal):
        Arming(healthy=3, state=read("human")).armed(LIMITS)
    assert Arming(state=read("tripped"), reason="smoke").tripped("fire").reason == "smoke"
    assert Arming(state=read("armed")).taken(by_human=True).resumes
    assert Arming(state=read("human")).taken(by_human=False).state == "disarmed"


def test_the_policy_resumes_after_a_single_healthy_tick_and_once() -> None:
    driven = Arming(state="human", resumes=True)
    assert driven.taken(by_human=False) == Arming()
    assert driven.ticked(LIMITS, healthy=True).taken(by_human=False) == Arming(state="armed", healthy=1)


def test_a_switch_that_was_not_asked_to_arm_never_does() -> None:
    switch = ArmingSwitch(LIMITS)
    assert {switch.tick(healthy=True, by_human=False) for _ in range(9)} == {"disarmed"}


def test_a_second_of_a_thousand_ticks_is_counted_as_well() -> None:
    limits = ArmingLimits(healthy_ticks=1000, unhealthy_ticks=1000)
    switch = ArmingSwitch(limits, arm_once=True)
    states = [switch.tick(healthy=tick < 1001, by_human=False) for tick in range(2001)]
    assert [states.index("armed"), states.index("tripped")] == [1000, 2000]
