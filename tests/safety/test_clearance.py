"""What the gate knows of the way ahead, of what the camera no longer sees, and of floor that it never saw.

rover-mini by hand: the body is 0.36 m long and wide around the axle, the camera looks from 0.16 m ahead with a focal
length of 46.287 pixels, so an obstacle z m away in column c lies at x = z + 0.16, y = (31.5 - c) z / 46.287. A motion
of v, w takes t = 0.2 s + max(v / 1.5, w / 4) until the robot stands; within t nothing may come closer than 0.04 m, and
0.03 m more for each metre since it was seen, a radian counting like 0.3 m.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Observation
from policyloop.safety.clearance import Clearance, _seen_from

TICK_S = 0.1
MIDDLE = slice(30, 34)
LEFT_EDGE = slice(7, 8)  # one column, 0.5293 to the left per metre
STAND = (0.0, 0.0)


class Rover:
    """A clearance, shown one picture per tick."""

    def __init__(self, profile: RobotProfile) -> None:
        self.profile, self.clearance, self.tick = profile, Clearance(profile), 0
        self.look()

    def see(self, *objects: tuple[slice, float], linear: float = 0.0, angular: float = 0.0) -> Observation:
        """Return an observation: objects as (columns, metres), velocities as measured, the way ahead free."""
        arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.profile.observation_specs.items()}
        arrays["depth"][:] = 5000  # nothing within what is remembered
        for columns, distance_m in objects:
            arrays["depth"][:, columns] = round(1000 * distance_m)
        arrays["proprio"][:] = linear, angular, 0, 0, 9.81, 5.0
        return Observation(arrays, self.tick * 100_000_000)

    def look(self, *objects: tuple[slice, float], moved_m: float = 0.0, turned_rad: float = 0.0) -> None:
        """Let a tick pass in which the robot moves or turns so far."""
        self.tick += 1
        self.clearance.look(self.see(*objects, linear=moved_m / TICK_S, angular=turned_rad / TICK_S))

    def look_around(self) -> Rover:
        """Turn once about."""
        for _ in range(12):
            self.look(turned_rad=math.pi / 6)
        return self

    def drive(self, linear: float, angular: float, *objects: tuple[slice, float]) -> tuple[float, float]:
        """Return what of a motion is clear, with these objects in the picture."""
        self.look(*objects)
        share = self.clearance.clear_share(linear, angular)
        return linear * share, angular * share


@pytest.fixture
def rover(mini: RobotProfile) -> Rover:
    return Rover(mini).look_around()


def obstacle_behind(rover: Rover, gap_m: float) -> Rover:
    """Let the rover see something 0.61 m ahead of its axle, turn round, and back up until `gap_m` is left.

    It has moved 0.942 m + 0.43 m - gap since: the margin is 0.0812 m less 0.03 gaps.
    """
    rover.look((MIDDLE, 0.45))
    rover.look(turned_rad=math.pi)
    rover.look(moved_m=-(0.61 - 0.18 - gap_m))
    return rover


def obstacle_at_the_left(rover: Rover) -> Rover:
    """Let the rover see something at (0.66, 0.265) m and drive on until it stands at (0.02, 0.265): margin 0.0592 m."""
    rover.look((LEFT_EDGE, 0.5))
    rover.look(moved_m=0.64)
    return rover


# -- the free distance ahead ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance_m", "speed_mps"),
    [
        # rover-mini: t = 0.2 s, a = 1.5 m/s^2, safety distance 0.25 m. Solved from v: d = 0.25 + 0.2 v + v^2 / 3.
        (0.34, 0.3),  # 0.06 + 0.03
        (0.49, 0.6),  # 0.12 + 0.12
        (0.2733333333333333, 0.1),  # 0.02 + 0.00333
        (3.25, math.sqrt(9.09) - 0.3),  # room 3: v^2 + 0.6 v = 9
        (0.25, 0.0),
        (0.1, 0.0),
        (0.0, 0.0),
        (-1.0, 0.0),
        (math.nan, 0.0),
    ],
)
def test_allowed_speed_by_hand(mini: RobotProfile, distance_m: float, speed_mps: float) -> None:
    assert Clearance(mini).allowed_speed_mps(distance_m) == pytest.approx(speed_mps, abs=1e-12)


@given(distance_m=st.floats(0.25, 20.0))
def test_the_allowed_speed_uses_up_the_room_exactly(distance_m: float) -> None:
    profile = load_profile("rover-mini")
    speed = Clearance(profile).allowed_speed_mps(distance_m)
    assert speed * 0.2 + speed**2 / 3.0 == pytest.approx(distance_m - 0.25, abs=1e-9)


def test_the_profile_decides_how_far_it_takes_to_stop(mini: RobotProfile) -> None:
    limits = msgspec.structs.replace(mini.limits, reaction_time_s=0.5, max_deceleration_mps2=0.5, safety_distance_m=0.4)
    profile = msgspec.structs.replace(mini, limits=limits)
    # v = 0.4: 0.5 * 0.4 + 0.16 / 1.0 = 0.36
    assert Clearance(profile).allowed_speed_mps(0.76) == pytest.approx(0.4, abs=1e-12)


def test_an_older_distance_leaves_less_room(mini: RobotProfile) -> None:
    clearance = Clearance(mini)
    assert clearance.allowed_speed_mps(0.6, 0.0) == clearance.allowed_speed_mps(0.6, 0.1)  # within 0.2 s
    assert clearance.allowed_speed_mps(0.6, 0.2) < clearance.allowed_speed_mps(0.6, 0.1)
    speed_mps = clearance.allowed_speed_mps(0.6, 0.2)
    assert speed_mps * 0.3 + speed_mps**2 / 3.0 == pytest.approx(0.6 - 0.25)


def test_the_nearer_of_what_is_measured_and_of_what_may_hide_in_a_hole_counts(mini: RobotProfile) -> None:
    rover = Rover(mini)
    seen = rover.see((slice(24, 40), 0.0))  # 16 columns, 0.34567 wide per metre: 0.1 m wide at 0.28930 m
    rover.clearance.look(seen)
    assert rover.clearance.fastest_mps(seen, seen.captured_ns) == pytest.approx(0.15596, abs=1e-4)
    seen.arrays["proprio"][5] = 0.2733333
    assert rover.clearance.fastest_mps(seen, seen.captured_ns) == pytest.approx(0.1, abs=1e-5)


def test_an_observation_that_is_old_already_leaves_less_room(mini: RobotProfile) -> None:
    rover = Rover(mini)
    seen = rover.see()
    seen.arrays["proprio"][5] = 0.37
    # 0.2 s old, and in force for another tick: 0.3 m/s take 0.09 + 0.03 m, and 0.25 m must remain.
    assert rover.clearance.fastest_mps(seen, seen.captured_ns + 200_000_000) == pytest.approx(0.3, abs=1e-6)


def test_what_may_hide_is_forgotten_with_all_else(mini: RobotProfile) -> None:
    rover = Rover(mini)
    rover.look((slice(24, 40), 0.0))
    rover.clearance.reset()
    assert rover.clearance.fastest_mps(rover.see(), rover.tick * 100_000_000) == pytest.approx(3.4868, abs=1e-4)  # 5 m


def test_without_the_distance_ahead_nothing_limits_the_speed(mini: RobotProfile) -> None:
    profile = msgspec.structs.replace(mini, proprio=mini.proprio[:5])
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in profile.observation_specs.items()}
    assert Clearance(profile).fastest_mps(Observation(arrays, 0), 0) == math.inf


# -- what the body would sweep ----------------------------------------------------------------------


def test_nothing_around_means_nothing_to_avoid(rover: Rover) -> None:
    assert rover.drive(0.6, 0.3) == (0.6, 0.3)


@pytest.mark.parametrize(
    ("distance_m", "speed_mps"),
    [
        (0.45, 0.6),  # gap 0.43; 0.6 m/s for 0.6 s: 0.36 of 0.39
        (0.39, 0.45),  # gap 0.37; 0.36 of 0.33 is too far
        (0.30, 0.45),  # gap 0.28; 0.36 is too far, three quarters take 0.5 s: 0.225 of 0.24
        (0.20, 0.3),  # gap 0.18; 0.225 is too far, half takes 0.4 s: 0.12 of 0.14
        (0.12, 0.15),  # gap 0.10; 0.12 is too far, a quarter takes 0.3 s: 0.045 of 0.06
    ],
)
def test_a_thing_ahead_slows_the_robot_even_where_the_free_distance_overlooks_it(
    rover: Rover, distance_m: float, speed_mps: float
) -> None:
    assert rover.drive(0.6, 0.0, (MIDDLE, distance_m)) == pytest.approx((speed_mps, 0.0))


def test_something_behind_that_was_seen_before_stops_backing_up(rover: Rover) -> None:
    obstacle_behind(rover, 0.04)
    assert rover.drive(-0.1, 0.0) == STAND
    assert rover.drive(0.6, 0.0) == (0.6, 0.0)


@pytest.mark.parametrize(
    ("gap_m", "speed_mps"),
    [
        (0.110, -0.1),  # 0.1 m/s takes 0.267 s: 0.0267 leave 0.0833 of the margin 0.0779
        (0.100, -0.075),  # 0.0733 of 0.0782 is too near, three quarters take 0.25 s: 0.0188 leave 0.0812
    ],
)
def test_backing_up_is_allowed_while_there_is_room_to_stop(rover: Rover, gap_m: float, speed_mps: float) -> None:
    obstacle_behind(rover, gap_m)
    assert rover.drive(-0.1, 0.0) == pytest.approx((speed_mps, 0.0))


def test_a_turn_is_slowed_so_that_no_corner_sweeps_over_something_at_the_side(rover: Rover) -> None:
    obstacle_at_the_left(rover)
    # (0.02, 0.265) is 0.085 m from the side. To the left, 0.6 rad bring a corner to 27 mm, 0.38 rad (three quarters of
    # the rate) to 58 mm, 0.21 rad (half) to 75 mm.
    assert rover.drive(0.0, 1.2) == pytest.approx((0.0, 0.6))
    # To the right, three quarters of the rate leave 73 mm.
    assert rover.drive(0.0, -1.2) == pytest.approx((0.0, -0.9))


def test_driving_straight_past_something_at_the_side_is_not_hindered(rover: Rover) -> None:
    obstacle_at_the_left(rover)
    assert rover.drive(0.6, 0.0) == (0.6, 0.0)


def test_a_motion_keeps_its_shape_when_it_is_slowed(rover: Rover) -> None:
    linear, angular = rover.drive(0.6, 0.2, (MIDDLE, 0.30))
    assert 0 < linear < 0.6
    assert angular / linear == pytest.approx(0.2 / 0.6)


def test_a_robot_that_stands_too_near_may_leave_but_not_go_nearer(rover: Rover) -> None:
    obstacle_behind(rover, 0.01)
    assert rover.drive(-0.05, 0.0) == STAND
    assert rover.drive(0.3, 0.0) == (0.3, 0.0)
    assert rover.drive(0.05, 0.0) == (0.05, 0.0)


def test_a_waiting_robot_forgets_nothing(rover: Rover) -> None:
    obstacle_behind(rover, 0.04)
    for _ in range(300):
        rover.look()
    assert rover.drive(-0.1, 0.0) == STAND


@pytest.mark.parametrize(("way_m", "remembered"), [(1.5, True), (2.5, False)])
def test_the_memory_fades_after_five_metres(rover: Rover, way_m: float, remembered: bool) -> None:
    obstacle_behind(rover, 0.04)  # half a turn and 0.39 m count as 1.33 m of way
    rover.look(moved_m=way_m)
    rover.look(moved_m=-way_m)
    assert (rover.drive(-0.1, 0.0) == STAND) == remembered


def test_the_longer_ago_a_thing_was_seen_the_further_the_robot_stays_away_from_it(rover: Rover) -> None:
    obstacle_behind(rover, 0.11)
    assert rover.drive(-0.1, 0.0) == (-0.1, 0.0)
    rover.look(moved_m=0.5)
    rover.look(moved_m=-0.5)
    # The margin is 0.1079 m now. 0.1 m/s would leave 0.0833 m, a quarter for 0.217 s 0.1046 m.
    assert rover.drive(-0.1, 0.0) == STAND


def test_a_robot_that_was_moved_forgets_everything(rover: Rover) -> None:
    obstacle_behind(rover, 0.04)
    rover.clearance.reset()
    assert rover.drive(-0.1, 0.0) == (-0.1, 0.0)


def test_two_robots_keep_two_memories(mini: RobotProfile) -> None:
    one, other = Rover(mini), Rover(mini)
    obstacle_behind(one, 0.04)
    assert other.drive(-0.1, 0.0) == (-0.1, 0.0)


def test_a_point_under_the_body_does_not_hide_the_others(rover: Rover) -> None:
    # As in obstacle_at_the_left, and dead reckoning has carried a second thing under the body, to (-0.03, 0).
    rover.look((LEFT_EDGE, 0.5), (MIDDLE, 0.45))
    rover.look(moved_m=0.64)
    assert rover.drive(0.0, 1.2) == pytest.approx((0.0, 0.6))


def test_a_fast_robot_looks_further_around(mini: RobotProfile) -> None:
    limits = msgspec.structs.replace(mini.limits, max_forward_mps=2.0)
    linear = msgspec.structs.replace(mini.action[0], high=2.0)
    fast = Rover(msgspec.structs.replace(mini, limits=limits, action=(linear, mini.action[1]))).look_around()
    # 2 m/s take 0.2 s + 1.333 s: 3.07 m; three quarters 1.5 m/s * 1.2 s = 1.8 m, half 0.87 m. The gap is 1.98 m.
    assert fast.drive(2.0, 0.0, (MIDDLE, 2.0)) == pytest.approx((1.5, 0.0))


def test_one_absurd_reading_of_the_odometer_does_not_blind_the_memory_for_good(rover: Rover) -> None:
    obstacle_behind(rover, 0.04)
    rover.look((MIDDLE, 0.45), moved_m=1e19, turned_rad=1e19)
    obstacle_behind(rover, 0.04)
    assert rover.drive(-0.1, 0.0) == STAND


def test_a_robot_that_cannot_turn_has_no_use_for_a_picture(mini: RobotProfile) -> None:
    rover = Rover(msgspec.structs.replace(mini, action=mini.action[:1]))
    assert rover.drive(0.6, 0.0, (MIDDLE, 0.2)) == (0.6, 0.0)
    rover.clearance.reset()


def test_what_a_curve_leaves_where_by_hand() -> None:
    # 0.375 pi m/s and pi/4 rad/s for 2 s: a quarter of a circle of 1.5 m; it ends at (1.5, 1.5), facing left.
    seen = _seen_from(np.array([1.5 + 2.5j], np.complex64), 0.375 * math.pi, math.pi / 4, 2.0)
    assert seen.shape == (4, 1)
    # Half way: at (1.0607, 0.4393), facing 45 degrees; (0.4393, 2.0607) from there.
    assert seen[1, 0] == pytest.approx(1.76777 + 1.14645j, abs=1e-5)
    # After a quarter: at (0.5740, 0.1142), facing 22.5 degrees; (0.9260, 2.3858) from there.
    assert seen[0, 0] == pytest.approx(1.76849 + 1.84983j, abs=1e-4)
    assert seen[3, 0] == pytest.approx(1.0, abs=1e-6)


def test_what_a_straight_line_leaves_where_by_hand() -> None:
    seen = _seen_from(np.array([3.0 + 1.0j, 0.0], np.complex64), 1.0, 0.0, 2.0)
    assert seen[:, 0].tolist() == [2.5 + 1j, 2.0 + 1j, 1.5 + 1j, 1.0 + 1j]
    assert seen[:, 1].tolist() == [-0.5, -1.0, -1.5, -2.0]


@pytest.mark.parametrize(
    ("linear", "angular", "reach_m"),
    [
        (0.6, 0.0, 0.36),  # 0.2 s + 0.4 s
        (0.0, -1.2, 0.152735),  # a corner is 0.254558 m from the axle; 0.2 s + 0.3 s
        (-0.1, 1.2, 0.202735),  # (0.1 + 0.305470) m/s for 0.5 s
    ],
)
def test_how_far_a_point_of_the_body_can_get(mini: RobotProfile, linear: float, angular: float, reach_m: float) -> None:
    assert Clearance(mini)._reach_m(linear, angular) == pytest.approx(reach_m, abs=1e-6)


# -- floor that nobody has looked at ----------------------------------------------------------------


def test_a_robot_that_has_seen_nothing_yet_creeps_ahead(mini: RobotProfile) -> None:
    rover = Rover(mini)  # beside its front corners the camera sees the floor from 0.305 m on
    assert rover.drive(0.6, 0.0) == pytest.approx((0.1, 0.0))
    assert rover.drive(0.1, 0.0) == (0.1, 0.0)


def test_a_robot_that_creeps_needs_no_more_room_than_that(mini: RobotProfile) -> None:
    # 0.1 m/s for 0.267 s: 0.027 m of the 0.06 m that are left before the margin; for 0.3 m/s they would not do.
    assert Rover(mini).drive(0.3, 0.0, (MIDDLE, 0.12)) == pytest.approx((0.1, 0.0))
    # What is 0.085 m from its side stops no corner that turns by 0.05 rad; by 0.47 rad it would.
    rover, nothing = Rover(mini), (slice(0, 64), 0.0)
    rover.clearance.reset()
    rover.look(nothing, (LEFT_EDGE, 0.5))
    rover.look(nothing, moved_m=0.64)
    assert rover.drive(0.6, 1.2, nothing) == pytest.approx((0.1, 0.2))


@pytest.mark.parametrize("motion", [(-0.1, 0.0), (0.0, 1.2), (0.0, -1.2), (0.1, 1.2)])
def test_what_the_profile_limits_already_is_not_limited_again(mini: RobotProfile, motion: tuple[float, float]) -> None:
    assert Rover(mini).drive(*motion) == motion


def test_a_tight_curve_over_floor_that_was_never_seen_is_driven_slowly_and_keeps_its_shape(mini: RobotProfile) -> None:
    for side in (1, -1):
        rover = Rover(mini)
        rover.look(moved_m=0.3)
        assert rover.drive(0.6, side * 1.2) == (0.6, side * 1.2)  # it comes straight from there
        for _ in range(20):
            rover.look(moved_m=0.06, turned_rad=side * 0.12)
        # The body sweeps what is 0.32 m to 0.70 m from the middle of the circle; the camera saw it from 0.50 m on.
        assert rover.drive(0.6, side * 1.2) == pytest.approx((0.1, side * 0.2))


@pytest.mark.parametrize("hidden", [slice(0, 31), slice(33, 64)])
def test_floor_ahead_of_either_corner_counts(mini: RobotProfile, hidden: slice) -> None:
    rover = Rover(mini)
    rover.clearance.reset()
    rover.look((hidden, 0.0))
    rover.look((slice(0, 64), 0.0), moved_m=0.3)
    assert rover.drive(0.6, 0.0, (slice(0, 64), 0.0)) == pytest.approx((0.1, 0.0))


def test_a_wide_body_has_wide_corners_that_nobody_sees(mini: RobotProfile) -> None:
    for width_m, speed_mps in ((0.36, 0.6), (0.8, 0.1)):
        body = msgspec.structs.replace(mini.body, width_m=width_m, corridor_half_width_m=0.4)
        rover = Rover(msgspec.structs.replace(mini, body=body))
        rover.look(moved_m=0.3)
        # After a quarter of the way the front is at 0.23 m; there the camera saw 0.26 m to either side, not 0.3 m.
        assert rover.drive(0.6, 0.0) == pytest.approx((speed_mps, 0.0))


def test_a_wide_curve_stays_within_what_the_camera_sees(mini: RobotProfile) -> None:
    rover = Rover(mini)
    rover.look(moved_m=0.3)
    for _ in range(20):
        rover.look(moved_m=0.06, turned_rad=0.04)  # 1.5 m of radius
        assert rover.drive(0.6, 0.4) == (0.6, 0.4)


def test_a_tight_curve_is_free_where_somebody_has_looked(rover: Rover) -> None:
    assert rover.drive(0.6, 1.2) == (0.6, 1.2)


def test_floor_behind_an_obstacle_is_not_seen(mini: RobotProfile) -> None:
    shares = []
    for wall_m in (0.45, 5.0):
        rover = Rover(mini)
        rover.clearance.reset()
        rover.look((slice(0, 64), wall_m))
        rover.look((slice(0, 64), 0.0), moved_m=0.3)  # the camera sees nothing any more
        shares.append(rover.clearance._seen_share(0.6, 0.0))
    assert shares == [pytest.approx(1 / 6), 1.0]


def test_floor_is_forgotten_after_five_metres(mini: RobotProfile) -> None:
    for turns, expected in ((1, (0.6, 1.2)), (3, (0.1, 0.2))):
        rover = Rover(mini).look_around()
        for _ in range(8 * turns):  # an eighth of a circle counts like 0.236 m
            rover.look((slice(0, 64), 0.0), turned_rad=math.pi / 4)
        rover.look((slice(0, 64), 0.0))
        share = rover.clearance._seen_share(0.6, 1.2)
        assert (0.6 * share, 1.2 * share) == pytest.approx(expected)


def test_a_robot_that_was_moved_has_seen_no_floor(rover: Rover) -> None:
    rover.clearance.reset()
    assert rover.drive(0.6, 0.0) == pytest.approx((0.1, 0.0))


def test_after_an_absurd_reading_of_the_odometer_no_floor_counts_as_seen(rover: Rover) -> None:
    rover.look(moved_m=1e19)
    assert rover.drive(0.6, 0.0) == pytest.approx((0.1, 0.0))
