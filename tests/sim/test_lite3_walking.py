"""Many Lite3s that learn to walk: rewards by hand, and the same motion as the one simulated robot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.errors import ConfigError
from policyloop.runtime.policy import Policy
from policyloop.sim import lite3_walking
from policyloop.sim.lite3 import Lite3
from policyloop.sim.lite3_model import STANDING_M, Lite3Physics
from policyloop.sim.lite3_walking import WALKING_REWARD, WALKING_TERMS, WalkingLite3s, _Moment

POSE = np.array([0, -0.65, 1.3] * 4)
HOLDING_NM = np.array([1.80, -0.52, -3.30, -1.86, -0.42, -3.22, 2.40, -0.57, -4.02, -2.42, -0.46, -3.94])
HOLDING = HOLDING_NM / 30 / ([0.125, 0.25, 0.25] * 4)
"""Outputs that carry the robot."""
DOWN = np.array([0, -2.5, 2.7] * 4)
ORDER = np.array([7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 4, 6])
TICK_S = 0.012

Make = Callable[..., WalkingLite3s]


@pytest.fixture
def make(lite3: RobotProfile) -> Iterator[Make]:
    """Return `make(count=4, seed=0, profile=..., **options)`."""
    made: list[WalkingLite3s] = []

    def build(count: int = 4, seed: int = 0, profile: RobotProfile = lite3, **options: Any) -> WalkingLite3s:
        made.append(WalkingLite3s(profile, count, seed, **options))
        return made[-1]

    yield build
    for robots in made:
        robots.close()


@pytest.fixture
def equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """All robots are the one of the model, and nobody is pushed."""
    for name in ("_FRICTIONS", "_GAINS"):
        monkeypatch.setattr(lite3_walking, name, (1.0, 1.0))
    monkeypatch.setattr(lite3_walking, "_PAYLOADS_KG", (0.0, 0.0))
    monkeypatch.setattr(lite3_walking, "_PUSH_MPS", 0.0)


@pytest.fixture(scope="module")
def shuffled(lite3: RobotProfile) -> RobotProfile:
    """The Lite3 with its joints in another order."""
    assert lite3.joints is not None
    efforts = tuple(lite3.joints.max_effort_nm[index] for index in ORDER)
    return msgspec.structs.replace(
        lite3,
        action=tuple(lite3.action[index] for index in ORDER),
        joints=msgspec.structs.replace(lite3.joints, max_effort_nm=efforts),
    )


# -- rewards ----------------------------------------------------------------------------------


def moment(**changes: Any) -> _Moment:
    """Return a moment in which one robot stands as it should and is asked for 0.5 m/s ahead."""
    calm: dict[str, Any] = {
        "velocity": [0.5, 0, 0],
        "rates": [0, 0, 0],
        "gravity": [0, 0, -1],
        "wanted": [0.5, 0, 0],
        "height": 0.33,
        "torque": [0] * 12,
        "joints": POSE,
        "change": [0] * 12,
        "feet": [0] * 4,
        "down": [True] * 4,
        "landed_after": [0] * 4,
        "stance": [0] * 4,
    }
    return _Moment(**{name: np.array([value]) for name, value in {**calm, **changes}.items()})


IDEAL = {"progress": 1.0, "velocity": 1.0, "turning": 1.0}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("progress", {"velocity": [0.25, 0.7, 0.1]}, 0.5),
        ("progress", {"velocity": [0.9, 0, 0]}, 1.0),
        ("progress", {"velocity": [-2.0, 0, 0]}, -1.0),
        ("velocity", {"velocity": [0.3, 0.1, 9.0]}, math.exp(-(0.04 + 0.01) / 0.1)),
        ("velocity", {"velocity": [0.5, 0.2, 0], "wanted": [0.5, 0.2, 0]}, 1.0),
        ("turning", {"rates": [5.0, 5.0, 0.3], "wanted": [0.5, 0, -0.2]}, math.exp(-0.25 / 0.25)),
        ("bounce", {"velocity": [9.0, 9.0, -0.4]}, 0.16),
        ("sway", {"rates": [0.3, -0.4, 9.0]}, 0.25),
        ("lean", {"gravity": [0.3, -0.4, -0.866]}, 0.25),
        ("effort", {"torque": [2.0, -3.0] * 6}, 78.0),
        ("jerk", {"change": [0.5, -0.5, 0] * 4}, 2.0),
        ("height", {"height": 0.23}, 0.01),
        ("splay", {"joints": [0.1, 9, 9, -0.2, 9, 9, 0.3, 9, 9, -0.4, 9, 9]}, 0.3),
        ("swing", {"landed_after": [0.18, 0, 0, 0]}, 0.10),
        ("swing", {"landed_after": [5.0, 0.02, 0, 0]}, 0.12 - 0.06),
        ("drag", {"stance": [0.4, 0.6, 5.0, 0.5]}, 0.1 + 0.5),
        ("trot", {"down": [True, False, False, True]}, 1.0),
        ("trot", {"down": [False, True, True, False]}, 1.0),
        ("trot", {"down": [True, True, False, False]}, 0.0),
        ("trot", {"down": [True, False, True, False]}, 0.0),
        ("trot", {"down": [False] * 4}, 0.0),
        ("trot", {"down": [True, False, False, False]}, 0.0),
        ("clearance", {"feet": [0.03, 0.2, 0.002, 0.0], "down": [False, False, True, True]}, 0.08),
    ],
)
def test_terms_by_hand(name: str, changes: dict[str, Any], expected: float) -> None:
    found = WALKING_TERMS[name](moment(**changes))
    assert found.shape == (1,)
    assert found[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(WALKING_TERMS))
def test_a_robot_that_stands_and_is_as_fast_as_it_should_be_is_neither_paid_nor_fined_for_more(name: str) -> None:
    assert WALKING_TERMS[name](moment())[0] == pytest.approx(IDEAL.get(name, 0.0))


@pytest.mark.parametrize("name", sorted(WALKING_TERMS))
def test_terms_are_of_each_robot_by_itself(name: str) -> None:
    rng = np.random.default_rng(0)
    rows = [
        moment(
            velocity=rng.normal(size=3),
            rates=rng.normal(size=3),
            gravity=rng.normal(size=3),
            wanted=rng.uniform(0.3, 0.7, 3),
            height=rng.uniform(0.2, 0.4),
            torque=rng.normal(size=12),
            joints=rng.normal(size=12),
            change=rng.normal(size=12),
            feet=rng.uniform(0, 0.1, 4),
            down=rng.random(4) < 0.5,
            landed_after=rng.uniform(0, 0.4, 4) * (rng.random(4) < 0.5),
            stance=rng.uniform(0, 1, 4),
        )
        for _ in range(5)
    ]
    many = _Moment(
        **{field: np.concatenate([getattr(row, field) for row in rows]) for field in _Moment.__struct_fields__}
    )
    single = [WALKING_TERMS[name](row)[0] for row in rows]
    np.testing.assert_allclose(WALKING_TERMS[name](many), single)


def test_every_weight_is_of_a_term() -> None:
    assert set(WALKING_REWARD) == set(WALKING_TERMS)


def test_an_unknown_term_is_refused_by_name(lite3: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="no walking term 'dance'") as caught:
        WalkingLite3s(lite3, 1, 0, reward={"progress": 1.0, "dance": 2.0})
    assert "progress, velocity" in caught.value.remedy


def test_the_reward_of_a_tick_is_the_weighted_sum_per_second(make: Make, equal: None) -> None:
    outputs = np.random.default_rng(0).normal(0, 0.3, (4, 12))
    single = {
        name: make(reward={name: 1.0}).step(outputs).reward.astype(float) for name in ("progress", "lean", "jerk")
    }
    both = make(reward={"progress": 2.0, "lean": -3.0, "jerk": 0.5}).step(outputs).reward
    np.testing.assert_allclose(both, 2 * single["progress"] - 3 * single["lean"] + 0.5 * single["jerk"], rtol=1e-4)
    # The first output's change is from zero, the output of a start.
    np.testing.assert_allclose(single["jerk"], (outputs**2).sum(1) * TICK_S, rtol=1e-5)


# -- what they sense --------------------------------------------------------------------------


def test_observations_are_the_profiles_and_the_critic_gets_more(make: Make, lite3: RobotProfile) -> None:
    robots = make(5)
    proprio, privileged = robots.observe()
    assert (proprio.shape, proprio.dtype) == ((5, 45), np.float32)
    assert (privileged.shape, privileged.dtype) == ((5, robots.privileged_size), np.float32)
    assert robots.privileged_size == 12
    np.testing.assert_allclose(proprio[:, 3:6], [[0, 0, -1]] * 5, atol=1e-6)
    assert ((proprio[:, 6] >= 0.3) & (proprio[:, 6] <= 0.7)).all()
    assert not proprio[:, 7].any()
    assert (np.abs(proprio[:, 8]) <= 0.3).all()
    assert np.abs(proprio[:, 9:21] - POSE).max() <= 0.1 + 1e-6
    assert not proprio[:, 21:].any()
    np.testing.assert_allclose(privileged[:, 3], STANDING_M, atol=1e-6)
    came = robots.step(np.full((5, 12), 0.25))
    assert came.reward.shape == came.terminated.shape == came.truncated.shape == (5,)
    assert came.reward.dtype == np.float32
    assert came.final_proprio.shape == (5, 45)
    assert came.final_privileged.shape == (5, 12)
    np.testing.assert_array_equal(came.final_proprio[:, 33:], np.full((5, 12), 0.25))
    np.testing.assert_array_equal(robots.observe()[0], came.final_proprio)  # nobody began anew


def test_the_profiles_order_of_what_is_sensed_counts(make: Make, lite3: RobotProfile) -> None:
    backwards = msgspec.structs.replace(lite3, proprio=lite3.proprio[::-1])
    ahead, behind = make().observe()[0], make(profile=backwards).observe()[0]
    np.testing.assert_array_equal(behind[:, :12], ahead[:, 33:])
    np.testing.assert_array_equal(behind[:, 24:36], ahead[:, 9:21])
    np.testing.assert_array_equal(behind[:, -3:], ahead[:, :3])


def test_joints_are_told_and_moved_by_their_names(
    make: Make, shuffled: RobotProfile, lite3: RobotProfile, equal: None
) -> None:
    straight, crossed = make(2), make(2, profile=shuffled)
    crossed._state = straight._state.copy()
    crossed._wanted = straight._wanted.copy()
    rng = np.random.default_rng(1)
    for _ in range(20):
        outputs = HOLDING + rng.normal(0, 0.2, (2, 12))
        one, other = straight.step(outputs), crossed.step(outputs[:, ORDER])
        np.testing.assert_array_equal(one.reward, other.reward)
    np.testing.assert_array_equal(straight._state, crossed._state)
    for start in (9, 21, 33):
        np.testing.assert_array_equal(
            one.final_proprio[:, start : start + 12][:, ORDER], other.final_proprio[:, start : start + 12]
        )
    np.testing.assert_array_equal(one.final_proprio[:, :9], other.final_proprio[:, :9])


def test_another_robots_profile_is_refused(walker: RobotProfile, lite3: RobotProfile) -> None:
    entry = msgspec.structs.replace(lite3.action[4], name="FR_Wheel")
    strange = msgspec.structs.replace(lite3, action=(*lite3.action[:4], entry, *lite3.action[5:]))
    with pytest.raises(ConfigError, match="does not describe a Lite3: FR_Wheel"):
        WalkingLite3s(strange, 1, 0)


def test_who_is_no_lite3_or_wants_to_sense_what_nobody_does_is_refused(
    mini: RobotProfile, lite3: RobotProfile, make: Make
) -> None:
    with pytest.raises(ConfigError, match="'rover-mini' does not describe a Lite3"):
        make(profile=mini)
    entry = msgspec.structs.replace(lite3.proprio[0], name="foot_force")
    with pytest.raises(ConfigError, match="no simulated Lite3 senses 'foot_force'") as caught:
        make(profile=msgspec.structs.replace(lite3, proprio=(entry, *lite3.proprio[1:])))
    assert "base_ang_vel" in caught.value.remedy


def test_outputs_go_through_the_profiles_own_map(make: Make, equal: None, lite3: RobotProfile) -> None:
    """A policy drives a robot by the map of its profile: it must learn by the same."""
    wide = tuple(
        msgspec.structs.replace(entry, low=center - 0.5, high=center + 0.5, center=None, scale=None)
        for entry, center in zip(lite3.action, POSE.tolist(), strict=True)
    )
    bent = msgspec.structs.replace(lite3, action_map="tanh", action=wide)
    linear = msgspec.structs.replace(
        lite3, action=tuple(msgspec.structs.replace(entry, scale=0.5) for entry in lite3.action)
    )
    outputs = np.random.default_rng(0).normal(0, 0.5, (4, 12))
    one, other = make(profile=bent), make(profile=linear)
    one.step(outputs)
    other.step(np.tanh(outputs))
    np.testing.assert_allclose(one._state, other._state, atol=1e-5)


# -- how they move ----------------------------------------------------------------------------


def test_each_is_the_one_simulated_robot(make: Make, equal: None, lite3: RobotProfile) -> None:
    robots, body = make(3), Lite3(lite3, Lite3Physics(whole_body=False))
    body._data.qpos[:] = robots._state[1, 1:20]
    body._data.qvel[:] = robots._state[1, 20:38]
    rng = np.random.default_rng(2)
    away = []
    for _ in range(40):
        outputs = HOLDING + rng.normal(0, 0.3, (3, 12))
        robots.step(outputs)
        body.drive(lite3.actions_of(outputs[1]))
        away.append(np.abs(robots._state[1, 1:20] - body._data.qpos).max())
    assert max(away[:10]) < 1e-3  # solvers that begin elsewhere end a little elsewhere
    assert away[-1] < 0.02
    assert np.abs(robots._state[0] - robots._state[1]).max() > 0.1


def test_the_vendors_policy_walks_them(make: Make, lite3: RobotProfile, lite3_policy: Policy) -> None:
    """Ten robots of different floors, loads and motors, that are pushed: nobody falls, all walk as asked."""
    robots = make(10, seed=3)
    robots._age_s[:] = 0
    forward, falls = [], 0
    for tick in range(400):
        proprio, privileged = robots.observe()
        answers = [lite3_policy.act(Observation({"proprio": row}, 0)).behaviour for row in proprio]
        falls += robots.step(np.array([answer.sample for answer in answers if answer])).terminated.sum()
        if tick >= 167:
            forward.append(privileged[:, 0] / robots._wanted[:, 0])
    assert falls == 0
    assert 0.6 < np.mean(forward) < 1.1


def test_equal_seeds_are_equal_robots_and_robots_differ(make: Make) -> None:
    one, again, other = make(seed=1), make(seed=1), make(seed=2)
    outputs = np.tile(HOLDING, (4, 1))
    for _ in range(5):
        for robots in (one, again, other):
            robots.step(outputs)
    np.testing.assert_array_equal(one._state, again._state)
    assert np.abs(one._state - other._state).max() > 0.01
    masses = [float(model.body_mass.sum()) for model in one._models]
    frictions = [float(model.geom_friction[0, 0]) for model in one._models]
    gains = [(float(model.actuator_gainprm[0, 0]), -float(model.actuator_biasprm[0, 2])) for model in one._models]
    assert len(set(masses)) == len(set(frictions)) == len(set(gains)) == 4
    assert all(11.9376 - 0.5 <= mass <= 11.9376 + 2.0 for mass in masses)
    assert all(30 * 0.85 <= kp <= 30 * 1.15 and 0.85 <= kd <= 1.15 for kp, kd in gains)
    for model in one._models:
        np.testing.assert_array_equal(model.actuator_gainprm[:, 0], -model.actuator_biasprm[:, 1])


def test_robots_are_pushed_now_and_then(make: Make) -> None:
    """Once in three seconds each, of 0.4 m/s: of 200 robots in 100 ticks of 12 ms that is 80 times on average."""
    robots = make(200)
    pushes = []
    for _ in range(100):
        before = robots._state[:, 20:22].copy()
        robots._push()
        change = np.linalg.norm(robots._state[:, 20:22] - before, axis=1)
        pushes.extend(change[change > 0].tolist())
    assert 50 < len(pushes) < 115
    assert pushes == pytest.approx([0.4] * len(pushes))


# -- ends -------------------------------------------------------------------------------------


def test_who_falls_has_ended_pays_for_it_and_begins_anew(make: Make) -> None:
    robots = make(4, reward={"lean": 0.0})
    robots._age_s[:] = 0
    outputs = np.tile(HOLDING, (4, 1))
    outputs[2] = (DOWN - POSE) / ([0.125, 0.25, 0.25] * 4)
    for _ in range(100):
        came = robots.step(outputs)
        if came.terminated.any():
            break
    assert came.terminated.tolist() == [False, False, True, False]
    assert not came.truncated.any()
    assert came.reward.tolist() == [0.0, 0.0, -1.0, 0.0]
    assert came.final_privileged[2, 3] < 0.18 or came.final_proprio[2, 5] > -0.8  # where it fell
    np.testing.assert_allclose(came.final_proprio[2, 33:], outputs[2])
    proprio, privileged = robots.observe()
    assert not proprio[2, 33:].any()  # nothing was said yet
    assert privileged[2, 3] == pytest.approx(STANDING_M)
    np.testing.assert_allclose(proprio[2, 3:6], [0, 0, -1], atol=1e-6)
    assert robots._age_s[2] == 0 < robots._age_s[1]
    others = [0, 1, 3]
    np.testing.assert_array_equal(proprio[others], came.final_proprio[others])


@pytest.mark.parametrize(("roll", "fell"), [(0.6, False), (0.7, True), (-0.7, True)])
def test_who_leans_too_far_has_fallen(roll: float, fell: bool, make: Make) -> None:
    """cos 0.6 is 0.825, cos 0.7 is 0.765; the limit is 0.8."""
    robots = make(1)
    robots._age_s[:] = 0
    robots._state[0, 4:8] = [math.cos(roll / 2), math.sin(roll / 2), 0, 0]
    robots._state[0, 3] += 0.2  # in the air
    robots._state[0, 20:] = 0
    assert robots.step(HOLDING[None]).terminated.tolist() == [fell]


def test_time_is_up_after_ten_seconds_and_that_is_no_fall(make: Make, equal: None) -> None:
    robots = make(3)
    robots._age_s[:] = [9.98, 9.995, 0.0]
    wanted = robots._wanted.copy()
    came = robots.step(np.tile(HOLDING, (3, 1)))
    assert came.truncated.tolist() == [False, True, False]
    assert not came.terminated.any()
    assert robots._age_s[1] == 0
    assert (robots._wanted != wanted).any(axis=1).tolist() == [False, True, False]
    assert came.final_proprio[1, 6] == np.float32(wanted[1, 0])
    assert robots.observe()[0][1, 6] == np.float32(robots._wanted[1, 0])


def test_they_do_not_all_end_at_once(make: Make) -> None:
    ages = make(64)._age_s
    assert ages.min() < 1.5 < 6.5 < ages.max() <= 8.0


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e9])
def test_a_simulation_that_has_burst_is_a_fall_and_no_number_of_it_is_left(
    number: float, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo keeps a log
    robots = make(3)
    robots._age_s[:] = 0
    robots._state[1, 30] = number
    came = robots.step(np.tile(HOLDING, (3, 1)))
    assert came.terminated.tolist() == [False, True, False]
    for numbers in (came.reward, came.final_proprio, came.final_privileged, *robots.observe(), robots._state):
        assert np.isfinite(numbers).all()


def test_feet_that_land_are_timed(make: Make, equal: None) -> None:
    robots = make(1)
    robots._age_s[:] = 0
    robots._state[0, 3] += 0.05  # it falls from there: sqrt(2 * 0.05 / 9.81) = 0.101 s
    robots._state[0, 20:22] = 0
    landed: list[float] = []
    moments = robots._moment

    def note(target: Any, change: Any) -> _Moment:
        now = moments(target, change)
        landed.extend(now.landed_after[now.landed_after > 0].tolist())
        return now

    robots._moment = note  # type: ignore[method-assign]
    for _ in range(25):
        robots.step(HOLDING[None])
    assert len(landed) >= 4
    assert landed[0] == pytest.approx(0.09, abs=0.03)
    assert robots._stance_s.max() > 0.05
