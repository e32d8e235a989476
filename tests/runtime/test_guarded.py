"""A real robot's slot, with real networks, a real store and, where time matters, real time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.broken import network

from policyloop.bundle.build import Bundle, build_bundle
from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action, Command, Observation
from policyloop.errors import SafetyRefusal, StorageError
from policyloop.runtime.guarded import GuardedSlot
from policyloop.runtime.health import SwapSettings

QUICK = SwapSettings(trial_time_s=60, trial_calls=5, shadow_ticks=5, probation_s=1.0, latency_share=5.0)
"""Ten ticks of probation. Latency is allowed to be anything: these machines are shared."""
DRIVEN = Command((0.1, 0.0))
STOPPED = Command((0.0, 0.0), ("surroundings",))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Robot:
    """A slot, and somebody who ticks it."""

    def __init__(self, slot: GuardedSlot, observation: Observation) -> None:
        self.slot, self.observation = slot, observation
        self.errors: list[str] = []
        self.drove: list[int] = []
        self.proposed: set[tuple[int, str, tuple[float, ...]]] = set()

    def tick(self, command: Command = DRIVEN) -> Action | None:
        """Tick as an actor does; the robot stands where the policy fails."""
        self.slot.follow()
        try:
            action = self.slot.act(self.observation)
        except Exception as error:
            self.errors.append(str(error))
            self.slot.executed(Command((0.0, 0.0), ("no-proposal",)))
            return None
        assert action.behaviour is not None
        behaviour = action.behaviour
        self.drove.append(behaviour.policy_version)
        self.proposed.add((behaviour.policy_version, behaviour.policy_digest, action.values))
        self.slot.executed(command)
        return action

    def until(self, reached: Callable[[], bool], command: Command = DRIVEN, seconds: float = 60.0) -> None:
        deadline_s = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline_s, (self.errors[-3:], self.drove[-3:])
            self.tick(command)
            time.sleep(0.002)


@pytest.fixture
def proven(store: Store) -> Store:
    """Version 1 is current, and good."""
    assert store.current is not None
    store.mark(store.current, "good")
    return store


@pytest.fixture
def start(mini: RobotProfile, observation: Observation) -> Iterator[Callable[..., Robot]]:
    """Return `start(store, **settings)`: a robot that follows the store."""
    slots: list[GuardedSlot] = []

    def begin(store: Store, **settings: Any) -> Robot:
        chosen = SwapSettings(**{**{name: getattr(QUICK, name) for name in QUICK.__struct_fields__}, **settings})
        slots.append(GuardedSlot(store, mini, "onnx", settings=chosen))
        return Robot(slots[-1], observation)

    yield begin
    for slot in slots:
        slot.close()
    for thread in threading.enumerate():
        if thread.name == "inference":  # left behind with a network that hung: it must not hang into the next test
            thread.join(60)


@pytest.fixture
def ship(proven: Store, mini: RobotProfile, make_bundle: Callable[..., Bundle]) -> Callable[..., Path]:
    """Return `ship(version, **defect)`: a version with a network of `tests.runtime.broken`, activated."""

    def shipped(version: int, **defect: Any) -> Path:
        files = {NETWORK_NAME: network(mini, **defect)}
        path = proven.add(build_bundle(make_bundle(version).manifest, files))
        proven.activate(path)
        return path

    return shipped


def same(moved: Observation, first: float) -> Observation:
    """Return the observation with another first number of proprioception."""
    proprio = moved.arrays["proprio"].copy()
    proprio[0] = first
    return Observation({**moved.arrays, "proprio": proprio}, moved.captured_ns)


def alike(action: tuple[float, float], profile: RobotProfile) -> tuple[float, float]:
    """Return the mean that makes this action."""
    mean = np.arctanh((np.array(action) - profile.action_center) / profile.action_half_range)
    return (float(mean[0]), float(mean[1]))


@pytest.fixture
def usual(proven: Store, mini: RobotProfile, observation: Observation) -> tuple[float, float]:
    """The mean that makes about the action of version 1 on `observation`."""
    slot = GuardedSlot(proven, mini, "onnx", settings=QUICK)
    action = slot.act(observation)
    slot.close()
    return alike((0.9 * action.values[0], 0.9 * action.values[1]), mini)


def test_a_good_candidate_is_shadowed_swapped_in_put_on_probation_and_marked_good(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    robot = start(proven)
    path = ship(2, mean=usual)
    robot.until(lambda: robot.slot.swaps == 1)
    assert (proven.state_of(path), proven.about(path).attempts) == ("active", 1)
    assert robot.drove[-1] == 2
    robot.until(lambda: proven.state_of(path) == "good")
    about = proven.about(path)
    assert about.attempts == 0
    assert "5 shadow ticks: divergence mean" in about.note
    assert "ticks on probation: 0 late" in about.note
    assert robot.errors == []
    assert sorted(robot.drove) == robot.drove  # never back and forth
    assert proven.current == path


@pytest.mark.parametrize(
    ("defect", "words"),
    [
        ({"defect": "nan"}, "not finite"),
        ({"defect": "shape"}, "expected"),
        ({"defect": "raise"}, "indices"),
        ({"mean": (5.0, 5.0)}, "of their range away"),
        ({"defect": "nan", "above": -0.001}, "not finite"),  # only where the robot drives now: seen in shadow
    ],
)
def test_a_bad_candidate_never_drives_and_the_store_goes_back(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], defect: dict[str, Any], words: str
) -> None:
    good, robot = proven.current, start(proven, divergence=0.1)
    path = ship(2, **defect)
    robot.until(lambda: proven.state_of(path) == "bad" and proven.current == good)
    for _ in range(30):
        robot.tick()
        time.sleep(0.002)
    assert words in proven.about(path).note
    assert (set(robot.drove), robot.slot.swaps, robot.errors) == ({1}, 0, [])


def test_a_candidate_that_hangs_is_refused_and_never_tried_again(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path]
) -> None:
    robot = start(proven, trial_time_s=2)
    path = ship(2, defect="loop", iterations=10**12)
    robot.until(lambda: proven.state_of(path) == "bad")
    assert "it hangs" in proven.about(path).note
    with pytest.raises(SafetyRefusal, match="it hangs"):
        proven.activate(path)
    assert set(robot.drove) == {1}


def test_a_candidate_that_hangs_in_shadow_is_left_behind(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    robot = start(proven)
    robot.observation = same(robot.observation, 1e6)  # what the trial, on an empty observation, does not see
    path = ship(2, mean=usual, defect="loop", above=5.0 - 1e-3, iterations=4_000_000)  # seconds, not for ever
    robot.until(lambda: proven.state_of(path) == "bad")
    assert "it hangs" in proven.about(path).note
    assert (set(robot.drove), robot.errors) == ({1}, [])


@pytest.mark.parametrize(
    ("defect", "words"),
    [
        ({"defect": "nan", "above": 5.0 - 1e-3}, "not-finite while driving"),
        ({"defect": "raise", "above": 5.0 - 1e-3}, "error while driving"),
    ],
)
def test_a_policy_that_fails_on_probation_is_gone_with_the_next_tick(
    proven: Store,
    start: Callable[..., Robot],
    ship: Callable[..., Path],
    usual: tuple[float, float],
    defect: dict[str, Any],
    words: str,
) -> None:
    good, robot = proven.current, start(proven)
    path = ship(2, mean=usual, **defect)
    robot.until(lambda: robot.slot.swaps == 1)
    robot.observation = same(robot.observation, 1e6)  # clipped to 5: now the defect shows
    robot.tick()
    ticks = len(robot.drove)
    robot.tick()
    assert robot.drove[ticks:] == [1]
    robot.until(lambda: proven.state_of(path) == "bad")
    assert words in proven.about(path).note
    robot.until(lambda: proven.current == good)  # the state is written first
    assert robot.slot.swaps == 2


def test_a_policy_that_hangs_while_driving_is_gone_within_two_seconds_and_the_loop_never_stops(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    good, robot = proven.current, start(proven, probation_s=30.0)
    path = ship(2, mean=usual, defect="loop", above=5.0 - 1e-3, iterations=3_000_000)  # seconds, not for ever
    robot.until(lambda: robot.slot.swaps == 1)
    robot.observation = same(robot.observation, 1e6)
    started_s, slowest_s = time.monotonic(), 0.0
    while robot.slot.policy.version == 2:
        before_s = time.monotonic()
        robot.tick()
        slowest_s = max(slowest_s, time.monotonic() - before_s)
        assert time.monotonic() - started_s < 2.0
        time.sleep(0.1)
    assert "longer than 80 ms" in robot.errors[0]
    assert "still busy" in robot.errors[1]
    robot.until(lambda: robot.drove[-1] == 1)
    robot.until(lambda: proven.state_of(path) == "bad" and proven.current == good)
    assert slowest_s < 1.0


def test_a_policy_that_the_gate_must_stop_all_the_time_is_rolled_back(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    robot = start(proven, probation_s=30.0)
    for _ in range(60):
        robot.tick()
    path = ship(2, mean=usual)
    robot.until(lambda: robot.slot.swaps == 1)
    robot.until(lambda: proven.state_of(path) == "bad", command=STOPPED)
    assert "the gate stopped it in" in proven.about(path).note
    robot.until(lambda: robot.drove[-1] == 1)


def test_a_silent_sensor_is_not_held_against_a_policy(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    robot = start(proven, probation_s=10.0)
    path = ship(2, mean=usual)
    robot.until(lambda: robot.slot.swaps == 1)
    robot.until(lambda: proven.state_of(path) == "good", command=Command((0.0, 0.0), ("stale",)))


# -- starts and ends --------------------------------------------------------------------------


def test_a_robot_without_a_version_does_not_start(
    tmp_path: Path, start: Callable[..., Robot], make_bundle: Callable[..., Bundle]
) -> None:
    empty = Store(tmp_path / "empty")
    with pytest.raises(StorageError, match="no current bundle"):
        start(empty)
    empty.add(make_bundle(1))
    with pytest.raises(StorageError, match="no current bundle"):
        start(empty)
    empty.activate(empty.find(1))
    empty.mark(empty.find(1), "bad", "it was seen to turn in circles")
    with pytest.raises(SafetyRefusal, match="turn in circles") as caught:
        start(empty)
    assert caught.value.exit_code == 6


def test_the_first_version_of_all_is_on_probation_without_anybody_to_be_compared_with(
    store: Store, start: Callable[..., Robot]
) -> None:
    robot, first = start(store, probation_s=10.0), store.current
    assert first is not None
    assert store.about(first).attempts == 1
    robot.until(lambda: store.state_of(first) == "good", command=STOPPED)


def test_a_first_version_that_fails_leaves_the_robot_standing_until_another_comes(
    tmp_path: Path,
    start: Callable[..., Robot],
    make_bundle: Callable[..., Bundle],
    mini: RobotProfile,
) -> None:
    store = Store(tmp_path / "new")
    first = store.add(build_bundle(make_bundle(1).manifest, {NETWORK_NAME: network(mini, "nan", above=5.0 - 1e-3)}))
    store.activate(first)
    robot = start(store, probation_s=30.0)
    usual = robot.observation
    assert robot.tick() is not None
    robot.observation = same(usual, 1e6)
    robot.until(lambda: store.state_of(first) == "bad")
    robot.observation = usual
    assert robot.tick() is None
    assert "there is none before it" in robot.errors[-1]
    second = store.add(make_bundle(2))
    store.activate(second)
    robot.until(lambda: robot.drove[-1] == 2)
    assert robot.slot._previous is None  # the bad one is no place to go back to


def test_a_version_that_a_person_calls_good_after_all_is_tried_again(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path]
) -> None:
    good, robot = proven.current, start(proven, divergence=1e-6)
    path = ship(2)
    robot.until(lambda: proven.state_of(path) == "bad" and proven.current == good)
    for _ in range(20):
        robot.tick()
    proven.mark(path, "good")
    proven.activate(path)
    robot.until(lambda: robot.drove[-1] == 2)


def test_two_programs_never_drive_from_one_store(
    proven: Store, mini: RobotProfile, start: Callable[..., Robot], ship: Callable[..., Path]
) -> None:
    path = ship(2)
    start(proven)
    with pytest.raises(SafetyRefusal, match="another robot's program drives"):
        GuardedSlot(proven, mini, "onnx", settings=QUICK)
    assert proven.state_of(path) == "active"  # that it is being tried does not mean that somebody died of it


def test_a_start_with_a_version_that_cannot_be_loaded_goes_back_at_once(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path]
) -> None:
    good, bad = proven.current, ship(2, defect="shape")
    robot = start(proven)
    assert robot.slot.policy.version == 1
    assert (proven.current, proven.state_of(bad)) == (good, "bad")


def test_a_program_that_died_on_probation_starts_with_the_version_before(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    path = ship(2, mean=usual)
    proven.begin_attempt(path)  # as a robot did whose power went then
    robot = start(proven)
    assert robot.slot.policy.version == 1
    assert proven.state_of(path) == "bad"
    assert "died" in proven.about(path).note


def test_a_program_that_ends_in_order_does_not_condemn_the_policy_on_probation(
    proven: Store,
    mini: RobotProfile,
    start: Callable[..., Robot],
    ship: Callable[..., Path],
    usual: tuple[float, float],
) -> None:
    path = ship(2, mean=usual)
    for _ in range(2):
        slot = GuardedSlot(proven, mini, "onnx", settings=QUICK)
        assert slot.policy.version == 2
        slot.close()
        assert (proven.state_of(path), proven.about(path).attempts) == ("active", 0)
    robot = start(proven)
    robot.until(lambda: proven.state_of(path) == "good")


def test_closing_in_the_middle_of_a_shadow_leaves_no_thread_and_no_attempt(
    proven: Store, mini: RobotProfile, ship: Callable[..., Path]
) -> None:
    before = set(threading.enumerate())
    slot = GuardedSlot(proven, mini, "onnx", settings=QUICK)
    path = ship(2)
    slot.follow()
    slot.close()
    assert proven.about(path).attempts == 0
    assert set(threading.enumerate()) <= before


# -- by hand ----------------------------------------------------------------------------------


def test_a_roll_back_by_hand_during_probation_takes_the_policy_that_is_still_open(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    robot = start(proven, probation_s=30.0)
    ship(2, mean=usual)
    robot.until(lambda: robot.slot.swaps == 1)
    proven.rollback()
    robot.tick()
    assert robot.drove[-1] == 1
    assert robot.slot.swaps == 2


def test_a_roll_back_by_hand_to_a_good_version_needs_no_shadow(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    robot = start(proven)
    path = ship(2, mean=usual)
    robot.until(lambda: proven.state_of(path) == "good")
    robot.until(lambda: not robot.slot._clerks)
    proven.rollback("I saw it drive into the pond")
    robot.until(lambda: robot.slot.policy.version == 1)
    assert robot.slot._probation is None
    assert proven.about(path).note == "I saw it drive into the pond"


def test_a_candidate_that_is_overtaken_does_not_drive(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    robot = start(proven)
    second = ship(2, mean=usual)
    robot.tick()
    third = ship(3, mean=usual)
    robot.until(lambda: proven.state_of(third) == "good")
    assert set(robot.drove) == {1, 3}
    assert (proven.state_of(second), proven.about(second).attempts) == ("candidate", 0)


def test_a_policy_that_is_overtaken_on_probation_is_not_what_a_roll_back_goes_to(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float]
) -> None:
    good, robot = proven.current, start(proven, probation_s=30.0)
    ship(2, mean=usual)
    robot.until(lambda: robot.slot.swaps == 1)
    third = ship(3, mean=usual, defect="nan", above=5.0 - 1e-3)
    robot.until(lambda: robot.slot.swaps == 2)
    robot.observation = same(robot.observation, 1e6)
    robot.until(lambda: proven.state_of(third) == "bad")
    robot.until(lambda: robot.drove[-1] == 1 and proven.current == good)


# -- many swaps -------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_swaps_to_and_fro_never_mix_two_policies_and_keep_memory_level(
    proven: Store, start: Callable[..., Robot], ship: Callable[..., Path], usual: tuple[float, float], times: int
) -> None:
    first, second = proven.current, ship(2, mean=usual)
    assert first is not None
    proven.mark(second, "good")
    robot = start(proven)
    for number in range(1, times + 1):
        if number == times // 2:
            before = resident_bytes()
        proven.activate(first if number % 2 else second)
        robot.until(lambda number=number: robot.slot.swaps == number)  # type: ignore[misc]
        robot.tick()
        assert robot.drove[-1] == (1 if number % 2 else 2)
    assert robot.errors == []
    # One observation: each policy has one answer to it, and its own name on it.
    assert len(robot.proposed) == 2
    assert resident_bytes() - before < 5e6
