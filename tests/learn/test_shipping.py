"""How policies reach the store, under which numbers, and what a disk that refuses them costs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tests.learn.training import SETTINGS, Place, change

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import RobotProfile
from policyloop.errors import StorageError
from policyloop.learn.networks import make_network
from policyloop.learn.reporter import Progress
from policyloop.learn.shipping import Shipping
from policyloop.link.journal import Journal

Export = Callable[[int], Callable[[int], Bundle]]


class Robots:
    """Stands where a gateway would; `told` are the versions that robots were told of."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def announce(self, *, policy_version: int) -> None:
        self.told.append(policy_version)


@pytest.fixture
def export(blind: RobotProfile) -> Callable[[int], Callable[[int], Bundle]]:
    """Return `export(seed)`: a function that exports the policy of that seed under a number."""

    def one(seed: int) -> Callable[[int], Bundle]:
        torch.manual_seed(seed)
        network = make_network("mlp", blind)

        def exported(version: int) -> Bundle:
            return export_bundle(
                network,
                blind,
                blind.nominal_normalizer,
                network_name="mlp",
                version=version,
                noise_hold_ticks=1,
                observations=probe_features(blind, 2),
                training={},
            )

        return exported

    return one


def test_numbers_count_up_and_robots_are_told(export: Export, tmp_path: Path) -> None:
    robots, store = Robots(), Store(tmp_path / "store")
    shipping = Shipping(store, version=0, gateway=robots)
    for seed in (1, 2, 3):
        shipping.ship(export(seed))
    assert robots.told == [1, 2, 3]
    assert (shipping.version, store.newest_version) == (3, 3)
    assert store.current == store.find(3)
    assert shipping.bundle is not None
    assert shipping.bundle.manifest.version == 3


def test_a_policy_that_robots_have_is_not_shipped_again_and_another_gets_a_new_number(
    export: Export, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    first = Shipping(store, version=0)
    for seed in (1, 2):
        first.ship(export(seed))
    robots = Robots()
    resumed = Shipping(store, version=0, gateway=robots)
    resumed.ship(export(1))
    assert (resumed.version, robots.told, store.newest_version) == (1, [], 2)
    resumed.ship(export(7))  # 2 is taken by another
    assert (resumed.version, robots.told, store.newest_version) == (3, [3], 3)


def test_what_the_disk_refused_is_shipped_at_the_end(
    export: Export, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    robots, store = Robots(), Store(tmp_path / "store")
    shipping = Shipping(store, version=0, gateway=robots)
    shipping.ship(export(1))
    versions = store.directory / "versions"
    versions.rename(versions.with_name("kept"))
    versions.touch()
    shipping.ship(export(2))
    assert "robots keep policy 1" in caplog.text
    assert (shipping.version, robots.told) == (1, [1])
    with pytest.raises(StorageError):
        shipping.finish()
    versions.unlink()
    versions.with_name("kept").rename(versions)
    shipping.finish()
    shipping.finish()
    assert (shipping.version, robots.told, store.newest_version) == (2, [1, 2], 2)


def test_a_learner_that_goes_another_way_after_a_kill_ships_under_new_numbers(
    journal: Journal, place: Place, tmp_path: Path
) -> None:
    place.learner(journal).run()
    shutil.rmtree(place.checkpoints / "000006")
    shutil.rmtree(place.checkpoints / "000004")
    other = change(ppo=msgspec.structs.replace(SETTINGS.ppo, learning_rate=1e-4))
    learner = place.learner(journal, other, resume=True)
    learner.run()
    versions = [int(path.name.partition("-")[0]) for path in place.store.versions()]
    assert versions == list(range(1, 12))  # 7 before, and four that nobody has had
    assert learner.version == 11


def test_a_disk_that_refuses_the_last_policy_only_fails(journal: Journal, place: Place) -> None:
    def report(progress: Progress) -> None:
        if progress.phase == "updating" and progress.update == 5:
            versions = place.store.directory / "versions"
            versions.rename(versions.with_name("kept"))
            versions.touch()

    with pytest.raises(StorageError, match="cannot write"):
        place.learner(journal, report=report).run()
    assert place.updates() == [0, 2, 4, 6]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # tensorboard's thread
def test_a_disk_that_refuses_the_first_policy_ends_the_training(
    journal: Journal, place: Place, full_disk: Callable[[int], Any]
) -> None:
    learner = place.learner(journal)
    with full_disk(1000), pytest.raises(StorageError, match="cannot write"):
        learner.run()
