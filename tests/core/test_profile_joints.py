"""Profiles of robots with joints: action maps, stopping, posture, where things lie, and what is refused."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import Joints, Rates, RobotProfile, load_profile
from policyloop.core.spec import Quantity, RangedQuantity
from policyloop.core.step import Command
from policyloop.errors import ConfigError

TEXT = (resources.files("policyloop") / "profiles" / "lite3.toml").read_text(encoding="utf-8")
CENTERS = (0.0, -0.65, 1.3) * 4


def load(folder: Path, text: str) -> RobotProfile:
    (folder / "robot.toml").write_text(text)
    return load_profile(folder / "robot.toml")


def replaced(*changes: tuple[str, str]) -> str:
    """Return the Lite3's file with the first occurrence of each changed."""
    text = TEXT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def rotation(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Return Rz(yaw) Ry(pitch) Rx(roll), body to world."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def leaning_by(roll_deg: float, pitch_deg: float = 0.0, yaw_deg: float = 0.0, length: float = 1.0) -> np.ndarray:
    """Return the Lite3's proprioception vector where only the direction of gravity is not zero."""
    turned = rotation(*np.radians([roll_deg, pitch_deg, yaw_deg]))
    proprio = np.zeros(45, np.float32)
    proprio[3:6] = length * (turned.T @ [0, 0, -1])
    return proprio


# -- what the Lite3 is ------------------------------------------------------------------------


def test_the_lite3_is_the_contract_of_its_vendors_policy(lite3: RobotProfile) -> None:
    assert [entry.name for entry in lite3.action] == [
        f"{leg}_{joint}" for leg in ("FL", "FR", "HL", "HR") for joint in ("HipX", "HipY", "Knee")
    ]
    layout = {
        "base_ang_vel": slice(0, 3),
        "projected_gravity": slice(3, 6),
        "wanted_linear_vel": slice(6, 8),
        "wanted_angular_vel": slice(8, 9),
        "joint_pos": slice(9, 21),
        "joint_vel": slice(21, 33),
        "last_action": slice(33, 45),
    }
    assert {entry.name: lite3.proprio_slice(entry.name) for entry in lite3.proprio} == layout
    assert lite3.proprio_size == 45
    assert lite3.rates.period_ns == 12_000_000
    assert lite3.rates.command_valid_ns == 100_000_000
    assert lite3.joints is not None
    assert (lite3.joints.kp, lite3.joints.kd) == (30.0, 1.0)
    assert (math.degrees(lite3.joints.max_roll_rad), math.degrees(lite3.joints.max_pitch_rad)) == pytest.approx(
        (30, 45), abs=1e-3
    )
    assert lite3.camera is None


def test_the_network_sees_angles_about_their_pose_and_what_else_by_the_vendors_scales(lite3: RobotProfile) -> None:
    normalizer = lite3.nominal_normalizer
    assert normalizer.mean == pytest.approx((0.0,) * 9 + CENTERS + (0.0,) * 24)
    scales = 1 / np.array(normalizer.std)
    np.testing.assert_allclose(scales, [0.25] * 3 + [1.0] * 18 + [0.05] * 12 + [1.0] * 12)


def test_angles_keep_their_own_centres_where_there_are_no_joints(walker: RobotProfile) -> None:
    angles = (Quantity(name="joint_pos", unit="rad", size=3, center=0.7),)
    assert msgspec.structs.replace(walker, proprio=angles).nominal_normalizer.mean == (0.7,) * 3


def test_a_robot_with_joints_need_not_sense_their_angles(lite3: RobotProfile) -> None:
    proprio = tuple(entry for entry in lite3.proprio if entry.name != "joint_pos")
    assert msgspec.structs.replace(lite3, proprio=proprio).nominal_normalizer.mean == (0.0,) * 33


# -- action maps ------------------------------------------------------------------------------


def test_a_linear_action_is_center_plus_scale_times_output_without_an_end(lite3: RobotProfile) -> None:
    outputs = np.array([1.0, -2.0, 0.0, 0, 0, 0, 0, 0, 0, 100.0, 0, -100.0])
    expected = [0.125, -1.15, 1.3, 0, -0.65, 1.3, 0, -0.65, 1.3, 12.5, -0.65, -23.7]
    np.testing.assert_allclose(lite3.actions_of(outputs), expected, atol=1e-6)
    np.testing.assert_allclose(lite3.actions_of(np.stack([outputs, 0 * outputs]))[1], CENTERS, atol=1e-6)
    np.testing.assert_allclose(lite3.action_scale, [0.125, 0.25, 0.25] * 4)


def test_an_action_of_tanh_stays_in_its_range(mini: RobotProfile) -> None:
    np.testing.assert_allclose(mini.actions_of(np.array([[100.0, -100.0]])), [[0.6, -1.2]], atol=1e-6)
    np.testing.assert_allclose(mini.actions_of(np.array([1.0, 0.5])), [0.25 + 0.35 * np.tanh(1), 1.2 * np.tanh(0.5)])
    np.testing.assert_array_equal(mini.action_scale, mini.action_half_range)


# -- stopping ---------------------------------------------------------------------------------


def test_a_rover_stops_by_not_moving_and_a_quadruped_by_letting_its_joints_damp(
    mini: RobotProfile, lite3: RobotProfile
) -> None:
    assert mini.stop("stale", "late") == Command((0.0, 0.0), ("stale", "late"), damped=False)
    assert lite3.stop("stale") == Command(CENTERS, ("stale",), damped=True)
    assert lite3.stop().reasons == ()


def test_joints_with_a_tanh_map_damp_about_the_middle_of_their_ranges(walker: RobotProfile) -> None:
    proprio = (Quantity(name="projected_gravity", unit="1", size=3),)
    legged = msgspec.structs.replace(walker, proprio=proprio, joints=Joints(kp=20, kd=0.5))
    assert legged.stop() == Command((0.0, 0.4, 0.0), (), damped=True)


@pytest.mark.parametrize(
    ("rates", "valid_ms"),
    [
        (Rates(), 200),  # two ticks
        (Rates(control_hz=3.0, sensor_timeout_s=1.0), 500),
        (Rates(control_hz=50.0), 40),
        (Rates(control_hz=50.0, command_valid_s=0.1), 100),
        (Rates(control_hz=3.0, sensor_timeout_s=1.0, command_valid_s=0.4), 400),
    ],
)
def test_commands_are_valid_for_two_ticks_or_as_the_profile_says(rates: Rates, valid_ms: int) -> None:
    assert rates.command_valid_ns == valid_ms * 1_000_000


# -- posture ----------------------------------------------------------------------------------


def test_gravity_tells_roll_and_pitch_by_hand(lite3: RobotProfile) -> None:
    proprio = np.zeros(45, np.float32)
    for gravity, roll_deg, pitch_deg in (
        ((0, 0, -1), 0, 0),
        ((0, -1, 0), 90, 0),  # on its right side: x forward, left is up
        ((0, 1, 0), -90, 0),
        ((1, 0, 0), 0, 90),  # on its nose
        ((-1, 0, 0), 0, -90),
        ((0, -0.5, -math.sqrt(0.75)), 30, 0),
        ((math.sqrt(0.5), 0, -math.sqrt(0.5)), 0, 45),
    ):
        proprio[3:6] = gravity
        leaning = lite3.leaning(proprio)
        assert leaning is not None
        if abs(pitch_deg) < 90:
            assert math.degrees(leaning[0]) == pytest.approx(roll_deg, abs=1e-4)
        assert math.degrees(leaning[1]) == pytest.approx(pitch_deg, abs=1e-4)


@pytest.mark.parametrize("yaw_deg", [0.0, 77.0, -160.0])
@pytest.mark.parametrize("roll_deg", [-170.0, -31.0, 0.0, 5.0, 120.0])
@pytest.mark.parametrize("pitch_deg", [-80.0, -10.0, 0.0, 44.0])
@pytest.mark.parametrize("length", [1.0, 0.91, 1.09])
def test_leaning_undoes_any_rotation_whatever_the_heading_and_the_length(
    yaw_deg: float, roll_deg: float, pitch_deg: float, length: float, lite3: RobotProfile
) -> None:
    leaning = lite3.leaning(leaning_by(roll_deg, pitch_deg, yaw_deg, length))
    assert leaning is not None
    assert np.degrees(leaning) == pytest.approx([roll_deg, pitch_deg], abs=1e-3)


def test_who_does_not_sense_gravity_leans_nowhere_and_never_falls(mini: RobotProfile) -> None:
    proprio = np.full(6, 9.0, np.float32)
    assert mini.leaning(proprio) is None
    assert not mini.fallen(proprio)


def test_a_robot_without_joints_may_sense_gravity_and_does_not_fall(walker: RobotProfile) -> None:
    proprio = (Quantity(name="projected_gravity", unit="1", size=3),)
    tilting = msgspec.structs.replace(walker, proprio=proprio)
    on_its_side = np.array([0, -1, 0], np.float32)
    assert tilting.leaning(on_its_side) == pytest.approx((math.pi / 2, 0))
    assert not tilting.fallen(on_its_side)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("length", [1.0, 0.91, 1.09])
def test_a_robot_has_fallen_beyond_30_degrees_of_roll_or_45_of_pitch(
    sign: int, length: float, lite3: RobotProfile
) -> None:
    def fallen(roll_deg: float, pitch_deg: float) -> bool:
        return lite3.fallen(leaning_by(sign * roll_deg, sign * pitch_deg, length=length))

    assert [fallen(0, 0), fallen(29.9, 0), fallen(0, 44.9), fallen(29.9, 44.9)] == [False] * 4
    assert [fallen(30.1, 0), fallen(0, 45.1), fallen(30.1, 45.1), fallen(180, 0), fallen(0, 180)] == [True] * 5


# -- where things lie -------------------------------------------------------------------------


def test_a_slice_is_where_a_quantity_lies_and_none_where_it_does_not(mini: RobotProfile) -> None:
    assert mini.proprio_slice("min_forward_dist") == slice(5, 6)
    assert mini.proprio_slice("joint_pos") is None


def test_a_robot_senses_everything_but_its_policys_own_last_output(mini: RobotProfile, lite3: RobotProfile) -> None:
    assert lite3.sensed_indices.tolist() == list(range(33))
    assert mini.sensed_indices.tolist() == list(range(6))
    told = (Quantity(name="delay", unit="s"), *mini.proprio, Quantity(name="last_action", unit="1", size=2))
    assert msgspec.structs.replace(mini, proprio=told).sensed_indices.tolist() == list(range(1, 7))
    first = (lite3.proprio[-1], *lite3.proprio[:-1])
    assert msgspec.structs.replace(lite3, proprio=first).sensed_indices.tolist() == list(range(12, 45))


def test_what_a_quadruped_does_not_sense_counts_as_nothing_in_a_reward(lite3: RobotProfile, mini: RobotProfile) -> None:
    outcome = lite3.outcome(np.full(45, 7.0, np.float32), collided=True)
    assert (outcome.linear_mps, outcome.angular_radps, outcome.distance_m) == (0.0, 0.0, math.inf)
    assert outcome.collided
    outcome = mini.outcome(np.array([0.5, -0.25, 0, 0, 9.81, 2], np.float32))
    assert (outcome.linear_mps, outcome.angular_radps, outcome.distance_m) == (0.5, -0.25, 2.0)


# -- digests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "digest"), [("rover", "c244f946c24a43bd"), ("rover-mini", "8f3ca739d138b9ec")], ids=["rover", "mini"]
)
def test_recorded_data_and_trained_policies_of_before_stay_valid(name: str, digest: str) -> None:
    assert load_profile(name).digest.startswith(digest)


DIFFERENT = {
    "an action's centre": [("center = 0.0", "center = 0.01")],
    "an action's scale": [("scale = 0.125", "scale = 0.126")],
    "a rate of change": [("max_rate = 26.2", "max_rate = 26.3")],
    "no rate of change": [(", max_rate = 26.2", "")],
    "the validity of commands": [("command_valid_s = 0.1 ", "command_valid_s = 0.11 ")],
    "kp": [("kp = 30.0", "kp = 31.0")],
    "kd": [("kd = 1.0", "kd = 1.1")],
    "damping": [("damping_kd = 3.0", "damping_kd = 3.1")],
    "effort": [("24.0, 24.0, 36.0", "24.0, 24.0, 35.0")],
    "roll": [("max_roll_rad = 0.5236", "max_roll_rad = 0.5")],
    "pitch": [("max_pitch_rad = 0.7854", "max_pitch_rad = 0.7")],
}


@pytest.mark.parametrize("changes", DIFFERENT.values(), ids=DIFFERENT)
def test_a_robot_with_other_joints_is_another_robot(
    changes: list[tuple[str, str]], lite3: RobotProfile, tmp_path: Path
) -> None:
    assert load(tmp_path, replaced(*changes)).digest != lite3.digest
    assert load(tmp_path, TEXT).digest == lite3.digest


def test_joints_alone_and_a_map_alone_change_the_digest_too(walker: RobotProfile) -> None:
    gravity = (Quantity(name="projected_gravity", unit="1", size=3),)
    plain = msgspec.structs.replace(walker, proprio=gravity)
    jointed = msgspec.structs.replace(plain, joints=Joints(kp=20, kd=1))
    entries = tuple(msgspec.structs.replace(entry, center=0.0, scale=1.0) for entry in walker.action)
    linear = msgspec.structs.replace(plain, action=entries, action_map="linear")
    both = msgspec.structs.replace(linear, joints=jointed.joints)
    assert len({profile.digest for profile in (plain, jointed, linear, both)}) == 4


def test_a_profile_with_joints_survives_json_with_its_digest(lite3: RobotProfile) -> None:
    copy = msgspec.json.decode(msgspec.json.encode(lite3), type=RobotProfile)
    assert (copy, copy.digest) == (lite3, lite3.digest)


# -- what is refused --------------------------------------------------------------------------

REFUSED = {
    "no centre": ([(", center = 0.0", "")], "FL_HipX: the linear action map needs a center and a positive scale"),
    "no scale": ([(", scale = 0.125", "")], "FL_HipX: the linear action map needs a center and a positive scale"),
    "a scale of zero": ([("scale = 0.125", "scale = 0.0")], "FL_HipX: the linear action map needs a center and a pos"),
    "a negative scale": ([("scale = 0.125", "scale = -0.1")], "FL_HipX: the linear action map needs a center and a po"),
    "a scale without end": ([("scale = 0.125", "scale = inf")], "FL_HipX.scale must be a finite number"),
    "a centre that is no number": ([("center = 0.0", "center = nan")], "FL_HipX.center must be a finite number"),
    "a centre below the range": ([("center = 0.0", "center = -0.524")], "center -0.524 lies outside -0.523..0.523"),
    "a centre above the range": ([("center = 0.0", "center = 0.524")], "center 0.524 lies outside -0.523..0.523"),
    "an unknown map": ([('action_map = "linear"', 'action_map = "cubic"')], "action_map"),
    "a centre for tanh": ([('action_map = "linear"', 'action_map = "tanh"')], "FL_HipX: center and scale belong to"),
    "no motion": ([("max_rate = 26.2", "max_rate = 0.0")], "FL_HipX: max_rate must be positive"),
    "motion backwards": ([("max_rate = 26.2", "max_rate = -1.0")], "FL_HipX: max_rate must be positive"),
    "motion that is no number": ([("max_rate = 26.2", "max_rate = nan")], "FL_HipX.max_rate must be a finite number"),
    "no stiffness": ([("kp = 30.0", "kp = 0.0")], "joints.kp must be a positive number"),
    "stiffness that is no number": ([("kp = 30.0", "kp = nan")], "joints.kp must be a"),
    "negative damping": ([("kd = 1.0", "kd = -1.0")], "joints.kd must be a positive number"),
    "a stop that does not damp": ([("damping_kd = 3.0", "damping_kd = 0.0")], "joints.damping_kd must be a positive"),
    "endless damping": ([("damping_kd = 3.0", "damping_kd = inf")], "joints.damping_kd must be a"),
    "no roll": ([("max_roll_rad = 0.5236", "max_roll_rad = 0.0")], "joints.max_roll_rad must be a positive number"),
    "any pitch": ([("max_pitch_rad = 0.7854", "max_pitch_rad = inf")], "joints.max_pitch_rad must be a"),
    "a joint without force": ([("[24.0, 24.0", "[24.0, 0.0")], r"joints.max_effort_nm\[1\] must be a positive number"),
    "a missing force": ([("[24.0, ", "[")], "joints.max_effort_nm has 11 entries for 12 actions"),
    "a missing angle": (
        [("size = 12", "size = 11")],
        "joint_pos has size 11, but there are 12 joints",
    ),
    "a speed too many": ([("size = 12\nscale = 20.0", "size = 13\nscale = 20.0")], "joint_vel has size 13"),
    "half a direction": ([('unit = "1"\nsize = 3', 'unit = "1"\nsize = 2')], "projected_gravity.* size 3"),
    "no direction": ([("projected_gravity", "direction")], "a robot with .joints. needs .* projected_gravity"),
    "gravity in m/s^2": ([('unit = "1"\nsize = 3', 'unit = "m/s^2"\nsize = 3')], "projected_gravity: unit 'm/s"),
    "a joint target in no unit": (
        [('unit = "rad", low', 'unit = "1", low')],
        "FL_HipX: a joint target has the unit",
    ),
    "speeds of joints in m/s": (
        [('"joint_vel"\nunit = "rad/s"', '"joint_vel"\nunit = "m/s"')],
        "joint_vel: unit 'm/s', but it is measured in 'rad/s'",
    ),
    "a misspelt gain": ([("kp = 30.0", "k_p = 30.0")], "k_p"),
    "no gain": ([("kd = 1.0\n", "")], "kd"),
    "commands that die before the next comes": (
        [("command_valid_s = 0.1 ", "command_valid_s = 0.012 ")],
        "command_valid_s 0.012 must be at least two ticks and at most 0.5",
    ),
    "commands that live long": ([("command_valid_s = 0.1 ", "command_valid_s = 0.51 ")], "at most 0.5"),
    "commands that live no number": ([("command_valid_s = 0.1 ", "command_valid_s = nan ")], "command_valid_s"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_a_profile_is_refused_by_name(changes: list[tuple[str, str]], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, replaced(*changes))
    assert str(tmp_path / "robot.toml") in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([("center = 0.0", "center = 0.523")], id="a centre at the end of its range"),
        pytest.param([("command_valid_s = 0.1 ", "command_valid_s = 0.5 ")], id="half a second"),
        pytest.param([("command_valid_s = 0.1 ", "")], id="two ticks"),
        pytest.param([(", max_rate = 26.2", "")], id="any speed"),
        pytest.param([("max_effort_nm", "# ")], id="any force"),
    ],
)
def test_what_can_just_be_meant_is_accepted(changes: list[tuple[str, str]], tmp_path: Path) -> None:
    assert load(tmp_path, replaced(*changes)).joints is not None


def test_only_a_robot_with_joints_may_have_a_range_without_zero(lite3: RobotProfile, walker: RobotProfile) -> None:
    knee = lite3.action[2]
    assert knee.low > 0
    away = (RangedQuantity(name="shin", unit="rad", low=0.5, high=1.0), *walker.action[1:2])
    with pytest.raises(ConfigError, match=r"shin: 0\.5\.\.1\.0 leaves out 0, which is standing still"):
        msgspec.structs.replace(walker, action=away)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_direction_has_three_numbers_also_without_joints(size: int, walker: RobotProfile) -> None:
    gravity = (Quantity(name="projected_gravity", unit="1", size=size),)
    with pytest.raises(ConfigError, match=r"projected_gravity.* size 3"):
        msgspec.structs.replace(walker, proprio=gravity)


def test_an_action_of_a_rover_may_have_a_linear_map(mini: RobotProfile) -> None:
    action = tuple(msgspec.structs.replace(entry, center=0.1, scale=0.2) for entry in mini.action)
    linear = msgspec.structs.replace(mini, action=action, action_map="linear")
    np.testing.assert_allclose(linear.actions_of(np.array([1.0, -1.0])), [0.3, -0.1], atol=1e-6)
    assert linear.stop() == Command((0.0, 0.0))  # still, not the centres
