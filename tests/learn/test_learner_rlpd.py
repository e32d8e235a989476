"""The learner with RLPD on recorded journals: what it ships, and that it can be interrupted."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from tests.learn.test_learner import SETTINGS, Place, change, recording, stops_at

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Step
from policyloop.errors import ConfigError, IncompatibleError
from policyloop.learn.checkpoint import latest_checkpoint
from policyloop.learn.networks import make_network
from policyloop.learn.off_policy import OffPolicy
from policyloop.learn.replay import Transitions
from policyloop.learn.rlpd import RlpdSettings
from policyloop.learn.settings import LearnerSettings
from policyloop.learn.teachers import Teachers
from policyloop.link.journal import Journal

Drive = Callable[..., Step]
Write = Callable[..., Journal]

RLPD = change(
    learner="rlpd",
    checkpoint_interval=2,
    rlpd=RlpdSettings(critics=3, critic_steps=0.5, warmup_steps=5, minibatch=16, capacity=150),
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "run")


@pytest.fixture
def journal(blind: RobotProfile, drive: Drive, write_journal: Write) -> Journal:
    return write_journal(blind, recording(drive, robots=2))


def all_tensors(place: Place) -> dict[str, bytes]:
    checkpoint = latest_checkpoint(place.checkpoints)
    assert checkpoint is not None
    return {name: tensor.numpy().tobytes() for name, tensor in checkpoint.tensors.items()}


def test_a_recording_becomes_policies(journal: Journal, place: Place) -> None:
    learner = place.learner(journal, RLPD)
    learner.run()
    assert learner.version == 7
    assert place.updates() == [0, 2, 4, 6]
    lines = place.lines()
    assert all({"critic_loss", "policy_loss", "temperature", "entropy", "std"} <= line.keys() for line in lines[1:])
    assert lines[-1]["ledger"] == learner.ledger
    # what led up to the gap of each robot is not known
    assert learner.ledger["trained"] + learner.ledger["gap"] == 6 * 50
    assert learner.ledger["gap"] == 2
    assert sum(learner.ledger.values()) == latest_checkpoint(place.checkpoints).state.feed.read


@pytest.mark.parametrize("after", [1, 3])
def test_a_learner_that_was_stopped_goes_on_bit_for_bit(
    after: int, journal: Journal, place: Place, tmp_path: Path
) -> None:
    place.learner(journal, RLPD).run()
    halves, stop = Place(tmp_path / "halves"), threading.Event()
    halves.learner(journal, RLPD, stop=stop, report=stops_at(stop, after)).run()
    assert halves.updates()[-1] == after
    assert all_tensors(halves) != all_tensors(place)
    halves.learner(journal, RLPD, resume=True).run()
    assert all_tensors(halves) == all_tensors(place)


def test_a_learner_that_was_killed_goes_on_from_its_last_checkpoint(journal: Journal, place: Place) -> None:
    place.learner(journal, RLPD).run()
    expected = all_tensors(place)
    shutil.rmtree(place.checkpoints / "000006")
    learner = place.learner(journal, RLPD, resume=True)
    learner.run()
    assert all_tensors(place) == expected
    assert learner.version == 7  # the policies that robots have already


def test_a_clone_can_be_improved_by_either_learner(journal: Journal, tmp_path: Path) -> None:
    clone = Place(tmp_path / "clone")
    clone.learner(journal, change(learner="bc")).run()
    for settings in (RLPD, SETTINGS):
        place = Place(tmp_path / settings.learner)
        shutil.copytree(clone.checkpoints, place.checkpoints)
        learner = place.learner(journal, settings, resume=True)
        learner.run()
        assert place.updates()[-1] == 6


@pytest.mark.parametrize(("first", "second"), [(RLPD, SETTINGS), (SETTINGS, RLPD)])
def test_another_learner_cannot_go_on(
    first: LearnerSettings, second: LearnerSettings, journal: Journal, place: Place
) -> None:
    place.learner(journal, first).run()
    with pytest.raises(IncompatibleError, match=f"is of learner '{first.learner}', not '{second.learner}'") as caught:
        place.learner(journal, second, resume=True)
    assert "--from" in caught.value.remedy


def test_without_demonstrations_it_is_soft_actor_critic(journal: Journal, place: Place) -> None:
    learner = place.learner(journal, msgspec.structs.replace(RLPD, demonstrations=0, total_updates=2))
    learner.run()
    assert learner.version == 3


def test_a_robot_whose_actions_have_no_bounds_is_refused(write_journal: Write, place: Place) -> None:
    settings = msgspec.structs.replace(RLPD, demonstrations=0)
    with pytest.raises(ConfigError, match="rlpd needs actions with bounds, those of 'lite3' are linear"):
        place.learner(write_journal(load_profile("lite3"), []), settings)


# -- lineage ----------------------------------------------------------------------------------


def test_training_can_begin_from_another_trainings_weights(journal: Journal, place: Place, tmp_path: Path) -> None:
    place.learner(journal).run()
    parent = latest_checkpoint(place.checkpoints)
    child = Place(tmp_path / "child")
    settings = msgspec.structs.replace(RLPD, demonstrations=0, total_updates=1)
    learner = child.learner(journal, settings, parent=place.checkpoints / "000006")
    learner.run()
    first = child.store.versions()[0]
    assert first.joinpath("policy.onnx").read_bytes()
    saved = latest_checkpoint(child.checkpoints)
    assert saved.state.lineage == [parent.state.tensors_sha256]
    grandchild = Place(tmp_path / "grandchild")
    grandchild.learner(journal, change(demonstrations=0, total_updates=1), parent=child.checkpoints / "000001").run()
    lineage = latest_checkpoint(grandchild.checkpoints).state.lineage
    assert lineage == [parent.state.tensors_sha256, saved.state.tensors_sha256]


def test_the_first_policy_is_the_parents(journal: Journal, place: Place, tmp_path: Path) -> None:
    place.learner(journal).run()
    child = Place(tmp_path / "child")
    stop = threading.Event()
    stop.set()
    learner = child.learner(journal, change(demonstrations=0), parent=place.checkpoints / "000006", stop=stop)
    learner.run()
    parents, childs = place.store.find(7), child.store.find(1)
    weights = [path.joinpath("manifest.json").read_bytes() for path in (parents, childs)]
    networks = [msgspec.json.decode(text)["training"] for text in weights]
    assert networks[1]["parent"] == latest_checkpoint(place.checkpoints).state.tensors_sha256


def test_a_parent_of_another_network_is_refused(
    journal: Journal, place: Place, tmp_path: Path, mini: RobotProfile, write_journal: Write
) -> None:
    place.learner(journal).run()
    other = Place(tmp_path / "other")
    with pytest.raises(IncompatibleError, match="is of profile 'blind'"):
        other.learner(write_journal(mini, []), change(network="spatial"), parent=place.checkpoints / "000006")


def test_pictures_are_varied_and_mirrored_together_with_actions(mini: RobotProfile, write_journal: Write) -> None:
    network = make_network("spatial", mini)
    journal, generator = write_journal(mini, []), torch.Generator().manual_seed(0)
    settings = LearnerSettings(learner="rlpd", rlpd=RlpdSettings(mirror=True))
    teachers = Teachers(journal, mini.nominal_normalizer, settings.bc, cloned_until=0, read=0)
    algorithm = OffPolicy(
        network,
        journal,
        mini.nominal_normalizer,
        settings,
        teachers,
        generator=generator,
        device=torch.device("cpu"),
        state=None,
    )
    depth = torch.randint(0, 256, (2, 1, 36, 64), generator=generator, dtype=torch.uint8)
    seen = {"depth": depth, "scan": torch.rand((2, 32), generator=generator), "proprio": torch.rand(2, 6)}
    batch = Transitions(seen, dict(seen), torch.tensor([[0.5, 0.3], [0.1, -0.7]]), torch.zeros(2), torch.ones(2))
    assert algorithm._varied(batch, mirror=False) is batch
    other = algorithm._varied(batch, mirror=True)
    for features in (other.features, other.next_features):
        assert torch.equal(features["depth"], depth.flip(-1))
        assert torch.equal(features["scan"], seen["scan"].flip(-1))
        assert torch.equal(features["proprio"][:, 1], -seen["proprio"][:, 1])  # the yaw rate
    assert torch.equal(other.shares, torch.tensor([[0.5, -0.3], [0.1, 0.7]]))
    assert torch.equal(other.reward, batch.reward)
