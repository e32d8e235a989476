from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from policyloop.bundle.build import Bundle, build_bundle
from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, export_onnx, probe_features
from policyloop.core.clock import MonotonicClock, VirtualClock
from policyloop.core.profile import EpisodeRules, RobotProfile
from policyloop.core.step import Action, Command, Observation, Step, TimedCommand
from policyloop.errors import ConnectionFailed, VerificationError
from policyloop.learn.networks import make_network
from policyloop.robot.actor import Actor
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.recorder import Recorder
from policyloop.runtime.policy import Policy
from policyloop.runtime.reload import PolicySlot
from policyloop.safety.arming import ArmingLimits, ArmingSwitch
from policyloop.safety.gate import SafetyGate

PERIOD_NS = 100_000_000
Hook = Callable[[int], Any]


class Bench:
    """A robot on a bench: readings and proposals by the number of the tick, commands kept.

    `reading(n)` may change the n-th observation (return another or raise); `proposing(n)` may return
    the n-th action, or raise, or let time pass. None = the usual.
    """

    def __init__(self, profile: RobotProfile, reading: Hook | None = None, proposing: Hook | None = None) -> None:
        nimble = dict.fromkeys(
            ("max_acceleration_mps2", "max_deceleration_mps2", "max_angular_acceleration_radps2"), 100.0
        )
        profile = msgspec.structs.replace(profile, limits=msgspec.structs.replace(profile.limits, **nimble))
        self.profile, self.reading, self.proposing = profile, reading, proposing
        self.clock = VirtualClock()
        self.reads = self.proposals = self.episodes_begun = self.resets = 0
        self.written: list[tuple[float, Command]] = []
        self.orders: list[TimedCommand] = []
        self.executed_commands: list[Command] = []
        self.steps: list[Step] = []
        self.recorder = Recorder(profile, "r0", "b0", self.steps.append)

    def observation(self, distance: float = 5.0, *, contact: bool = False) -> Observation:
        arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.profile.observation_specs.items()}
        arrays["proprio"][5] = distance
        arrays["depth"][:] = 5000
        return Observation(arrays, self.clock.now_ns(), contact)

    def read(self) -> Observation:
        self.reads += 1
        changed = self.reading(self.reads - 1) if self.reading else None
        return self.observation() if changed is None else changed

    def begin_episode(self) -> None:
        self.episodes_begun += 1

    def write(self, order: TimedCommand) -> None:
        self.written.append((self.clock.now_ns() / 1e6, order.command))
        self.orders.append(order)

    def propose(self, observation: Observation) -> Action:
        self.proposals += 1
        changed = self.proposing(self.proposals - 1) if self.proposing else None
        return Action((0.5, 0.25), "scripted") if changed is None else changed

    def executed(self, command: Command) -> None:
        self.executed_commands.append(command)

    def reset(self) -> None:
        self.resets += 1

    def actor(self, driver: Any = None, **options: Any) -> Actor:
        gate = SafetyGate(self.profile)
        for tick in range(-14, 0):  # it has turned once about, and so has seen the floor around it
            seen = msgspec.structs.replace(self.observation(), captured_ns=tick * PERIOD_NS)
            seen.arrays["depth"][:] = 6000 + tick
            seen.arrays["proprio"][1] = math.pi / 6 / 0.1 if -14 < tick < -1 else 0.0
            gate.check(None, seen, tick * PERIOD_NS)
        return Actor(self.profile, self, self, driver or self, gate, self.recorder, self.clock, **options)

    def run(self, ticks: int, driver: Any = None, **options: Any) -> Actor:
        actor = self.actor(driver, **options)
        actor.run(threading.Event(), ticks=ticks)
        return actor

    @property
    def commands(self) -> list[tuple[float, ...]]:
        return [command.values for _, command in self.written]

    @property
    def times_ms(self) -> list[float]:
        return [time_ms for time_ms, _ in self.written]


def raises_at(tick: int, error: BaseException) -> Hook:
    def hook(n: int) -> None:
        if n == tick:
            raise error

    return hook


USUAL, STOP = (0.5, 0.25), (0.0, 0.0)


def test_a_tick_senses_proposes_gates_writes_and_records(mini: RobotProfile) -> None:
    bench = Bench(mini, proposing=lambda n: Action((9.0, 0.1), "policy"))
    actor = bench.actor()
    command = actor.tick()
    actor.tick()
    assert command == Command((0.6, 0.1), ("limits",)) == bench.written[0][1] == bench.executed_commands[0]
    (step,) = bench.steps
    assert step.record.action.values == (9.0, 0.1)
    assert step.record.command == command
    assert actor.errors == 0


def test_stamps_say_when_it_was_sensed_inferred_and_sent(mini: RobotProfile) -> None:
    bench = Bench(mini)
    bench.proposing = lambda n: bench.clock.advance_ns(30_000_000)
    bench.run(2)
    stamps = bench.steps[0].record.stamps
    assert (stamps.captured_ns, stamps.inferred_ns, stamps.acted_ns) == (0, 30_000_000, 30_000_000)


@pytest.mark.parametrize("error", [RuntimeError("x"), ValueError("x"), KeyError("x"), MemoryError(), IndexError()])
def test_an_exception_in_the_driver_stops_the_robot_for_that_tick_only(
    mini: RobotProfile, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(mini, proposing=raises_at(2, error))
    actor = bench.run(5)
    assert bench.commands == [USUAL, USUAL, STOP, USUAL, USUAL, STOP]
    assert bench.written[2][1].reasons == ("no-proposal",)
    assert actor.errors == 1
    assert [type(error).__name__ in record.getMessage() for record in caplog.records] == [True]
    assert caplog.records[0].levelno == logging.ERROR


@pytest.mark.parametrize("error", [OSError("unplugged"), TimeoutError(), ValueError("x"), KeyError("depth")])
def test_an_exception_in_the_source_stops_the_robot_for_that_tick_only(mini: RobotProfile, error: Exception) -> None:
    bench = Bench(mini, reading=raises_at(2, error))
    actor = bench.run(5)
    assert bench.commands == [USUAL, USUAL, STOP, USUAL, USUAL, STOP]
    assert actor.errors == 1


@pytest.mark.parametrize(
    "error",
    [RuntimeError("x"), IndexError("x"), ConnectionFailed("x"), VerificationError("x"), TypeError()],
)
def test_any_exception_in_the_source_stops_the_robot_for_that_tick_only(mini: RobotProfile, error: Exception) -> None:
    bench = Bench(mini, reading=raises_at(2, error))
    bench.run(5)
    assert bench.commands == [USUAL, USUAL, STOP, USUAL, USUAL, STOP]


def test_a_source_that_never_works_again_keeps_the_robot_standing(mini: RobotProfile) -> None:
    def broken(n: int) -> None:
        if n >= 2:
            raise OSError("gone")

    bench = Bench(mini, reading=broken)
    actor = bench.run(10)
    assert bench.commands == [USUAL] * 2 + [STOP] * 9
    assert actor.errors == 8


@pytest.mark.parametrize("index", range(6))
def test_a_reading_that_is_not_finite_stops_the_robot_for_that_tick_only(mini: RobotProfile, index: int) -> None:
    bench = Bench(mini)

    def broken(n: int) -> Observation | None:
        if n != 2:
            return None
        observation = bench.observation()
        observation.arrays["proprio"][index] = np.nan
        return observation

    bench.reading = broken
    bench.run(5)
    assert bench.commands == [USUAL, USUAL, STOP, USUAL, USUAL, STOP]


@pytest.mark.parametrize("proprio", [np.zeros(3, np.float32), np.zeros((6, 1), np.float32), np.full(6, np.nan, "f")])
def test_a_bad_observation_leaves_no_trace_in_the_recording(mini: RobotProfile, proprio: np.ndarray[Any, Any]) -> None:
    bench = Bench(mini)

    def broken(n: int) -> Observation | None:
        if n != 2:
            return None
        observation = bench.observation()
        observation.arrays["proprio"] = proprio
        return observation

    bench.reading = broken
    bench.run(6)
    assert bench.commands == [USUAL, USUAL, STOP, USUAL, USUAL, USUAL, STOP]
    assert len(bench.steps) >= 3
    for step in bench.steps:
        assert np.isfinite(step.record.reward)
        mini.observation_specs["proprio"].validate(step.observation["proprio"])


@pytest.mark.parametrize("failing", ["reading", "proposing"])
def test_the_step_after_a_failed_tick_says_that_something_is_missing(mini: RobotProfile, failing: str) -> None:
    bench = Bench(mini, **{failing: raises_at(3, OSError("x"))})
    bench.run(8)
    gaps = [(step.record.stamps.captured_ns // PERIOD_NS, step.record.gap) for step in bench.steps]
    assert dict(gaps)[4]
    assert [tick for tick, gap in gaps if gap] == [4]


def test_a_frozen_sensor_stops_the_robot_after_its_timeout(mini: RobotProfile) -> None:
    bench = Bench(mini)
    frozen = bench.observation()
    bench.reading = lambda n: frozen
    bench.run(6)
    assert bench.commands == [USUAL] * 3 + [STOP] * 4  # 0, 100 and 200 ms old, then older than 0.2 s
    assert bench.written[3][1].reasons == ("stale",)


def test_a_driver_that_thinks_longer_than_the_timeout_does_not_move_the_robot(mini: RobotProfile) -> None:
    bench = Bench(mini)
    bench.proposing = lambda n: bench.clock.advance_ns(300_000_001)
    bench.run(3)
    assert bench.commands == [STOP] * 4


def test_the_run_ends_with_a_zero_command_when_it_is_stopped(mini: RobotProfile) -> None:
    stop = threading.Event()
    bench = Bench(mini, proposing=lambda n: stop.set() if n == 2 else None)
    bench.actor().run(stop)
    assert bench.commands == [USUAL] * 3 + [STOP]
    assert bench.written[-1][1].reasons == ("shutdown",)


def test_a_stopped_run_does_not_even_begin(mini: RobotProfile) -> None:
    stop = threading.Event()
    stop.set()
    bench = Bench(mini)
    bench.actor().run(stop)
    assert bench.commands == [STOP]
    assert bench.reads == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_the_run_ends_with_a_zero_command_when_it_is_interrupted(mini: RobotProfile, error: BaseException) -> None:
    bench = Bench(mini, proposing=raises_at(2, error))
    with pytest.raises(type(error)):
        bench.run(5)
    assert bench.commands == [USUAL, USUAL, STOP]


def test_the_run_ends_with_a_zero_command_when_something_between_ticks_fails(mini: RobotProfile) -> None:
    def between_ticks() -> None:
        if bench.proposals == 2:
            raise RuntimeError("x")

    bench = Bench(mini)
    with pytest.raises(RuntimeError):
        bench.run(5, between_ticks=between_ticks)
    assert bench.commands == [USUAL, USUAL, STOP]


def test_ticks_come_at_the_profiles_rate(mini: RobotProfile) -> None:
    bench = Bench(mini)
    bench.clock.advance_ns(7)
    bench.proposing = lambda n: bench.clock.advance_ns(n * 10_000_000)  # 0 to 90 ms of work
    report = bench.run(10).report()
    assert bench.times_ms[:10] == pytest.approx([100 * n + 10 * n + 7e-6 for n in range(10)])
    assert (report.ticks, report.missed) == (10, 0)
    assert report.lateness_max_ms == 0
    assert (report.work_p50_ms, report.work_max_ms) == (pytest.approx(45.0), pytest.approx(90.0))


def test_the_rate_is_the_profiles(mini: RobotProfile) -> None:
    rates = msgspec.structs.replace(mini.rates, control_hz=25.0)
    bench = Bench(msgspec.structs.replace(mini, rates=rates))
    bench.run(4)
    assert bench.times_ms[:4] == [0, 40, 80, 120]


def test_after_a_long_tick_the_next_is_done_at_once_and_the_missed_one_skipped(mini: RobotProfile) -> None:
    bench = Bench(mini)
    bench.proposing = lambda n: bench.clock.advance_ns(5 * PERIOD_NS // 2) if n == 1 else None
    report = bench.run(6).report()
    # The tick of 100 ms is written at 350. That of 200 is skipped, that of 300 is done at 350, then the rate is kept.
    assert bench.times_ms == [0, 350, 350, 400, 500, 600, 600]
    assert report.ticks == 6
    assert report.lateness_max_ms == pytest.approx(50.0)
    assert report.work_max_ms == pytest.approx(250.0)


@pytest.mark.parametrize(("periods", "skipped"), [(1.5, 0), (2.5, 1), (4.25, 3)])
def test_missed_counts_the_ticks_that_were_skipped(mini: RobotProfile, periods: float, skipped: int) -> None:
    bench = Bench(mini)
    bench.proposing = lambda n: bench.clock.advance_ns(round(periods * PERIOD_NS)) if n == 1 else None
    report = bench.run(10).report()
    slots = round(bench.times_ms[9] / 100) + 1  # ten ticks and those left out
    assert slots - 10 == skipped
    assert report.missed == skipped


def test_a_report_without_ticks_is_all_zeros(mini: RobotProfile) -> None:
    report = Bench(mini).actor().report()
    assert set(msgspec.to_builtins(report).values()) == {0}


def test_a_disturbance_is_driven_while_the_recorded_action_stays_the_teachers(mini: RobotProfile) -> None:
    bench = Bench(mini)
    disturbed = iter([(0.1, -0.5), (9.0, 0.0), (0.5, 0.25)])
    bench.run(4, disturb=lambda action: next(disturbed, action.values))
    records = [step.record for step in bench.steps]
    assert [record.action for record in records] == [Action(USUAL, "scripted")] * 3
    assert [record.command for record in records] == [
        Command((0.1, -0.5), ("disturbed",)),
        Command((0.6, 0.0), ("disturbed", "limits")),  # the gate comes after the disturbance
        Command(USUAL, ()),
    ]
    assert bench.executed_commands[:2] == [records[0].command, records[1].command]


def test_the_end_of_an_episode_begins_the_next_in_the_same_tick(mini: RobotProfile) -> None:
    profile = msgspec.structs.replace(mini, episode=EpisodeRules(max_steps=3))
    bench = Bench(profile)
    bench.run(7)
    # Looks 0..3 belong to the first episode: the fourth tick sees its end, then looks again.
    assert (bench.episodes_begun, bench.resets, bench.reads) == (2, 2, 9)
    assert bench.commands == [USUAL] * 7 + [STOP]
    assert [step.record.index for step in bench.steps] == [0, 1, 2, 0, 1, 2]
    assert [step.record.truncated for step in bench.steps] == [False, False, True] * 2


def make_bundle(profile: RobotProfile, version: int, *, answer: float | None = None) -> Bundle:
    """Return a real bundle; with `answer`, one whose network always answers that."""
    torch.manual_seed(version)
    network = make_network("spatial", profile)
    bundle = export_bundle(
        network,
        profile,
        profile.nominal_normalizer,
        network_name="spatial",
        version=version,
        noise_hold_ticks=1,
        observations=probe_features(profile, 1),
        training={},
    )
    if answer is None:
        return bundle
    with torch.no_grad():
        network.actor["head"][-1].bias.fill_(answer)
    data = export_onnx(network, profile, version=version)
    return build_bundle(bundle.manifest, {NETWORK_NAME: data})


class Direct:
    """Drives with one policy, warmed up by nobody."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def propose(self, observation: Observation) -> Action:
        return self.policy.act(observation)

    def executed(self, command: Command) -> None:
        pass

    def reset(self) -> None:
        pass


@pytest.fixture
def nan_driver(mini: RobotProfile, tmp_path: Path) -> Direct:
    return Direct(Policy.load(Store(tmp_path).add(make_bundle(mini, 1, answer=float("nan"))), mini))


def test_a_policy_that_answers_nan_makes_the_robot_stand_and_the_loop_go_on(
    mini: RobotProfile, nan_driver: Direct
) -> None:
    bench = Bench(mini)
    bench.run(5, driver=nan_driver)
    assert bench.commands == [STOP] * 6
    assert len(bench.times_ms) == 6


def test_a_policy_that_answers_nan_is_reported(
    mini: RobotProfile, nan_driver: Direct, caplog: pytest.LogCaptureFixture
) -> None:
    actor = Bench(mini).run(5, driver=nan_driver)
    assert actor.errors == 5
    assert caplog.records


def test_a_policy_is_swapped_between_two_ticks(mini: RobotProfile, tmp_path: Path) -> None:
    store = Store(tmp_path)
    bundles = [store.add(make_bundle(mini, version)) for version in (1, 2)]
    store.activate(bundles[0])
    slot = PolicySlot(tmp_path, mini)
    # The new policy arrives in the middle of the fourth tick.
    bench = Bench(mini, reading=lambda n: store.activate(bundles[1]) if n == 3 else None)
    driver = PolicyDriver(slot, 2)
    actor = bench.run(8, driver=driver, between_ticks=lambda: slot.follow(wait=True))
    behaviours = [step.record.action.behaviour for step in bench.steps]
    assert [behaviour.policy_version for behaviour in behaviours if behaviour] == [1, 1, 1, 1, 2, 2, 2]
    assert len({behaviour.policy_digest for behaviour in behaviours if behaviour}) == 2
    assert all(command != STOP for command in bench.commands[:8])
    assert bench.times_ms[:8] == [100.0 * n for n in range(8)]
    assert (slot.swaps, actor.errors) == (1, 0)
    slot.close()


def test_an_exploring_policy_driver_draws_new_noise_for_a_new_episode(mini: RobotProfile, tmp_path: Path) -> None:
    slot = PolicySlot(Store(tmp_path).add(make_bundle(mini, 1).revised(noise_hold_ticks=100)), mini)
    bench = Bench(mini)
    exploring = PolicyDriver(slot, 2, np.random.default_rng(0))
    first, held = exploring.propose(bench.observation()), exploring.propose(bench.observation())
    exploring.reset()
    fresh = exploring.propose(bench.observation())
    calm = PolicyDriver(slot, 2)
    assert first == held
    assert fresh != held
    assert calm.propose(bench.observation()) == calm.propose(bench.observation()) != first
    slot.close()


# -- who may move the robot -------------------------------------------------------------------

LIMITS = ArmingLimits(healthy_ticks=3, unhealthy_ticks=2)


def test_a_robot_that_nobody_armed_stands_still_and_records_nothing(mini: RobotProfile) -> None:
    bench = Bench(mini)
    bench.run(6, arming=ArmingSwitch(LIMITS))
    assert bench.commands == [STOP] * 7
    assert {command.reasons for _, command in bench.written[:6]} == {("disarmed",)}
    assert (bench.proposals, bench.steps) == (0, [])


def test_an_armed_robot_drives_from_the_next_tick_on_and_a_stop_wins_within_one(mini: RobotProfile) -> None:
    switch = ArmingSwitch(LIMITS)
    doings = {3: switch.arm, 6: lambda: switch.stop(held=True)}
    bench = Bench(mini, reading=lambda n: doings[n]() if n in doings else None)
    bench.run(9, arming=switch)
    assert bench.commands[:9] == [STOP] * 3 + [USUAL] * 3 + [STOP] * 3
    assert bench.written[6][1].reasons == ("tripped",)


def test_a_person_takes_over_within_a_tick_is_recorded_as_such_and_hands_back(mini: RobotProfile) -> None:
    switch = ArmingSwitch(LIMITS)
    by_hand = Action((0.2, -0.1), "human")
    bench = Bench(mini, reading=lambda n: switch.arm() if n == 3 else None)
    ticks = iter(range(100))
    bench.run(10, arming=switch, human=lambda: by_hand if 5 <= next(ticks) < 8 else None)
    assert bench.commands[3:10] == [USUAL] * 2 + [by_hand.values] * 3 + [USUAL] * 2
    assert [step.record.intervention for step in bench.steps] == ["", "", "start", "hold", "hold", "stop"]
    assert len(bench.executed_commands) == 4  # the driver hears of what it proposed itself


@pytest.mark.parametrize("what", ["raises", "nan"])
def test_a_driver_that_fails_for_a_second_trips_the_robot(mini: RobotProfile, what: str) -> None:
    switch = ArmingSwitch(LIMITS, arm_once=True)
    nowhere = Action((math.nan, 0.0), "policy")
    bench = Bench(mini, proposing=raises_always(ValueError("x")) if what == "raises" else lambda n: nowhere)
    bench.run(12, arming=switch)
    assert bench.commands == [STOP] * 13
    assert (switch.now.state, switch.now.reason) == ("tripped", "no healthy input")


def raises_always(error: Exception) -> Hook:
    def hook(n: int) -> None:
        raise error

    return hook


def test_a_loop_that_hangs_in_real_time_is_stopped_and_what_it_wanted_is_not_driven(mini: RobotProfile) -> None:
    switch = ArmingSwitch(LIMITS, arm_once=True)

    def hang(n: int) -> None:
        if n == 2:
            time.sleep(1.2)

    bench = Bench(mini, proposing=hang)
    bench.clock = MonotonicClock()  # type: ignore[assignment]
    bench.run(8, arming=switch)
    reasons = [command.reasons for _, command in bench.written]
    hung = reasons.index(("late",))
    assert reasons[hung + 1] == ("the control loop hangs",)
    assert bench.commands[hung : hung + 3] == [STOP] * 3
    assert reasons[hung + 2] == ("halted",)
    before_ms, stopped_ms = bench.times_ms[hung - 1], bench.times_ms[hung]
    assert stopped_ms - before_ms > 250  # a tick later it should have written, two ticks later it is stopped
    assert switch.now.state == "tripped"
    assert bench.commands[-1] == STOP
