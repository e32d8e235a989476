"""The arithmetic, by hand."""

from __future__ import annotations

import msgspec
import pytest

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import UsageError
from policyloop.learn.bc import BcSettings
from policyloop.learn.ppo import PpoSettings
from policyloop.learn.rlpd import RlpdSettings
from policyloop.learn.settings import LearnerSettings
from policyloop.measured import NEEDED
from policyloop.plan import (
    CHECKPOINT_UPDATES,
    CRITIC_UPDATES,
    MAX_STALENESS,
    PASSES_PER_STEP,
    PROBATION_S,
    UPDATE_INTERVAL,
    Plan,
    Situation,
    duration,
    fitting_learner,
    make_plan,
)
from policyloop.runtime.health import SwapSettings


@pytest.fixture(scope="module")
def rover() -> RobotProfile:
    return load_profile("rover")


def after(plan: Plan, what: str) -> tuple[float, float]:
    (found,) = [milestone.after_s for milestone in plan.milestones if milestone.what == what]
    return found


def ppo(**changes: object) -> Situation:
    """Return the originals' way: one robot at 10 Hz, updates of 8192 steps; 100 passes a second."""
    return msgspec.convert(
        {"learner": "ppo", "rate_hz": 10.0, "demonstrations": 0, "passes_per_s": 100.0, **changes}, Situation
    )


def test_the_originals_figures(rover: RobotProfile) -> None:
    plan = make_plan(rover, ppo(passes_per_s=1e9))
    # 8192 steps at 10 Hz are 13.7 minutes; the tenth update comes after 2 h 16 of driving
    assert plan.collect_s == 819.2
    assert after(plan, "the first update is done")[0] == pytest.approx(819.2, rel=1e-3)
    tenth_s, _ = after(plan, "the tenth update, a checkpoint")
    assert duration(tenth_s) == "2 h 16 min"
    assert "13.7 min of driving" in plan.warnings[0]


def test_an_update_by_hand(rover: RobotProfile) -> None:
    plan = make_plan(rover, ppo())
    # four passes over 8192 steps at 100 a second
    assert plan.update_s == 4 * 8192 / 100
    assert plan.keeps_up
    assert plan.staleness == 1  # what is driven meanwhile is one version old
    assert after(plan, "the first update is done") == (pytest.approx(819.2 + 327.68),) * 2
    # learning happens while the next steps come in
    assert after(plan, "the tenth update, a checkpoint")[0] == pytest.approx(10 * 819.2 + 327.68)


def test_stop_and_go_costs_time_and_leaves_no_step_stale(rover: RobotProfile) -> None:
    plan = make_plan(rover, ppo(stop_and_go=True))
    assert plan.staleness == 0
    assert after(plan, "the tenth update, a checkpoint")[0] == pytest.approx(10 * (819.2 + 327.68))


def test_a_learner_that_does_not_keep_up_sets_the_pace_and_says_so(rover: RobotProfile) -> None:
    plan = make_plan(rover, ppo(passes_per_s=10.0))
    assert not plan.keeps_up
    # 3276.8 s to learn, 819.2 s to gather: four versions late
    assert plan.staleness == 4
    assert after(plan, "the tenth update, a checkpoint")[0] == pytest.approx(819.2 + 10 * 3276.8)
    said = " ".join(plan.warnings)
    assert "it needs 40 passes a second and makes 10" in said
    assert "steps lag by up to 4 versions; more than 2 are not learned from" in said


def test_a_clone_by_hand_and_what_ppo_waits_for_after_it(rover: RobotProfile) -> None:
    plan = make_plan(rover, ppo(demonstrations=6000))
    assert after(plan, "demonstrations are recorded")[0] == 600
    # ten passes over 6000 steps at 100 a second
    assert after(plan, "the first clone drives")[0] == 600 + 600
    assert after(plan, "it has proved itself")[0] == 1200 + 30
    first_s, _ = after(plan, "the first update is done")
    assert first_s == pytest.approx(1200 + 819.2 + 327.68)
    assert after(plan, "an update changes the clone")[0] == pytest.approx(first_s + 3 * 819.2)
    assert not any("always clone first" in warning for warning in plan.warnings)


def test_robots_share_the_driving(rover: RobotProfile) -> None:
    one, four = (make_plan(rover, ppo(robots=robots, demonstrations=6000)) for robots in (1, 4))
    assert four.steps_per_s == 4 * one.steps_per_s == 40
    assert four.collect_s == one.collect_s / 4
    assert (four.radio_mbps, four.gateway_mbps) == (one.radio_mbps, pytest.approx(4 * one.gateway_mbps))
    assert after(four, "demonstrations are recorded")[0] == 150


def test_a_good_policy_comes_after_the_steps_of_the_table(rover: RobotProfile) -> None:
    low, high = NEEDED["ppo from nothing"].steps
    assert after(make_plan(rover, ppo()), "a good policy") == (low / 10, high / 10)
    low, high = NEEDED["rlpd"].steps
    plan = make_plan(rover, ppo(learner="rlpd", passes_per_s=1e6))
    assert after(plan, "a good policy") == (low / 10, high / 10)
    # a minibatch of 128 for every second step
    plan = make_plan(rover, ppo(learner="rlpd", passes_per_s=64.0))
    assert after(plan, "a good policy") == (low, high)
    assert "it needs 640 passes a second and makes 64" in " ".join(plan.warnings)
    assert after(make_plan(rover, ppo(learner="bc", demonstrations=6000)), "a good policy")[0] == 1200
    assert after(make_plan(rover, ppo(learner="bc", demonstrations=2000)), "a good policy")[0] == pytest.approx(1200)


def test_rlpd_ships_a_policy_every_two_hundred_steps(rover: RobotProfile) -> None:
    plan = make_plan(rover, ppo(learner="rlpd", passes_per_s=2560.0, demonstrations=600))
    # 60 s of demonstrations, ten passes over each; then 20 s of driving, and 100 minibatches of 128
    start_s = 60 + 6000 / 2560
    assert (plan.collect_s, plan.update_s, plan.keeps_up, plan.staleness) == (20, 5, True, 0)
    assert after(plan, "the first update is done")[0] == pytest.approx(start_s + 20 + 5)
    assert after(plan, "the tenth update, a checkpoint")[0] == pytest.approx(start_s + 10 * 20 + 5)
    assert not any(milestone.what == "an update changes the clone" for milestone in plan.milestones)


def test_an_interval_of_ones_own(rover: RobotProfile) -> None:
    plan = make_plan(rover, ppo(update_interval=2048))
    assert (plan.collect_s, plan.update_s) == (204.8, 81.92)
    assert "2048 steps at a time" in plan.warnings[0]


def test_bytes_by_hand(rover: RobotProfile, mini: RobotProfile, lite3: RobotProfile) -> None:
    plan = make_plan(rover, ppo())
    pixels = 424 * 240
    assert plan.bytes_per_step == {"header": 820, "proprio": 24, "rgb": 0.38 * pixels, "depth": 0.41 * pixels}
    step_bytes = 844 + 0.79 * pixels
    assert plan.radio_mbps == pytest.approx(step_bytes * 10 * 8 / 1e6)
    assert plan.disk_gb_per_hour == pytest.approx(step_bytes * 36_000 / 1e9)
    assert plan.disk_gb == pytest.approx(step_bytes * 90_000 / 1e9)
    assert make_plan(mini, ppo()).bytes_per_step["rgb"] == 3 * 64 * 36  # streams raw pictures
    assert set(make_plan(lite3, ppo()).bytes_per_step) == {"header", "proprio"}


def test_a_weak_link_is_warned_of(rover: RobotProfile) -> None:
    assert not any("2.4 GHz" in warning for warning in make_plan(rover, ppo(rate_hz=30.0)).warnings)
    assert any("2.4 GHz" in warning for warning in make_plan(rover, ppo(rate_hz=60.0)).warnings)


def test_what_takes_days_is_said(rover: RobotProfile) -> None:
    assert any("takes days: 4.2 days" in warning for warning in make_plan(rover, ppo(rate_hz=1 / 6)).warnings)
    assert not any("takes days" in warning for warning in make_plan(rover, ppo()).warnings)


@pytest.mark.parametrize(
    ("profile", "robots", "sim_robots", "learner"),
    [
        ("rover", 1, 0, "rlpd"),
        ("rover", 63, 63, "rlpd"),
        ("rover", 64, 0, "ppo"),
        ("rover", 1, 64, "ppo"),
        ("lite3", 1, 64, "simulated"),
        ("lite3", 1, 0, "rlpd"),
    ],
)
def test_which_learner_fits(profile: str, robots: int, sim_robots: int, learner: str) -> None:
    loaded = load_profile(profile)
    assert fitting_learner(loaded, robots, sim_robots)[0] == learner
    assert make_plan(loaded, Situation(robots=robots, sim_robots=sim_robots)).learner == learner


def test_simulated_walkers_need_no_radio(lite3: RobotProfile) -> None:
    plan = make_plan(lite3, Situation(learner="simulated"))
    assert after(plan, "a good policy") == (400, 400)  # 3.0 M steps at 7500 a second
    assert (plan.keeps_up, plan.staleness, plan.radio_mbps, plan.disk_gb) == (True, 0, 0, 0)
    assert plan.warnings == ()


def test_rovers_are_not_simulated_in_the_trainer(rover: RobotProfile) -> None:
    with pytest.raises(UsageError, match="not simulated in the trainer's own process") as caught:
        make_plan(rover, Situation(learner="simulated"))
    assert "--sim-robots" in caught.value.remedy


def test_many_simulated_cameras_need_many_cores(rover: RobotProfile, mini: RobotProfile) -> None:
    # 64 robots at 10 Hz: 640 steps a second, of which a core makes 33 at 424x240 and 1599 at 64x36
    assert any("about 20 cores" in warning for warning in make_plan(rover, Situation(sim_robots=64)).warnings)
    assert not any("cores" in warning for warning in make_plan(mini, Situation(sim_robots=64)).warnings)


def test_without_a_measurement_a_table_is_used_and_named(
    rover: RobotProfile, mini: RobotProfile, lite3: RobotProfile
) -> None:
    plans = [make_plan(profile, ppo(passes_per_s=None)) for profile in (rover, mini, lite3)]
    assert [plan.passes_per_s for plan in plans] == [pytest.approx(100), pytest.approx(3200), 55_000]
    assert all("table" in plan.passes_source for plan in plans)
    assert make_plan(rover, ppo()).passes_source == "measured on this machine just now"


def test_a_plan_uses_the_learners_own_settings() -> None:
    bc, ppo_, rlpd = BcSettings(), PpoSettings(), RlpdSettings()
    actor_passes = rlpd.minibatch * rlpd.critic_steps / rlpd.actor_interval
    assert (PASSES_PER_STEP["bc"], PASSES_PER_STEP["ppo"], PASSES_PER_STEP["rlpd"]) == (
        bc.epochs,
        ppo_.epochs,
        actor_passes,
    )
    for learner in ("ppo", "rlpd"):
        assert UPDATE_INTERVAL[learner] == LearnerSettings(learner=learner).steps_per_update
    assert (LearnerSettings().max_staleness, ppo_.critic_warmup_updates) == (MAX_STALENESS, CRITIC_UPDATES)
    assert LearnerSettings().checkpoint_interval == CHECKPOINT_UPDATES
    assert SwapSettings().probation_s == PROBATION_S


def test_milestones_come_in_order(rover: RobotProfile) -> None:
    for learner in ("bc", "ppo", "rlpd"):
        plan = make_plan(rover, Situation(learner=learner))
        times = [milestone.after_s for milestone in plan.milestones]
        assert times == sorted(times)
        assert all(low <= high for low, high in times)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (819.2, "13.7 min"),
        (8192, "2 h 16 min"),
        (86_400, "24 h 0 min"),
        (432_000, "5.0 days"),
    ],
)
def test_durations_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
