"""The learner with RLPD on recorded journals: what it ships, and that it can be interrupted."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from tests.learn.training import RLPD, Place, recording, stops_at

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Step
from policyloop.errors import ConfigError
from policyloop.learn import off_policy
from policyloop.learn.checkpoint import latest_checkpoint
from policyloop.learn.networks import make_network
from policyloop.learn.off_policy import OffPolicy
from policyloop.learn.origin import Origin
from policyloop.learn.replay import Transitions
from policyloop.learn.rlpd import RlpdSettings
from policyloop.learn.settings import LearnerSettings
from policyloop.learn.teachers import Teachers
from policyloop.link.journal import Journal

Drive = Callable[..., Step]
Write = Callable[..., Journal]


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


def test_without_demonstrations_it_is_soft_actor_critic(journal: Journal, place: Place) -> None:
    learner = place.learner(journal, msgspec.structs.replace(RLPD, demonstrations=0, total_updates=2))
    learner.run()
    assert learner.version == 3


def test_a_robot_whose_actions_have_no_bounds_is_refused(write_journal: Write, place: Place) -> None:
    settings = msgspec.structs.replace(RLPD, demonstrations=0)
    with pytest.raises(ConfigError, match="rlpd needs actions with bounds, those of 'lite3' are linear"):
        place.learner(write_journal(load_profile("lite3"), []), settings)


def test_replays_that_the_memory_cannot_hold_are_refused_before_anything_is_learned(
    journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state takes 40 bytes; two thirds of 17,700 hold 2 x 147 of them, and 150 are asked for."""
    monkeypatch.setattr(off_policy, "memory_bytes", lambda: 17_700)
    with pytest.raises(ConfigError, match="two replays of 150 states of 40 bytes") as caught:
        place.learner(journal, RLPD)
    assert "capacity = 147" in caught.value.remedy
    assert place.updates() == []


def test_pictures_are_varied_and_mirrored_together_with_actions(mini: RobotProfile, write_journal: Write) -> None:
    network = make_network("spatial", mini)
    journal, generator = write_journal(mini, []), torch.Generator().manual_seed(0)
    settings = LearnerSettings(learner="rlpd", rlpd=RlpdSettings(mirror=True))
    teachers = Teachers(journal, mini.nominal_normalizer, settings.bc, cloned_until=0, read=0)
    origin = Origin(network, mini.nominal_normalizer, settings, generator, torch.device("cpu"), [], None)
    algorithm = OffPolicy(journal, origin, teachers, None)
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
