"""Training in simulation with a disk behind it: what is left there, and that it goes on from there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from policyloop.bundle.signing import KeyRing, create_signer, verify_manifest
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.errors import IncompatibleError, StorageError
from policyloop.learn.checkpoint import latest_checkpoint, load_checkpoint
from policyloop.learn.learner import Learner
from policyloop.learn.settings import LearnerSettings
from policyloop.learn.simulated import SimulationProgress, SimulationSettings
from policyloop.learn.simulated_training import train_in_simulation
from policyloop.link.journal import Journal
from policyloop.runtime.policy import Policy

COUNT, HORIZON = 6, 8
PER_UPDATE = COUNT * HORIZON


class Came:
    """Nothing ever ends."""

    def __init__(self, reward: np.ndarray, seen: tuple[np.ndarray, np.ndarray]) -> None:
        self.reward = reward
        self.terminated = self.truncated = np.zeros(COUNT, bool)
        self.final_proprio, self.final_privileged = seen


class Robots:
    """Robots that are paid for small outputs."""

    count, privileged_size = COUNT, 1

    def __init__(self, profile: RobotProfile) -> None:
        self.profile = profile

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        return np.full((COUNT, self.profile.proprio_size), 0.5, np.float32), np.zeros((COUNT, 1), np.float32)

    def step(self, outputs: np.ndarray) -> Came:
        return Came(-np.abs(outputs).sum(1).astype(np.float32), self.observe())


class Place:
    """Where one training run keeps its things."""

    def __init__(self, root: Path, profile: RobotProfile) -> None:
        self.checkpoints, self.runs, self.profile = root / "checkpoints", root / "runs", profile
        self.store = Store(root / "store")
        self.told: list[SimulationProgress] = []

    def train(self, updates: int, interval: int = 2, **more: Any) -> int:
        settings = SimulationSettings(horizon=HORIZON, hidden_sizes=(8,), steps=updates * PER_UPDATE)
        options: dict[str, Any] = {"stop": threading.Event(), "report": self.told.append, **more}
        return train_in_simulation(
            options.pop("robots", Robots(self.profile)),
            options.pop("settings", settings),
            checkpoints=self.checkpoints,
            checkpoint_interval=interval,
            store=self.store,
            runs=self.runs,
            **options,
        )

    def updates(self) -> list[int]:
        return [int(path.name) for path in sorted(self.checkpoints.glob("[0-9]*"))]

    def versions(self) -> list[int]:
        return [open_bundle(path, self.profile).manifest.version for path in self.store.versions()]

    def lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in (self.runs / "progress.jsonl").read_bytes().splitlines()]


@pytest.fixture
def place(tmp_path: Path, blind: RobotProfile) -> Place:
    return Place(tmp_path, blind)


def test_every_interval_is_a_policy_and_a_checkpoint_and_so_is_the_end(place: Place) -> None:
    assert place.train(5, interval=2) == 3
    assert place.updates() == [2, 4, 5]
    assert place.versions() == [1, 2, 3]
    newest = open_bundle(place.store.current, place.profile).manifest
    assert (newest.version, newest.training["update"], newest.training["steps"]) == (3, 5, 5 * PER_UPDATE)
    assert [entry.update for entry in place.told] == [1, 2, 3, 4, 5]


def test_an_end_on_an_interval_is_shipped_once(place: Place) -> None:
    assert place.train(4, interval=2) == 2
    assert place.updates() == [2, 4]


def test_a_checkpoint_says_what_it_is_of(place: Place) -> None:
    place.train(2)
    saved = latest_checkpoint(place.checkpoints)
    assert saved is not None
    assert (saved.state.update, saved.state.version, saved.state.network) == (2, 1, "mlp")
    assert saved.state.profile_digest == place.profile.digest
    assert saved.state.feed.ledger == {"trained": 2 * PER_UPDATE}
    assert list(saved.state.settings["hidden_sizes"]) == [8]


def test_numbers_of_every_update_are_written(place: Place) -> None:
    place.train(3)
    lines = place.lines()
    assert [line["update"] for line in lines] == [1, 2, 3]
    assert {"reward", "fall_rate", "cpu_s", "std", "policy_loss"} <= set(lines[0])
    assert lines[0]["reward"] == pytest.approx(place.told[0].reward)
    assert lines[0]["fall_rate"] == 0


def test_whoever_is_stopped_leaves_a_last_checkpoint_and_goes_on_counting(place: Place) -> None:
    stop = threading.Event()

    def report(progress: SimulationProgress) -> None:
        if progress.update == 3:
            stop.set()

    assert place.train(6, interval=2, stop=stop, report=report) == 2
    assert place.updates() == [2, 3]
    assert place.train(6, interval=2, resume=True) == 4
    assert [entry.update for entry in place.told] == [4, 5, 6]
    assert [entry.steps for entry in place.told] == [n * PER_UPDATE for n in (4, 5, 6)]
    assert place.updates() == [2, 3, 4, 6]
    assert place.versions() == [1, 2, 3, 4]


def test_stopped_and_resumed_is_the_same_as_in_one_go(place: Place, tmp_path: Path, blind: RobotProfile) -> None:
    stop = threading.Event()
    place.train(6, stop=stop, report=lambda progress: stop.set() if progress.update == 3 else None)
    place.train(6, resume=True)
    whole = Place(tmp_path / "whole", blind)
    whole.train(6)
    one, other = latest_checkpoint(place.checkpoints), latest_checkpoint(whole.checkpoints)
    assert one is not None and other is not None
    for name, tensor in one.tensors.items():
        assert np.array_equal(tensor.numpy(), other.tensors[name].numpy()), name


def test_who_is_finished_does_nothing_more(place: Place) -> None:
    place.train(2)
    place.told.clear()
    assert place.train(2, resume=True) == 1
    assert place.told == []


def test_to_resume_from_nothing_is_to_begin(place: Place) -> None:
    assert place.train(2, resume=True) == 1
    assert place.told[0].update == 1


def test_who_does_not_resume_begins_anew_under_new_numbers(place: Place) -> None:
    place.train(2)
    place.told.clear()
    assert place.train(2) == 2
    assert [entry.update for entry in place.told] == [1, 2]
    assert place.versions() == [1, 2]


def test_a_checkpoint_of_another_robot_is_refused(place: Place, blind: RobotProfile) -> None:
    place.train(2)
    faster = msgspec.structs.replace(blind, rates=msgspec.structs.replace(blind.rates, control_hz=20.0))
    with pytest.raises(IncompatibleError, match="another profile"):
        place.train(4, resume=True, robots=Robots(faster))


def test_every_policy_is_signed_where_somebody_signs(place: Place, tmp_path: Path) -> None:
    signer = create_signer(tmp_path / "keys", "me")
    ring = KeyRing(tmp_path / "trusted")
    ring.allow("me", signer.public)
    place.train(2, interval=1, signer=signer)
    for path in place.store.versions():
        assert (
            verify_manifest((path / "manifest.json").read_bytes(), (path / "manifest.sig").read_bytes(), ring) == "me"
        )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # tensorboard's thread
def test_a_full_disk_is_an_alarm_and_training_goes_on(
    place: Place, full_disk: Callable[[int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as full:

        def report(progress: SimulationProgress) -> None:
            if progress.update == 2:
                full.enter_context(full_disk(0))
            if progress.update == 3:
                full.close()

        assert place.train(5, interval=2, report=report) == 2
    alarms = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert any(text.startswith("update 2 is in no checkpoint, the next interval tries again: ") for text in alarms)
    assert place.updates() == [4, 5]
    assert place.versions() == [1, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # tensorboard's thread
def test_a_disk_that_is_full_to_the_end_fails(place: Place, full_disk: Callable[[int], Any]) -> None:
    with ExitStack() as full, pytest.raises(StorageError):
        place.train(3, interval=2, report=lambda progress: full.enter_context(full_disk(0)))
    assert place.updates() == []
    assert place.train(3, resume=True) == 2


# -- and on to real robots --------------------------------------------------------------------


@pytest.fixture
def walked(place: Place) -> Path:
    """A checkpoint that training in simulation has left behind."""
    settings = SimulationSettings(horizon=HORIZON, hidden_sizes=(12, 8), activation="elu", steps=2 * PER_UPDATE)
    place.train(2, settings=settings)
    return place.checkpoints / "000002"


def learner(place: Place, directory: Path, **more: Any) -> Learner:
    """A learner on an empty journal of the same robot."""
    journal = Journal(directory / "journal", place.profile, writable=True)
    settings = LearnerSettings(learner="bc", network="mlp", device="cpu", threads=1, demonstrations=0)
    places = {"store": Store(directory / "store"), "runs": directory / "runs"}
    return Learner(journal, settings, **{"checkpoints": directory / "checkpoints", **places, **more})


def test_a_learner_begins_with_the_actor_and_a_new_critic_and_says_so(
    walked: Path, place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learner(place, tmp_path / "real", parent=walked).run()
    assert "only its actor is taken over, the critic is new" in caplog.text
    parent = load_checkpoint(walked)
    policies = [
        Policy.load(path, place.profile) for path in (walked / "bundle", tmp_path / "real" / "store" / "current")
    ]
    seen = Observation({"proprio": np.array([0.3, -0.2, 1.5, 0.1], np.float32)}, 0)
    means = [policy.mean(seen).tolist() for policy in policies]
    assert means[0] == means[1] != [0.0, 0.0]
    manifest = open_bundle(tmp_path / "real" / "store" / "current", place.profile).manifest
    assert manifest.training["parent"] == parent.state.tensors_sha256


def test_a_learner_does_not_go_on_where_simulation_stopped(walked: Path, place: Place, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="what no robot senses") as caught:
        learner(place, tmp_path / "real", checkpoints=walked.parent, resume=True)
    assert "--simulated" in caught.value.remedy
    assert "--from" in caught.value.remedy
