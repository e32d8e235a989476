from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from policyloop.bundle.build import Bundle
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.files import write_directory
from policyloop.core.profile import EpisodeRules, RobotProfile
from policyloop.errors import IncompatibleError, StorageError, UsageError
from policyloop.evaluate import (
    EVALUATION_ARENAS,
    BorrowedPolicy,
    EvaluationReport,
    drive_episode,
    evaluate,
    summarise,
)
from policyloop.learn.networks import ActorCritic, make_network
from policyloop.robot.recorder import EpisodeSummary
from policyloop.sim.fleet import TRAINING_ARENAS
from policyloop.sim.randomization import Conditions, Randomization

BundleAt = Callable[[Path], Path]


@pytest.fixture
def short(mini: RobotProfile) -> RobotProfile:
    return msgspec.structs.replace(mini, episode=EpisodeRules(max_steps=25))


@pytest.fixture(scope="module")
def network(mini: RobotProfile) -> ActorCritic:
    torch.manual_seed(0)
    return make_network("spatial", mini)


@pytest.fixture(scope="module")
def exported(mini: RobotProfile, network: ActorCritic) -> Bundle:
    return export_bundle(
        network,
        mini,
        mini.nominal_normalizer,
        network_name="spatial",
        version=3,
        noise_hold_ticks=2,
        observations=probe_features(mini, 1),
        training={},
    )


@pytest.fixture
def bundle_at(exported: Bundle) -> BundleAt:
    """Write a bundle at a path."""

    def write(path: Path) -> Path:
        write_directory(path, exported.contents)
        return path

    return write


def summary(
    score: float, *, collided: bool = False, distance_m: float = 1.0, gated: int = 0, steps: int = 300
) -> EpisodeSummary:
    return EpisodeSummary(steps=steps, score=score, collided=collided, distance_m=distance_m, gated=gated)


def test_a_report_reduces_episodes_by_hand() -> None:
    report = summarise(
        [
            summary(10.0, distance_m=1.0, gated=2),
            summary(-20.0, collided=True, distance_m=0.5),
            summary(30.0, distance_m=2.5, gated=4),
            summary(40.0, distance_m=4.0),
        ],
        "somebody",
        "full",
    )
    assert (report.driver, report.gate, report.episodes) == ("somebody", "full", 4)
    assert report.returns == (10.0, -20.0, 30.0, 40.0)
    assert (report.return_mean, report.return_median, report.return_iqm) == (15.0, 20.0, 20.0)
    assert report.return_ci[0] < 15.0 < report.return_ci[1]
    assert (report.collision_rate, report.distance_m, report.interventions) == (0.25, 2.0, 1.5)


def test_one_episode_says_nothing_about_the_next() -> None:
    assert summarise([summary(5.0)], "x", "full").return_ci in (None, (-math.inf, math.inf))


def test_a_report_survives_json() -> None:
    report = summarise([summary(5.0), summary(6.0)], "x", "full")
    assert msgspec.json.decode(msgspec.json.encode(report), type=EvaluationReport) == report


def test_a_report_of_one_episode_survives_json() -> None:
    report = summarise([summary(5.0)], "x", "full")
    assert msgspec.json.decode(msgspec.json.encode(report), type=EvaluationReport).returns == (5.0,)


def test_evaluation_arenas_are_not_those_of_training() -> None:
    assert EVALUATION_ARENAS not in TRAINING_ARENAS
    assert max(TRAINING_ARENAS) < EVALUATION_ARENAS


@pytest.mark.parametrize("driver", ["scripted", "random"])
def test_equal_arguments_give_equal_reports_and_other_arenas_another(short: RobotProfile, driver: str) -> None:
    first, second = (evaluate(short, driver, episodes=2, arena_seed=60_010) for _ in range(2))
    assert first == second
    assert first.returns != evaluate(short, driver, episodes=2, arena_seed=60_020).returns
    assert first.returns[0] != first.returns[1]


def test_each_arena_is_driven_the_same_alone_or_in_a_row(short: RobotProfile) -> None:
    row = evaluate(short, "random", episodes=3, arena_seed=60_030)
    assert row.returns == tuple(drive_episode(short, "random", 60_030 + i, "limits").score for i in range(3))


def test_a_randomised_report_repeats_says_so_and_differs_from_the_nominal_one(short: RobotProfile) -> None:
    first, second = (
        evaluate(short, "scripted", episodes=2, arena_seed=60_010, randomization=Randomization()) for _ in range(2)
    )
    nominal = evaluate(short, "scripted", episodes=2, arena_seed=60_010)
    assert first == second
    assert (first.randomized, nominal.randomized) == (True, False)
    assert first.returns != nominal.returns


def test_every_driver_is_judged_under_the_same_conditions(short: RobotProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds: list[Conditions] = []
    draw = Randomization.draw

    def noted(ranges: Randomization, rng: np.random.Generator) -> Conditions:
        worlds.append(draw(ranges, rng))
        return worlds[-1]

    monkeypatch.setattr(Randomization, "draw", noted)
    for driver in ("scripted", "random"):
        drive_episode(short, driver, 60_010, "limits", Randomization())
    assert worlds[: len(worlds) // 2] == worlds[len(worlds) // 2 :]


def test_a_robot_that_walks_is_not_randomised(lite3: RobotProfile, bundle_at: BundleAt, tmp_path: Path) -> None:
    walker = BorrowedPolicy("walker", None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="rover"):
        evaluate(lite3, walker, episodes=1, randomization=Randomization())


def test_progress_and_label_are_passed_on(short: RobotProfile) -> None:
    told: list[tuple[int, int]] = []
    report = evaluate(
        short, "random", episodes=2, arena_seed=60_040, label="noise", progress=lambda *done: told.append(done)
    )
    assert told == [(1, 2), (2, 2)]
    assert (report.driver, report.gate) == ("noise", "limits")
    assert evaluate(short, "random", episodes=1, arena_seed=60_040).driver == "random"


def test_the_full_gate_keeps_a_random_driver_from_most_collisions(mini: RobotProfile) -> None:
    loose = evaluate(mini, "random", episodes=4, arena_seed=60_050, gate="limits")
    gated = evaluate(mini, "random", episodes=4, arena_seed=60_050, gate="full")
    assert gated.collision_rate < loose.collision_rate
    assert loose.interventions == 0
    assert gated.interventions > 0


def test_a_policy_is_evaluated_without_exploration(short: RobotProfile, bundle_at: BundleAt, tmp_path: Path) -> None:
    path = str(bundle_at(tmp_path / "bundle"))
    first, second = (evaluate(short, path, episodes=1, arena_seed=60_060) for _ in range(2))
    assert first == second
    # an untrained network proposes the middle of each range: 0.25 m/s straight ahead
    assert first.distance_m == pytest.approx(25 * 0.1 * 0.25, rel=0.2)
    assert first.return_mean == pytest.approx(first.distance_m * 10 * 2 - 0.25, abs=3.0)


def test_a_policy_of_another_profile_is_refused(short: RobotProfile, bundle_at: BundleAt, tmp_path: Path) -> None:
    rates = msgspec.structs.replace(short.rates, control_hz=20.0)
    with pytest.raises(IncompatibleError):
        evaluate(msgspec.structs.replace(short, rates=rates), str(bundle_at(tmp_path / "bundle")), episodes=1)


def test_a_driver_that_is_neither_name_nor_path_is_a_storage_error(short: RobotProfile) -> None:
    with pytest.raises(StorageError, match="nobody"):
        evaluate(short, "nobody", episodes=1)
