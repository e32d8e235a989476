from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import torch

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import EpisodeRules, RobotProfile
from policyloop.core.step import Step
from policyloop.learn.networks import make_network
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.sim.curriculum import CurriculumSettings
from policyloop.sim.fleet import Fleet, FleetSettings
from policyloop.sim.randomization import Randomization

RANGES = Randomization()


@pytest.fixture
def short(mini: RobotProfile) -> RobotProfile:
    """Episodes of ten steps, in which nobody gets far enough to collide."""
    return msgspec.structs.replace(mini, episode=EpisodeRules(max_steps=10))


def make_bundle(profile: RobotProfile, version: int) -> Bundle:
    torch.manual_seed(version)
    return export_bundle(
        make_network("spatial", profile),
        profile,
        profile.nominal_normalizer,
        network_name="spatial",
        version=version,
        noise_hold_ticks=2,
        observations=probe_features(profile, 1),
        training={},
    )


def run(profile: RobotProfile, settings: FleetSettings, spools: Path, steps: int) -> list[Step]:
    emitted: list[Step] = []
    fleet = Fleet(profile, settings, spools, emitted.append)
    fleet.run(threading.Event(), steps=steps)
    assert fleet.steps == steps
    assert fleet.close()
    return emitted


def test_a_fleet_without_streaming_runs_and_counts(short: RobotProfile, tmp_path: Path) -> None:
    emitted: list[Step] = []
    fleet = Fleet(short, FleetSettings(driver="random", robots=3), tmp_path / "spools", emitted.append)
    fleet.run(threading.Event(), steps=66)
    assert fleet.steps == 66
    # 22 ticks each: two episodes of ten, one step of the third, and one that waits for its outcome
    assert [episode.steps for episode in fleet.episodes] == [10] * 6
    assert Counter(step.record.robot for step in emitted) == {"sim-0": 21, "sim-1": 21, "sim-2": 21}
    assert fleet.policy_version == 0
    assert fleet.close()
    assert not (tmp_path / "spools").exists()


def test_the_robots_of_a_fleet_live_different_lives(short: RobotProfile, tmp_path: Path) -> None:
    emitted = run(short, FleetSettings(driver="scripted", robots=2), tmp_path, 20)
    assert len({step.record.boot for step in emitted} - {""}) == 2
    first = {step.record.robot: step.observation["depth"].tobytes() for step in reversed(emitted)}
    assert len(first) == 2
    assert len(set(first.values())) == 2


@pytest.mark.parametrize("driver", ["scripted", "random"])
def test_equal_seeds_give_equal_fleets_and_another_seed_another(
    short: RobotProfile, tmp_path: Path, driver: str
) -> None:
    def life(seed: int) -> list[tuple[object, ...]]:
        steps = run(short, FleetSettings(driver=driver, robots=2, seed=seed), tmp_path, 30)
        return [
            (step.record.action, step.record.command, step.record.reward, step.observation["depth"].tobytes())
            for step in steps
        ]

    assert life(1) == life(1) != life(2)


def test_a_randomised_fleet_repeats_with_its_seed(short: RobotProfile, tmp_path: Path) -> None:
    def life(seed: int, randomization: Randomization | None = RANGES) -> list[tuple[object, ...]]:
        settings = FleetSettings(driver="scripted", robots=2, seed=seed, randomization=randomization)
        steps = run(short, settings, tmp_path, 60)
        return [(step.record.command, step.record.stamps, step.observation["depth"].tobytes()) for step in steps]

    assert life(1) == life(1) not in (life(2), life(1, None))


def test_every_robot_and_episode_of_a_randomised_fleet_has_its_own_delay(short: RobotProfile, tmp_path: Path) -> None:
    settings = FleetSettings(driver="scripted", robots=2, randomization=RANGES)
    ages: dict[tuple[str, int], set[int]] = {}
    for step in run(short, settings, tmp_path, 44):
        record = step.record
        age_ns = record.stamps.acted_ns - record.stamps.captured_ns
        ages.setdefault((record.robot, record.episode), set()).add(age_ns)
    assert len(ages) == 6
    assert all(len(one) == 1 for one in ages.values())
    assert len(set.union(*ages.values())) > 1
    assert set.union(*ages.values()) <= set(range(20_000_000, 100_000_001, 10_000_000))


def test_each_robot_climbs_through_the_levels_by_itself(short: RobotProfile, tmp_path: Path) -> None:
    easy = CurriculumSettings(episodes=1, harder_score=-2000, easier_score=-3000, easier_collisions=1.0)
    fleet = Fleet(short, FleetSettings(driver="random", robots=2, gate="limits", curriculum=easy), tmp_path)
    assert fleet.levels == (0, 0)
    fleet.run(threading.Event(), steps=44)  # two episodes each
    assert fleet.levels == (2, 2)
    assert fleet.close()
    hard = msgspec.structs.replace(easy, harder_score=2000)
    fleet = Fleet(short, FleetSettings(driver="random", robots=2, curriculum=hard), tmp_path)
    fleet.run(threading.Event(), steps=44)
    assert fleet.levels == (0, 0)
    fleet.close()


def test_without_a_curriculum_there_are_no_levels(short: RobotProfile, tmp_path: Path) -> None:
    fleet = Fleet(short, FleetSettings(driver="random"), tmp_path)
    assert fleet.levels == ()
    fleet.close()


def test_a_teacher_is_disturbed_only_if_asked(short: RobotProfile, tmp_path: Path) -> None:
    for disturb in (True, False):
        emitted = run(short, FleetSettings(driver="scripted", disturb=disturb), tmp_path, 40)
        disturbed = ["disturbed" in step.record.command.reasons for step in emitted]
        assert any(disturbed) == disturb
        assert {step.record.action.source for step in emitted} == {"scripted"}


def test_a_fleet_drives_with_the_policy_of_a_store_and_follows_it(short: RobotProfile, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.activate(store.add(make_bundle(short, 1)))
    emitted: list[Step] = []
    fleet = Fleet(short, FleetSettings(driver=str(store.directory), robots=2), tmp_path / "spools", emitted.append)
    fleet.run(threading.Event(), steps=8)
    assert fleet.policy_version == 1
    store.activate(store.add(make_bundle(short, 2)))
    fleet.run(threading.Event(), steps=20)
    assert fleet.policy_version == 2
    behaviours = [step.record.action.behaviour for step in emitted if step.record.robot == "sim-0"]
    assert [behaviour.policy_version for behaviour in behaviours if behaviour] == [1] * 4 + [2] * 5
    assert fleet.close()


def test_a_policy_explores_only_if_asked(short: RobotProfile, tmp_path: Path) -> None:
    bundle = Store(tmp_path / "store").add(make_bundle(short, 1))
    for explore in (True, False):
        emitted = run(short, FleetSettings(driver=str(bundle), explore=explore), tmp_path / "spools", 10)
        behaviours = [step.record.action.behaviour for step in emitted]
        assert [behaviour.sample != behaviour.mean for behaviour in behaviours if behaviour] == [explore] * 9


def test_an_assisted_robot_drives_the_bare_policy_beside_exploring_ones(short: RobotProfile, tmp_path: Path) -> None:
    bundle = Store(tmp_path / "store").add(make_bundle(short, 1))
    emitted = run(short, FleetSettings(driver=str(bundle), robots=2, assisted=1), tmp_path / "spools", 20)
    drawn = {"sim-0": set(), "sim-1": set()}
    for step in emitted:
        if behaviour := step.record.action.behaviour:
            drawn[step.record.robot].add((behaviour.drawn, behaviour.sample != behaviour.mean))
    assert drawn == {"sim-0": {(False, False)}, "sim-1": {(True, True)}}


def test_a_fleet_stops_when_it_is_told_to(short: RobotProfile, tmp_path: Path) -> None:
    stop = threading.Event()
    fleet = Fleet(short, FleetSettings(driver="random"), tmp_path)
    fleet.run(stop, report=lambda fleet: stop.set() if fleet.steps == 5 else None)
    assert fleet.steps == 5
    fleet.close()


def test_every_step_of_a_streaming_fleet_is_in_the_journal_when_it_closes(short: RobotProfile, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", short, writable=True)
    gateway = Gateway(journal, short, "tcp://127.0.0.1:0")
    gateway.start()
    settings = FleetSettings(driver="scripted", robots=2, connect=gateway.address, name="rover")
    fleet = Fleet(short, settings, tmp_path / "spools")
    fleet.run(threading.Event(), steps=60)
    assert fleet.close(drain_s=20)
    gateway.close()
    sequences: dict[str, list[int]] = {}
    for record in journal.headers():
        sequences.setdefault(record.robot, []).append(record.sequence)
    journal.close()
    assert sequences == {"rover-0": list(range(29)), "rover-1": list(range(29))}


def test_a_pupil_drives_while_the_teachers_proposals_are_recorded(short: RobotProfile, tmp_path: Path) -> None:
    bundle = Store(tmp_path / "store").add(make_bundle(short, 1))
    emitted = run(short, FleetSettings(driver="scripted", pupil=str(bundle), robots=1), tmp_path / "spools", 20)
    teacher = run(short, FleetSettings(driver="scripted", disturb=False, robots=1), tmp_path / "spools", 20)
    assert {step.record.action.source for step in emitted} == {"scripted"}
    assert all("disturbed" in step.record.command.reasons for step in emitted)
    # both begin in the same place, where the teacher proposes the same; then the untrained pupil goes its own way
    assert emitted[0].record.action == teacher[0].record.action
    assert emitted[0].record.command.values != teacher[0].record.command.values
