"""The simulated Lite3 against its published numbers, and against hand-made motions."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import mujoco
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConfigError
from policyloop.sim.lite3 import Lite3, joint_order
from policyloop.sim.lite3_model import JOINTS, LEGS, STANDING_M, Lite3Physics

POSE = np.array([0, -0.65, 1.3] * 4)
HOLDING_NM = np.array([1.80, -0.52, -3.30, -1.86, -0.42, -3.22, 2.40, -0.57, -4.02, -2.42, -0.46, -3.94])
"""What the motors must give in that pose lest the legs sag."""
EFFORTS_NM = (24.0, 24.0, 36.0) * 4
TEN_SECONDS = 833
ORDER = np.array([7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 4, 6])
"""Another robot's idea of the order of joints."""


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


def leaning_deg(body: Lite3, profile: RobotProfile) -> tuple[float, float]:
    proprio = np.zeros(45, np.float32)
    proprio[3:6] = body.sense().gravity
    leaning = profile.leaning(proprio)
    assert leaning is not None
    return math.degrees(leaning[0]), math.degrees(leaning[1])


def turned(body: Lite3, roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0) -> None:
    """Turn the torso: Rz(yaw) Ry(pitch) Rx(roll), as a quaternion by hand."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(np.array([roll, pitch, yaw]) / 2), np.sin(np.array([roll, pitch, yaw]) / 2)
    body._data.qpos[3:7] = (
        cy * cp * cr + sy * sp * sr,
        cy * cp * sr - sy * sp * cr,
        cy * sp * cr + sy * cp * sr,
        sy * cp * cr - cy * sp * sr,
    )


# -- the model --------------------------------------------------------------------------------


def test_its_masses_are_the_vendors(lite3: RobotProfile) -> None:
    masses = Lite3(lite3)._model.body_mass
    assert masses.sum() == pytest.approx(11.9376, abs=1e-9)
    assert masses[1] == pytest.approx(5.6056)
    np.testing.assert_allclose(masses[2:].reshape(4, 4), [[0.55, 0.86, 0.153, 0.02]] * 4)


def test_a_payload_lies_on_the_torso(lite3: RobotProfile) -> None:
    masses = Lite3(lite3, Lite3Physics(payload_kg=2.5))._model.body_mass
    assert (masses.sum(), masses[1]) == (pytest.approx(14.4376), pytest.approx(8.1056))


def test_every_joint_is_where_its_name_says(lite3: RobotProfile) -> None:
    model = Lite3(lite3)._model
    ranges = {"HipX": (-0.523, 0.523), "HipY": (-2.67, 0.314), "Knee": (0.524, 2.792)}
    for index, name in enumerate(JOINTS):
        joint = model.joint(name)
        assert (joint.qposadr[0], joint.dofadr[0]) == (7 + index, 6 + index)
        assert tuple(joint.range) == ranges[name.split("_")[1]]
        assert tuple(joint.axis) == ((-1, 0, 0) if name.endswith("HipX") else (0, -1, 0))
        assert model.actuator(name).trnid[0] == joint.id
        assert (lite3.action[index].name, lite3.action[index].low, lite3.action[index].high) == (name, *joint.range)


def test_the_soles_touch_the_floor_in_its_pose_and_nothing_else_does(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    heights = [body._data.geom(f"{leg}_foot").xpos[2] for leg in LEGS]
    np.testing.assert_allclose(heights, 0.022, atol=5e-4)
    places = np.array([body._data.geom(f"{leg}_foot").xpos[:2] for leg in LEGS])
    assert [(x > 0, y > 0) for x, y in places] == [(True, True), (True, False), (False, True), (False, False)]
    assert body.motion.height_m == STANDING_M == 0.3485


@pytest.mark.parametrize(
    ("joint", "angle", "foot_goes"),
    [
        ("FL_HipX", 0.3, (0, -1)),  # a left foot inwards
        ("HR_HipX", 0.3, (0, -1)),  # a right foot outwards
        ("FR_HipY", -0.9, (1, 0)),  # the thigh from 0.65 back to 0.9
        ("HL_Knee", 1.8, (1, 0)),
    ],
)
def test_joints_turn_as_the_vendors_do(
    joint: str, angle: float, foot_goes: tuple[int, int], lite3: RobotProfile
) -> None:
    """HipX > 0 turns about -x; the knee bends forward; a thigh that goes back takes the foot along, backwards."""
    body = Lite3(lite3)
    foot = body._data.geom(f"{joint[:2]}_foot")
    before = foot.xpos[:2].copy()
    body._data.qpos[7 + JOINTS.index(joint)] = angle
    mujoco.mj_kinematics(body._model, body._data)
    moved = body._data.geom(f"{joint[:2]}_foot").xpos[:2] - before
    sign = -1 if joint.endswith("HipY") else 1
    assert np.argmax(np.abs(moved)) == (0 if foot_goes[0] else 1)
    assert np.sign(moved[np.argmax(np.abs(moved))]) == sign * (foot_goes[0] or foot_goes[1])


def test_fewer_shapes_are_the_same_robot(lite3: RobotProfile) -> None:
    whole, light = Lite3(lite3), Lite3(lite3, Lite3Physics(whole_body=False))
    assert whole._model.ngeom - light._model.ngeom == 12  # hips, thighs and shanks
    assert light._model.body_mass.sum() == pytest.approx(11.9376)
    for _ in range(100):
        whole.drive(POSE + HOLDING_NM / 30)
        light.drive(POSE + HOLDING_NM / 30)
    np.testing.assert_array_equal(whole._data.qpos, light._data.qpos)


def test_friction_is_that_of_feet_and_floor(lite3: RobotProfile) -> None:
    model = Lite3(lite3, Lite3Physics(friction=0.3))._model
    assert set(model.geom_friction[:, 0]) == {0.3}


@pytest.mark.parametrize(
    ("hz", "step_s", "substeps", "timestep_s"),
    [(1000 / 12, 0.002, 6, 0.002), (1000 / 12, 0.005, 2, 0.006), (50.0, 0.004, 5, 0.004), (500.0, 0.005, 1, 0.002)],
)
def test_a_tick_is_a_whole_number_of_steps(
    hz: float, step_s: float, substeps: int, timestep_s: float, lite3: RobotProfile
) -> None:
    profile = msgspec.structs.replace(lite3, rates=msgspec.structs.replace(lite3.rates, control_hz=hz))
    body = Lite3(profile, Lite3Physics(step_s=step_s))
    body.stand()
    assert body._model.opt.timestep == pytest.approx(timestep_s)
    assert body._data.time == pytest.approx(1 / hz)
    assert body._data.time / body._model.opt.timestep == pytest.approx(substeps)


# -- standing ---------------------------------------------------------------------------------


def stands(body: Lite3, profile: RobotProfile, target: np.ndarray, kp: float, kd: float) -> tuple[float, float]:
    """Return the height after ten seconds at a constant target, m, and the largest lean on the way, degrees."""
    worst_deg = 0.0
    for _ in range(TEN_SECONDS):
        body.follow(target, kp, kd)
        worst_deg = max(worst_deg, *map(abs, leaning_deg(body, profile)))
    return body.motion.height_m, worst_deg


@pytest.mark.parametrize(
    ("kp", "kd", "compensated", "height_m", "lean_deg"),
    [
        (30, 1.0, True, 0.348, 0.40),
        (40, 1.0, True, 0.348, 0.14),
        (60, 1.0, False, 0.333, 1.56),
        (100, 2.5, False, 0.340, 0.64),
    ],
)
def test_it_stands_ten_seconds_where_the_vendors_model_does(
    kp: float, kd: float, compensated: bool, height_m: float, lean_deg: float, lite3: RobotProfile
) -> None:
    body = Lite3(lite3)
    found_m, found_deg = stands(body, lite3, POSE + HOLDING_NM / kp * compensated, kp, kd)
    assert found_m == pytest.approx(height_m, abs=1e-3)
    assert found_deg == pytest.approx(lean_deg, abs=0.03)
    assert body.motion.feet_down == (True,) * 4
    assert not body.low


def test_it_sinks_at_the_policys_gains_where_nothing_holds_it_up_as_the_vendors_does(lite3: RobotProfile) -> None:
    height_m, lean_deg = stands(Lite3(lite3), lite3, POSE, 30, 1)
    assert height_m == pytest.approx(0.255, abs=0.01)
    assert lean_deg > 20


def test_the_motors_hold_it_with_the_published_torques(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    stands(body, lite3, POSE + HOLDING_NM / 40, 40, 1)
    np.testing.assert_allclose(body._data.actuator_force, HOLDING_NM, atol=0.25)
    body.reset(None)
    for _ in range(50):
        body.stand()
    np.testing.assert_allclose(body._data.actuator_force, HOLDING_NM, atol=0.6)


# -- motors -----------------------------------------------------------------------------------


def test_the_torque_is_kp_times_the_way_less_kd_times_the_speed_within_the_effort(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    speeds = np.linspace(-2, 2, 12)
    body._data.qvel[6:] = speeds
    away = np.array([0.2, -0.3, 0.4, -5, 5, -5, 0, 0, 5, 0.1, 0.2, -0.1])
    body.follow(POSE + away, 30, 1.5, steps=1)
    wanted = 30 * away - 1.5 * speeds
    np.testing.assert_allclose(
        body._data.actuator_force, np.clip(wanted, *np.array([[-1], [1]]) * EFFORTS_NM), atol=1e-5
    )
    assert (np.abs(wanted) > EFFORTS_NM).sum() == 4


def test_driving_takes_the_profiles_gains_and_standing_the_vendors(lite3: RobotProfile) -> None:
    def gains(body: Lite3) -> set[tuple[float, ...]]:
        model = body._model
        return {(*model.actuator_gainprm[i, :1], *model.actuator_biasprm[i, 1:3]) for i in range(12)}

    body = Lite3(lite3)
    assert gains(body) == {(100.0, -100.0, -2.5)}
    body.drive(POSE)
    assert gains(body) == {(30.0, -30.0, -1.0)}
    body.stand()
    assert gains(body) == {(100.0, -100.0, -2.5)}
    body.damp()
    assert gains(body) == {(0.0, 0.0, -3.0)}


def test_joints_that_damp_give_no_torque_but_against_their_motion(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    body._data.qpos[7:] += 0.2
    body._data.qvel[6:] = speeds = np.linspace(-3, 3, 12)
    body.follow(POSE, 0.0, 3.0, steps=1)
    np.testing.assert_allclose(body._data.actuator_force, -3 * speeds, atol=1e-12)


def test_a_robot_whose_joints_damp_sinks_softly_and_lies_upright(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    heights = []
    for _ in range(170):
        body.damp()
        heights.append(body.motion.height_m)
    assert heights[10] > 0.3  # 0.13 s after, where a free fall would have ended
    assert body.low
    assert max(map(abs, leaning_deg(body, lite3))) < 10


def test_without_efforts_in_the_profile_motors_have_no_end(lite3: RobotProfile) -> None:
    assert lite3.joints is not None
    joints = msgspec.structs.replace(lite3.joints, max_effort_nm=())
    body = Lite3(msgspec.structs.replace(lite3, joints=joints))
    body.follow(POSE + 5, 100, 1, steps=1)
    np.testing.assert_allclose(body._data.actuator_force, 500)


@pytest.mark.parametrize(("latency_s", "steps"), [(0.0, 0), (0.001, 0), (0.004, 2), (0.012, 6), (0.030, 15)])
def test_motors_follow_a_target_so_much_later(latency_s: float, steps: int, lite3: RobotProfile) -> None:
    """Steps of 2 ms, a target each."""
    body = Lite3(lite3, latency_s=latency_s)
    in_force = []
    for step in range(36):
        body.follow(POSE + 0.01 * (step + 1), 30, 1, steps=1)
        in_force.append(round(body._data.ctrl[0] / 0.01))
    assert in_force == [0] * steps + list(range(1, 37 - steps))


def test_a_target_within_a_tick_changes_the_motion_from_then_on(lite3: RobotProfile) -> None:
    prompt, late = Lite3(lite3), Lite3(lite3, latency_s=0.004)
    for body in (prompt, late):
        body.drive(POSE + 0.1)
    assert prompt._data.ctrl[0] == late._data.ctrl[0] == pytest.approx(0.1)
    assert 0 < late.sense().joint_pos[0] < prompt.sense().joint_pos[0]


def test_a_reset_forgets_targets_that_are_still_on_their_way(lite3: RobotProfile) -> None:
    body = Lite3(lite3, latency_s=0.024)
    for _ in range(2):
        body.drive(POSE + 0.3)
    body.reset(None)
    for _ in range(4):
        body.follow(POSE, 100, 2.5, steps=13)
        np.testing.assert_allclose(body._data.ctrl, POSE, atol=1e-6)


# -- senses -----------------------------------------------------------------------------------


def test_gravity_and_the_profile_agree_on_roll_and_pitch(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    for roll, pitch, yaw in ((0, 0, 0), (0.3, 0, 0), (0, -0.4, 0), (-0.5, 0.6, 2.0), (1.0, -1.2, -3.0)):
        turned(body, roll, pitch, yaw)
        assert leaning_deg(body, lite3) == pytest.approx((math.degrees(roll), math.degrees(pitch)), abs=1e-3)


def test_the_gyroscope_is_in_the_bodys_frame_and_motion_in_the_direction_that_it_faces(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    turned(body, yaw=math.pi / 2)
    body._data.qvel[:3] = (0.1, 0.5, 0.0)  # in the world
    body._data.qvel[3:6] = (0.2, -0.3, 0.7)
    np.testing.assert_allclose(body.sense().angular_velocity, (0.2, -0.3, 0.7))
    motion = body.motion
    assert (motion.forward_mps, motion.left_mps, motion.yaw_radps) == pytest.approx((0.5, -0.1, 0.7))
    turned(body, roll=math.pi / 2)  # its left side is up
    assert body.motion.yaw_radps == pytest.approx(-0.3)


def test_what_was_sensed_does_not_change_later(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    before = body.sense()
    kept = msgspec.to_builtins({name: getattr(before, name).tolist() for name in before.__struct_fields__})
    body.push(0.5, 1.0)
    for _ in range(20):
        body.damp()
    assert kept == {name: getattr(before, name).tolist() for name in before.__struct_fields__}


def test_a_push_is_a_change_of_velocity(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    body._data.qvel[:2] = (0.1, 0.2)
    body.push(0.4, math.pi / 2)
    np.testing.assert_allclose(body._data.qvel[:3], (0.1, 0.6, 0.0), atol=1e-12)


def test_feet_that_are_up_are_not_down(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    lifted = POSE.copy()
    lifted[3:6] = (0, -1.2, 2.4)  # front right
    for _ in range(8):
        body.follow(lifted, 100, 2.5)
    assert body.motion.feet_down[1] is False
    body.reset(None)
    body._data.qpos[2] += 0.1
    body.stand()
    assert body.motion.feet_down == (False,) * 4


@pytest.mark.parametrize(("height_m", "low"), [(0.151, False), (0.149, True), (math.nan, True), (math.inf, False)])
def test_a_torso_near_the_floor_lies(height_m: float, low: bool, lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    body._data.qpos[2] = height_m
    assert body.low is low


def test_a_simulation_that_has_burst_lies_and_does_not_stand_up_again_by_itself(
    lite3: RobotProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo keeps a log
    body = Lite3(lite3)
    body._data.qvel[10] = math.nan
    body.stand()
    assert body.low
    body.reset(None)
    body.stand()
    assert not body.low


# -- starts -----------------------------------------------------------------------------------


def test_a_start_without_chance_is_the_pose_at_rest(lite3: RobotProfile) -> None:
    body = Lite3(lite3)
    body.push(1.0, 0.0)
    body.drive(POSE + 0.3)
    body.reset(None)
    np.testing.assert_allclose(body._data.qpos, [0, 0, STANDING_M, 1, 0, 0, 0, *POSE], atol=1e-6)
    assert not body._data.qvel.any()


def test_random_starts_are_near_the_pose_and_the_same_for_the_same_seed(lite3: RobotProfile) -> None:
    body, rng = Lite3(lite3), np.random.default_rng(0)
    states, leans = [], []
    for _ in range(200):
        body.reset(rng)
        states.append([*body._data.qpos, *body._data.qvel])
        leans.append(leaning_deg(body, lite3))
    found = np.array(states)
    assert 5.5 < np.abs(np.array(leans)).max() <= math.degrees(0.1) + 1e-4  # whatever the heading
    np.testing.assert_allclose(found[:, :3], [[0, 0, STANDING_M + 0.01]] * 200)  # lest a leg be in the floor
    offsets = found[:, 7:19] - POSE
    assert 0.09 < offsets.max() <= 0.1 + 1e-6
    assert -0.1 - 1e-6 <= offsets.min() < -0.09
    speeds = found[:, 19:]
    assert 0.18 < np.abs(speeds[:, :6]).max() <= 0.2
    assert not speeds[:, 6:].any()
    body.reset(np.random.default_rng(0))
    np.testing.assert_array_equal([*body._data.qpos, *body._data.qvel], states[0])


def test_it_can_lie_on_its_belly_with_folded_legs(lite3: RobotProfile, shuffled: RobotProfile) -> None:
    for profile in (lite3, shuffled):
        body = Lite3(profile)
        body.reset(np.random.default_rng(0), lying=True)
        np.testing.assert_allclose(body._data.qpos[7:], [0, -1.35453, 2.54948] * 4)
        assert body.low
        assert leaning_deg(body, profile) == pytest.approx((0, 0))


# -- the order of joints ----------------------------------------------------------------------


def test_joints_are_found_by_their_names(lite3: RobotProfile, shuffled: RobotProfile) -> None:
    assert joint_order(lite3).tolist() == list(range(12))
    assert joint_order(shuffled).tolist() == ORDER.tolist()


def test_efforts_go_with_their_joints(shuffled: RobotProfile) -> None:
    assert shuffled.joints is not None
    distinct = tuple(10.0 + index for index in range(12))
    joints = msgspec.structs.replace(shuffled.joints, max_effort_nm=distinct)
    model = Lite3(msgspec.structs.replace(shuffled, joints=joints))._model
    for entry, effort in zip(shuffled.action, distinct, strict=True):
        assert tuple(model.actuator(entry.name).forcerange) == (-effort, effort)


def test_the_same_targets_by_name_are_the_same_motion_in_any_order(lite3: RobotProfile, shuffled: RobotProfile) -> None:
    ours, theirs = Lite3(lite3), Lite3(shuffled)
    phases = np.arange(12)
    for tick in range(120):
        target = POSE + 0.1 * np.sin(0.2 * tick + phases)
        ours.drive(target)
        theirs.drive(target[ORDER])
    np.testing.assert_array_equal(ours._data.qpos, theirs._data.qpos)
    assert np.abs(ours._data.qpos[7:] - POSE).max() > 0.05
    np.testing.assert_array_equal(ours.sense().joint_pos[ORDER], theirs.sense().joint_pos)
    np.testing.assert_array_equal(ours.sense().joint_vel[ORDER], theirs.sense().joint_vel)
    for body in (ours, theirs):
        for _ in range(5):
            body.stand()
            body.damp()
    np.testing.assert_array_equal(ours._data.qpos, theirs._data.qpos)


def test_another_robots_joints_are_refused_by_name(lite3: RobotProfile, walker: RobotProfile) -> None:
    entry = msgspec.structs.replace(lite3.action[4], name="FR_Wheel")
    strange = msgspec.structs.replace(lite3, action=(*lite3.action[:4], entry, *lite3.action[5:]))
    with pytest.raises(ConfigError, match="'lite3' does not describe a Lite3: FR_Wheel"):
        Lite3(strange)
    assert lite3.joints is not None
    fewer = msgspec.structs.replace(
        lite3,
        action=lite3.action[:11],
        proprio=lite3.proprio[:3],
        joints=msgspec.structs.replace(lite3.joints, max_effort_nm=()),
    )
    with pytest.raises(ConfigError, match="does not describe a Lite3: HR_Knee"):
        Lite3(fewer)
    with pytest.raises(ConfigError, match="'walker' does not describe a Lite3: hip, knee, ankle"):
        Lite3(walker)


def test_a_lite3_without_a_table_of_joints_is_refused(lite3: RobotProfile) -> None:
    upright = tuple(msgspec.structs.replace(entry, low=-3.0, high=3.0) for entry in lite3.action)
    with pytest.raises(ConfigError, match=r"it has no \[joints\]"):
        Lite3(msgspec.structs.replace(lite3, action=upright, joints=None))
