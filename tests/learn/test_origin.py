"""Where trainings begin: anew, where they were left, and with the weights of another; and what is refused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.learn.training import RLPD, SETTINGS, Place, change

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import ConfigError, IncompatibleError
from policyloop.learn import on_policy
from policyloop.learn import origin as origin_module
from policyloop.learn.checkpoint import latest_checkpoint
from policyloop.learn.origin import find_origin
from policyloop.learn.settings import LearnerSettings
from policyloop.learn.tuning import Execution
from policyloop.link.journal import Journal

Drive = Callable[..., Step]
Write = Callable[..., Journal]


def test_an_unknown_device_is_refused(journal: Journal, place: Place) -> None:
    with pytest.raises(ConfigError, match="device 'warp' cannot be used") as caught:
        place.learner(journal, change(device="warp"))
    assert "cpu" in caught.value.remedy


def test_going_on_without_a_checkpoint_begins(journal: Journal, place: Place) -> None:
    learner = place.learner(journal, change(total_updates=1), resume=True)
    learner.run()
    assert learner.version == 2


def test_existing_checkpoints_are_not_overwritten_unasked(journal: Journal, place: Place) -> None:
    place.learner(journal, change(learner="bc")).run()
    expected = place.fingerprint()
    with pytest.raises(ConfigError, match="already holds checkpoints") as caught:
        place.learner(journal)
    assert "--resume" in caught.value.remedy
    assert place.fingerprint() == expected


def test_a_learner_goes_on_before_a_damaged_checkpoint_bit_for_bit(journal: Journal, place: Place) -> None:
    place.learner(journal).run()
    expected = place.fingerprint()
    damaged = place.checkpoints / "000006" / "state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    place.learner(journal, resume=True).run()
    assert place.fingerprint() == expected


def test_going_on_with_another_network_is_refused(
    mini: RobotProfile, make_step: Callable[..., Step], write_journal: Write, place: Place
) -> None:
    journal = write_journal(mini, [make_step(mini, i, source="human") for i in range(16)])
    place.learner(journal, change(learner="bc", demonstrations=16)).run()
    with pytest.raises(IncompatibleError, match="of network 'mlp', not 'spatial'") as caught:
        place.learner(journal, change(network="spatial"), resume=True)
    assert caught.value.exit_code == 7
    assert "--network mlp" in caught.value.remedy


def test_going_on_with_another_profile_is_refused(
    journal: Journal, blind: RobotProfile, drive: Drive, tmp_path: Path, place: Place
) -> None:
    place.learner(journal, change(learner="bc")).run()
    limits = msgspec.structs.replace(blind.limits, max_forward_mps=2.0)
    other = Journal(tmp_path / "other", msgspec.structs.replace(blind, limits=limits), writable=True)
    try:
        with pytest.raises(IncompatibleError, match="is of profile 'blind'") as caught:
            place.learner(other, resume=True)
        assert caught.value.exit_code == 7
    finally:
        other.close()


def test_a_learner_goes_on_in_the_way_that_it_was_updated_before(
    journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Execution(rows_at_once=5)
    monkeypatch.setattr(origin_module, "choose_execution", lambda *arguments: chosen)
    place.learner(journal, change(total_updates=2)).run()
    checkpoint = latest_checkpoint(place.checkpoints)
    assert checkpoint is not None
    assert msgspec.convert(checkpoint.state.settings["execution"], Execution) == chosen
    monkeypatch.setattr(origin_module, "choose_execution", lambda *arguments: Execution())
    used: list[int] = []
    update = on_policy.ppo_update
    monkeypatch.setattr(
        on_policy,
        "ppo_update",
        lambda *args, **more: (used.append(more["rows_at_once"]), update(*args, **more))[1],
    )
    place.learner(journal, resume=True).run()
    place.learner(journal, change(total_updates=7, execution=Execution(rows_at_once=3)), resume=True).run()
    assert used == [5, 5, 5, 5, 3]  # settings that say how have the last word


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


def test_a_clone_that_goes_on_as_another_learner_explores_as_that_one_does(journal: Journal, place: Place) -> None:
    place.learner(journal, change(learner="bc")).run()
    origin = find_origin(journal.profile, RLPD, place.checkpoints, resume=True, parent=None)
    assert origin.only_cloned
    assert origin.network.log_std.tolist() == [RLPD.initial_log_std] * 2


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
    with pytest.raises(IncompatibleError, match=r"checkpoint .*000006 is of profile 'blind'"):
        other.learner(write_journal(mini, []), change(network="spatial"), parent=place.checkpoints / "000006")
