"""The learner on recorded journals: what it ships, what it leaves behind, and that it can be interrupted."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tests.learn.training import SETTINGS, Place, change, recording, stops_at

from policyloop.bundle.verify import open_bundle
from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile, Stream
from policyloop.core.step import Observation, Step
from policyloop.errors import ConfigError, PolicyloopError, StorageError
from policyloop.learn import on_policy
from policyloop.learn.algorithm import Lesson
from policyloop.learn.checkpoint import latest_checkpoint, load_checkpoint
from policyloop.learn.on_policy import OnPolicy
from policyloop.learn.ppo import PpoSettings
from policyloop.learn.reporter import Progress
from policyloop.learn.tuning import Execution
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.robot.actor import Actor
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.io import Driver
from policyloop.robot.recorder import Recorder
from policyloop.runtime.policy import Policy
from policyloop.runtime.reload import PolicySlot
from policyloop.safety.gate import SafetyGate
from policyloop.sim.driver import ScriptedDriver
from policyloop.sim.robot import Bursts, SimulatedRobot
from policyloop.wire.codec import encode_step

Drive = Callable[..., Step]
Write = Callable[..., Journal]


# -- from a recording to policies -------------------------------------------------------------


def test_a_recording_becomes_policies_and_checkpoints(journal: Journal, place: Place, blind: RobotProfile) -> None:
    learner = place.learner(journal)
    learner.run()
    # the clone and six updates
    assert learner.version == 7
    bundles = [open_bundle(path, blind).manifest for path in place.store.versions()]
    assert [manifest.version for manifest in bundles] == [1, 2, 3, 4, 5, 6, 7]
    assert place.store.current is not None
    assert open_bundle(place.store.current, blind).manifest.version == 7
    assert place.updates() == [0, 2, 4, 6]
    sources = [record.action.source for record in journal.headers()]
    assert bundles[0].training["demonstrations"] == sources.count("scripted") + sources.count("human") > 64
    assert bundles[-1].training["update"] == 6
    assert bundles[-1].training["steps"] == learner.ledger["trained"]
    assert max(manifest.parity.max_abs_error for manifest in bundles) <= 1e-5


def test_every_step_up_to_the_last_rollout_is_accounted_for(journal: Journal, place: Place) -> None:
    learner = place.learner(journal)
    learner.run()
    checkpoint = latest_checkpoint(place.checkpoints)
    assert checkpoint is not None
    feed = checkpoint.state.feed
    assert sum(feed.ledger.values()) == feed.position > 300
    assert feed.ledger == {name: count for name, count in learner.ledger.items() if count}
    assert feed.ledger["gap"] == 1


def test_steps_of_the_clone_are_too_old_after_the_first_update_if_no_lag_is_allowed(
    journal: Journal, place: Place, tmp_path: Path
) -> None:
    """Every step was driven by policy 1, the clone."""
    place.learner(journal).run()
    strict = Place(tmp_path / "strict")
    learner = strict.learner(journal, change(max_staleness=0))
    learner.run()
    assert learner.version == 2
    assert learner.ledger["too-old"] > 250
    assert learner.ledger["trained"] < 60


def test_phases_follow_one_another(journal: Journal, place: Place) -> None:
    phases: list[str] = []
    place.learner(journal, report=lambda progress: phases.append(progress.phase)).run()
    assert list(dict.fromkeys(phases)) == ["waiting", "cloning", "updating", "finished"]
    assert phases.count("updating") == 6


def test_the_learning_rate_falls_towards_its_floor(journal: Journal, place: Place) -> None:
    ppo = PpoSettings(learning_rate=1e-3, learning_rate_floor=0.1, critic_warmup_updates=0, desired_kl=1e6)
    place.learner(journal, change(ppo=ppo)).run()
    # desired_kl is so large that the rate always wants to grow; only the schedule holds it
    rates = [line["learning_rate"] for line in place.lines()[1:]]
    assert rates[-3:] == pytest.approx([1e-3 * (1 - 0.9 * done / 6) for done in (3, 4, 5)])


def test_the_exploration_narrows_along_the_schedule(journal: Journal, place: Place) -> None:
    ppo = PpoSettings(
        initial_log_std=-0.5, final_log_std=-2.0, entropy_weight=1.0, critic_warmup_updates=0, min_effective=0.0
    )
    place.learner(journal, change(ppo=ppo)).run()
    # the entropy bonus is so large that exploration always wants to grow; only the schedule holds it
    deviations = [line["std"] for line in place.lines()[1:]]
    assert deviations[1:] == pytest.approx([np.exp(-0.5 - 1.5 * done / 6) for done in range(1, 6)], rel=1e-5)


def test_cloning_alone_ends_after_the_clone(journal: Journal, place: Place) -> None:
    learner = place.learner(journal, change(learner="bc"))
    learner.run()
    assert learner.version == 1
    assert place.updates() == [0]
    assert sum(learner.ledger.values()) == 0


def test_demonstrations_alone_leave_the_clone_as_it_is_and_say_so(
    blind: RobotProfile, drive: Drive, write_journal: Write, place: Place
) -> None:
    steps = [drive(i, source="human" if i % 2 else "scripted") for i in range(200)]
    learner = place.learner(write_journal(blind, steps))
    with pytest.raises(ConfigError, match="holds 0 steps to learn from, the first update takes 50") as caught:
        learner.run()
    assert "--learner bc" in caught.value.remedy
    assert learner.version == 1
    assert place.updates() == [0]
    assert learner.ledger == {"demonstration": 200}


def test_without_demonstrations_an_untrained_policy_is_shipped_first(journal: Journal, place: Place) -> None:
    learner = place.learner(journal, change(demonstrations=0, total_updates=2))
    learner.run()
    assert learner.version == 3
    assert [line["version"] for line in place.lines()] == [2, 3]


def test_a_journal_without_the_wanted_demonstrations_says_what_to_do(
    blind: RobotProfile, drive: Drive, write_journal: Write, place: Place
) -> None:
    with pytest.raises(ConfigError, match="no demonstrations, 64 are wanted") as caught:
        place.learner(write_journal(blind, [drive(i) for i in range(5)])).run()
    assert caught.value.exit_code == 3
    assert "--demonstrations 0" in caught.value.remedy


def test_fewer_demonstrations_than_wanted_are_cloned_all_the_same(
    blind: RobotProfile, drive: Drive, write_journal: Write, place: Place
) -> None:
    journal = write_journal(blind, [drive(i, source="human") for i in range(20)])
    learner = place.learner(journal, change(learner="bc"))
    learner.run()
    assert learner.version == 1


def test_a_rollout_smaller_than_the_number_of_robots_is_learned_from(
    blind: RobotProfile, drive: Drive, write_journal: Write, place: Place
) -> None:
    journal = write_journal(blind, recording(drive, robots=8, length=60))
    learner = place.learner(journal, change(update_interval=8, total_updates=3))
    learner.run()
    assert learner.version == 4


def test_the_last_update_of_a_recording_is_in_a_checkpoint(journal: Journal, place: Place) -> None:
    learner = place.learner(journal, change(total_updates=0, checkpoint_interval=100))
    learner.run()
    assert place.updates()[-1] == learner.version - 1 > 0


# -- going on ---------------------------------------------------------------------------------


def test_equal_runs_give_equal_networks_and_other_seeds_others(journal: Journal, tmp_path: Path) -> None:
    prints = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        place = Place(tmp_path / name)
        place.learner(journal, change(seed=seed, total_updates=3)).run()
        prints.append(place.fingerprint())
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("after", [1, 4])
def test_a_learner_that_was_stopped_goes_on_bit_for_bit(
    after: int, journal: Journal, place: Place, tmp_path: Path
) -> None:
    place.learner(journal).run()
    halves, stop = Place(tmp_path / "halves"), threading.Event()
    first = halves.learner(journal, stop=stop, report=stops_at(stop, after))
    first.run()
    assert first.version == 1 + after
    assert halves.updates()[-1] == after
    assert halves.fingerprint() != place.fingerprint()
    second = halves.learner(journal, resume=True)
    second.run()
    assert second.version == 7
    assert halves.fingerprint() == place.fingerprint()
    assert second.ledger == latest_ledger(place)


def latest_ledger(place: Place) -> dict[str, int]:
    checkpoint = latest_checkpoint(place.checkpoints)
    assert checkpoint is not None
    return checkpoint.state.feed.ledger


def test_a_learner_that_was_killed_goes_on_from_its_last_checkpoint_bit_for_bit(journal: Journal, place: Place) -> None:
    place.learner(journal).run()
    expected = place.fingerprint()
    shutil.rmtree(place.checkpoints / "000006")  # as if killed in update 5, with the store two policies ahead
    shutil.rmtree(place.checkpoints / "000004")
    learner = place.learner(journal, resume=True)
    learner.run()
    assert place.updates() == [0, 2, 4, 6]
    assert place.fingerprint() == expected
    versions = [int(path.name.partition("-")[0]) for path in place.store.versions()]
    assert versions == list(range(1, 8))  # the repeated updates make the very policies that robots have already
    assert learner.version == 7
    assert place.store.current == place.store.find(7)


def test_a_gpu_that_disappears_costs_what_came_after_the_last_checkpoint(
    journal: Journal, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Place(tmp_path / "undisturbed")
    undisturbed.learner(journal).run()
    update, calls = on_policy.ppo_update, iter(range(100))

    def disappears(*arguments: Any, **more: Any) -> dict[str, float]:
        if next(calls) == 3:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return update(*arguments, **more)

    monkeypatch.setattr(on_policy, "ppo_update", disappears)
    with pytest.raises(PolicyloopError, match="the GPU failed: CUDA error: device-side assert") as caught:
        place.learner(journal).run()
    assert caught.value.exit_code == 1
    assert place.updates() == [0, 2]
    place.learner(journal, resume=True).run()
    assert place.fingerprint() == undisturbed.fingerprint()


def test_a_learner_of_three_robots_goes_on_bit_for_bit(
    blind: RobotProfile, drive: Drive, write_journal: Write, place: Place, tmp_path: Path
) -> None:
    journal = write_journal(blind, recording(drive, robots=3))
    place.learner(journal).run()
    pieces = Place(tmp_path / "pieces")
    for after in range(1, 7):
        stop = threading.Event()
        pieces.learner(journal, resume=after > 1, stop=stop, report=stops_at(stop, after)).run()
    assert pieces.updates()[-1] == place.updates()[-1] == 6
    assert pieces.fingerprint() == place.fingerprint()


@pytest.fixture
def helped(blind: RobotProfile, drive: Drive, tmp_path: Path) -> Iterator[Journal]:
    """A journal that was cloned from when it held 64 demonstrations; then a teacher helped, always to the left."""
    journal = Journal(tmp_path / "helped", blind, writable=True)
    for step in recording(drive, length=0):
        journal.append(encode_step(step, blind))
    Place(tmp_path / "run").learner(journal, change(learner="bc")).run()
    for step in recording(drive, length=400):
        if step.record.action.source == "human":
            action = msgspec.structs.replace(step.record.action, values=(0.0, 1.9))
            step = msgspec.structs.replace(step, record=msgspec.structs.replace(step.record, action=action))
        if step.record.robot != "teacher":
            journal.append(encode_step(step, blind))
    yield journal
    journal.close()


def test_what_a_teacher_shows_after_the_clone_pulls_the_policy_there(
    helped: Journal, place: Place, blind: RobotProfile, tmp_path: Path
) -> None:
    turns = {}
    for weight in (0.0, 10.0):
        one = Place(tmp_path / f"weight-{weight}")
        shutil.copytree(place.checkpoints, one.checkpoints)
        ppo = msgspec.structs.replace(SETTINGS.ppo, intervention_weight=weight, learning_rate=3e-3)
        one.learner(helped, change(ppo=ppo), resume=True).run()
        assert one.store.current is not None
        policy = Policy.load(one.store.current, blind)
        seen = {"proprio": np.array([0.0, 0.0, 2.0, 0.0], np.float32)}
        turns[weight] = policy.act(Observation(seen, 0)).values[1]
        policy.close()
    assert turns[10.0] > turns[0.0] + 0.3


def test_a_learner_that_was_helped_goes_on_bit_for_bit(helped: Journal, place: Place, tmp_path: Path) -> None:
    pieces = Place(tmp_path / "pieces")
    shutil.copytree(place.checkpoints, pieces.checkpoints)
    place.learner(helped, resume=True).run()
    for after in range(1, 7):
        stop = threading.Event()
        pieces.learner(helped, resume=True, stop=stop, report=stops_at(stop, after)).run()
    assert pieces.updates()[-1] == place.updates()[-1] == 6
    assert pieces.fingerprint() == place.fingerprint()


def test_going_on_does_not_clone_again(journal: Journal, place: Place) -> None:
    place.learner(journal, change(learner="bc")).run()
    expected = place.fingerprint()
    learner = place.learner(journal, change(learner="bc"), resume=True)
    learner.run()
    assert learner.version == 1
    assert place.fingerprint() == expected


# -- killed -----------------------------------------------------------------------------------


LEARN = """
from policyloop.bundle.store import Store
from policyloop.learn.learner import Learner
from policyloop.link.journal import Journal
Learner(
    Journal(journal),
    settings,
    checkpoints=root / "checkpoints",
    store=Store(root / "store"),
    runs=root / "runs",
    resume=True,
    report=lambda progress: report((progress.phase, progress.update)),
).run()
"""


def all_that_is_learned(place: Place) -> tuple[Any, ...]:
    """Return what the newest checkpoint holds, but for the time it took and the numbers of policies."""
    checkpoint = latest_checkpoint(place.checkpoints)
    assert checkpoint is not None
    state = checkpoint.state
    return state.update, state.tensors_sha256, state.normalizer, state.feed, state.cloned, state.demonstrations_until


def test_a_learner_that_is_killed_twenty_times_learns_the_same_bit_for_bit(
    blind: RobotProfile,
    drive: Drive,
    write_journal: Write,
    begin: Callable[..., tuple[BaseProcess, Connection]],
    place: Place,
    tmp_path: Path,
) -> None:
    journal = write_journal(blind, recording(drive, length=3500))  # more than twenty kills get through
    settings = change(update_interval=20, total_updates=160, max_staleness=80)  # steps grow stale on the way
    started_s = time.monotonic()
    place.learner(journal, settings).run()
    update_s = (time.monotonic() - started_s) / settings.total_updates
    killed, rng = Place(tmp_path / "killed"), np.random.default_rng(0)
    for kill in range(20):
        begun = max(killed.updates(), default=0) + kill % 4
        child, reports = begin(LEARN, journal=tmp_path / "journal-0", settings=settings, root=tmp_path / "killed")
        with reports:
            while reports.recv() != ("updating", begun):
                pass
            time.sleep(rng.uniform(0, 1.5 * update_s))
            child.kill()
            child.join()
        assert child.exitcode == -signal.SIGKILL
        child.close()
    assert 20 <= killed.updates()[-1] < settings.total_updates
    killed.learner(journal, settings, resume=True).run()
    assert all_that_is_learned(killed) == all_that_is_learned(place)


# -- a full disk ------------------------------------------------------------------------------


def between(first: int, last: int, context: Any, entered: ExitStack) -> Callable[[Progress], None]:
    """Return a report that enters a context before update number `first` and leaves it before the one after `last`."""

    def report(progress: Progress) -> None:
        if (progress.phase, progress.update) == ("updating", first - 1):
            entered.enter_context(context)
        if (progress.phase, progress.update) == ("updating", last):
            entered.close()

    return report


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # tensorboard's thread
def test_a_full_disk_is_an_alarm_and_training_goes_on(
    journal: Journal,
    place: Place,
    tmp_path: Path,
    full_disk: Callable[[int], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    place.learner(journal).run()
    hindered = Place(tmp_path / "hindered")
    with ExitStack() as full:
        learner = hindered.learner(journal, report=between(2, 2, full_disk(0), full))
        learner.run()
    alarms = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [text.partition(",")[0].partition(" to ")[0] for text in alarms] == [
        "robots keep policy 2",
        "cannot write the numbers of training",
        "update 2 is in no checkpoint",
    ]
    assert hindered.updates() == [0, 3, 4, 6]  # tried again at once
    assert all_that_is_learned(hindered) == all_that_is_learned(place)
    assert learner.version == hindered.store.newest_version == 6  # one was never shipped
    assert len(hindered.lines()) == 7
    assert len(hindered.scalars()["train/value_loss"]) == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # tensorboard's thread
def test_a_disk_that_is_full_to_the_end_fails_and_costs_what_came_after_the_last_checkpoint(
    journal: Journal, place: Place, tmp_path: Path, full_disk: Callable[[int], Any]
) -> None:
    place.learner(journal).run()
    hindered = Place(tmp_path / "hindered")
    with ExitStack() as full, pytest.raises(StorageError, match="cannot write checkpoint"):
        hindered.learner(journal, report=between(4, 6, full_disk(0), full)).run()
    assert hindered.updates() == [0, 2]
    assert hindered.store.newest_version == 4
    hindered.learner(journal, resume=True).run()
    assert all_that_is_learned(hindered) == all_that_is_learned(place)


# -- beside a gateway -------------------------------------------------------------------------


@pytest.fixture
def live(blind: RobotProfile, drive: Drive, tmp_path: Path) -> Iterator[tuple[Journal, Gateway]]:
    """A journal that a gateway may still fill, with data for a clone and a few updates."""
    journal = Journal(tmp_path / "live", blind, writable=True)
    for step in recording(drive, length=200):
        journal.append(encode_step(step, blind))
    gateway = Gateway(journal, blind, "tcp://127.0.0.1:*")
    gateway.start()
    yield journal, gateway
    gateway.close()
    journal.close()


def stops_when(event: threading.Event, phase: str, update: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.phase == phase and progress.update >= update:
            event.set()

    return report


def test_a_learner_that_waits_for_demonstrations_can_be_stopped(live: tuple[Journal, Gateway], place: Place) -> None:
    journal, gateway = live
    stop = threading.Event()
    settings = change(demonstrations=10_000)
    learner = place.learner(journal, settings, gateway=gateway, stop=stop, report=stops_when(stop, "waiting", 0))
    learner.run()
    assert learner.version == 0
    assert place.updates() == []


def test_a_learner_that_is_stopped_while_it_clones_ends_at_once_and_can_begin_again(
    journal: Journal, place: Place
) -> None:
    stop = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        place.learner(journal, stop=stop, report=stops_when(stop, "cloning", 0)).run()
    assert place.updates() == []
    assert place.store.current is None
    place.learner(journal).run()
    assert place.updates()


def test_a_learner_that_is_stopped_while_it_collects_leaves_a_checkpoint(
    live: tuple[Journal, Gateway], place: Place
) -> None:
    journal, gateway = live
    stop = threading.Event()
    settings = change(checkpoint_interval=100, total_updates=0)
    learner = place.learner(journal, settings, gateway=gateway, stop=stop, report=stops_when(stop, "collecting", 1))
    learner.run()
    assert learner.version >= 2
    assert place.updates()[-1] == learner.version - 1


@pytest.mark.parametrize("robots", [1, 3])
def test_a_learner_that_is_stopped_while_it_collects_goes_on_bit_for_bit(
    robots: int, blind: RobotProfile, drive: Drive, tmp_path: Path
) -> None:
    """What was read for the rollout that never came about is read again."""
    steps = list(recording(drive, robots=robots))
    settings = change(update_interval=50 * robots)

    def trained(name: str, *, stopped: bool) -> str:
        place, stop = Place(tmp_path / name), threading.Event()
        journal = Journal(tmp_path / name / "journal", blind, writable=True)
        gateway = Gateway(journal, blind, "tcp://127.0.0.1:*")
        gateway.start()
        rest = iter(steps[: len(steps) // 2]), iter(steps[len(steps) // 2 :])

        def arrive(half: int) -> None:
            for step in rest[half]:
                journal.append(encode_step(step, blind))

        def report(progress: Progress) -> None:
            if progress.phase == "collecting" and progress.update >= 1:
                stop.set() if stopped else arrive(1)

        try:
            arrive(0)
            place.learner(journal, settings, gateway=gateway, stop=stop, report=report).run()
            if stopped:
                assert 1 <= place.updates()[-1] < 6
                arrive(1)
                place.learner(journal, settings, gateway=gateway, resume=True).run()
        finally:
            gateway.close()
            journal.close()
        assert place.updates()[-1] == 6
        return place.fingerprint()

    assert trained("stopped", stopped=True) == trained("steady", stopped=False)


def test_the_time_budget_ends_a_learner_that_gets_no_more_steps(live: tuple[Journal, Gateway], place: Place) -> None:
    journal, gateway = live
    learner = place.learner(journal, change(total_updates=0, time_budget_s=0.5), gateway=gateway)
    learner.run()
    assert learner.version >= 1


# -- with a simulated robot -------------------------------------------------------------------


def record(journal: Journal, driver: Driver, steps: int, seed: int, *, disturb: bool = False) -> None:
    """Let one simulated robot drive into the journal."""
    profile, rng, clock = journal.profile, np.random.default_rng(seed), VirtualClock()
    robot = SimulatedRobot(profile, range(8), rng, clock)

    def emit(step: Step) -> None:
        journal.append(encode_step(step, profile))

    recorder = Recorder(profile, f"robot-{seed}", "boot", emit)
    bursts = Bursts(profile, rng) if disturb else None
    actor = Actor(profile, robot, robot, driver, SafetyGate(profile, "limits"), recorder, clock, disturb=bursts)
    for _ in range(steps + 1):
        actor.tick()


@pytest.mark.parametrize(("encoding", "largest_kl"), [("raw", 1e-6), ("jpeg", 1e-3)])
def test_at_lag_zero_the_learner_sees_the_robots_own_distribution(
    encoding: str, largest_kl: float, mini: RobotProfile, place: Place, tmp_path: Path
) -> None:
    """Record, clone, ship, drive, learn: the policy that the robot ran from ONNX is the learner's own."""
    profile = msgspec.structs.replace(mini, stream=Stream(rgb_encoding=encoding))
    journal = Journal(tmp_path / "sim", profile, writable=True)
    try:
        record(journal, ScriptedDriver(profile), 150, 0, disturb=True)
        settings = change(
            network="spatial",
            execution=Execution(),  # in float32, as on the robot
            demonstrations=150,
            update_interval=128,
            total_updates=1,
            ppo=PpoSettings(epochs=1, minibatch=1000, critic_warmup_updates=0),
        )
        place.learner(journal, msgspec.structs.replace(settings, learner="bc")).run()
        slot = PolicySlot(place.store.directory, profile)
        record(journal, PolicyDriver(slot, 2, np.random.default_rng(1)), 130, 1)
        slot.close()
        learner = place.learner(journal, msgspec.structs.replace(settings, max_staleness=0), resume=True)
        learner.run()
    finally:
        journal.close()
    assert learner.version == 2
    assert learner.ledger["trained"] >= 120
    statistics = place.lines()[-1]
    assert statistics["approx_kl"] < largest_kl
    assert statistics["clipfrac"] == 0.0
    before, after = (load_checkpoint(place.checkpoints / name) for name in ("000000", "000001"))
    assert not np.array_equal(before.tensors["network.log_std"].numpy(), after.tensors["network.log_std"].numpy())


# -- numbers that are not finite --------------------------------------------------------------


def poisoned(times: int, monkeypatch: pytest.MonkeyPatch, after: int = 1) -> None:
    """Let so many updates leave a weight that is not a number, beginning after so many good ones."""
    real, calls = OnPolicy.learn, iter(range(100))

    def learn(self: OnPolicy, update: int, done: float) -> Lesson:
        lesson = real(self, update, done)
        if after <= next(calls) < after + times:
            with torch.no_grad():
                self._network.log_std[0] = float("nan")
        return lesson

    monkeypatch.setattr(OnPolicy, "learn", learn)


def test_an_update_that_is_not_finite_is_undone_and_kept_to_be_looked_at(
    journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poisoned(1, monkeypatch)
    learner = place.learner(journal)
    learner.run()
    assert "update 2 gave numbers that are not finite and was undone" in caplog.text
    checkpoint = latest_checkpoint(place.checkpoints)
    assert checkpoint is not None
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.tensors.values())
    quarantined = load_checkpoint(place.checkpoints / "quarantine" / "000001")
    assert quarantined.state.update == 1  # what it was before, with the random numbers that were drawn
    assert learner.version == 1 + checkpoint.state.update == 7


def test_the_third_in_a_row_stops_the_learner_with_the_last_good_policy(
    journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(3, monkeypatch)
    learner = place.learner(journal)
    with pytest.raises(PolicyloopError, match=r"3 updates in a row .* robots keep policy 2") as caught:
        learner.run()
    assert caught.value.exit_code == 1
    assert "quarantine" in caught.value.remedy
    assert place.updates() == [0, 1]
    assert place.store.current == place.store.find(2)


def test_two_in_a_row_are_borne_and_forgotten(journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(2, monkeypatch)
    place.learner(journal).run()
    assert place.updates()[-1] == 5  # the recording had steps for seven


def test_a_quarantined_update_happens_again_where_it_is_resumed(journal: Journal, place: Place, tmp_path: Path) -> None:
    """Its checkpoint holds what the update began with: the same steps, the same random numbers."""
    whole = Place(tmp_path / "whole")
    whole.learner(journal, change(total_updates=2)).run()
    with pytest.MonkeyPatch.context() as patch:
        poisoned(1, patch)
        place.learner(journal, change(total_updates=2)).run()
    again = Place(tmp_path / "again")
    shutil.copytree(place.checkpoints / "quarantine", again.checkpoints)
    again.learner(journal, change(total_updates=2), resume=True).run()
    assert again.fingerprint() == whole.fingerprint()


def test_the_first_update_after_a_restart_can_be_undone_too(
    journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has been exported since: what is kept of it holds the policy of the restart."""
    place.learner(journal, change(total_updates=2)).run()
    poisoned(1, monkeypatch, after=0)
    learner = place.learner(journal, change(total_updates=3), resume=True)
    learner.run()
    kept = place.checkpoints / "quarantine" / "000002"
    assert load_checkpoint(kept).state.update == 2
    networks = [path / "bundle" / "policy.onnx" for path in (kept, place.checkpoints / "000002")]
    assert networks[0].read_bytes() == networks[1].read_bytes()
    assert learner.version == 4
