"""What the gate remembers of obstacles that the camera no longer sees.

rover-mini by hand: the body is 0.36 m long and wide around the axle, the camera looks from 0.16 m ahead with a focal
length of 46.287 pixels, so an obstacle z m away in column c lies at x = z + 0.16, y = (31.5 - c) z / 46.287. A motion
of v, w takes t = 0.2 s + max(v / 1.5, w / 4) until the robot stands; within t nothing may come closer than 0.04 m.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Action, Command, Observation
from policyloop.safety.clearance import Clearance, _seen_from
from policyloop.safety.gate import GateMode, SafetyGate

TICK_S = 0.1
MIDDLE = slice(30, 34)
LEFT_EDGE = slice(7, 8)  # one column, 0.5293 to the left per metre


class Drive:
    """A gate, shown one picture per tick."""

    def __init__(self, profile: RobotProfile, mode: GateMode = "full") -> None:
        self.profile, self.gate = profile, SafetyGate(profile, mode)

    def see(
        self,
        *objects: tuple[slice, float],
        linear: float = 0.0,
        angular: float = 0.0,
        contact: bool = False,
    ) -> Observation:
        """Return an observation: objects as (columns, metres), velocities as measured, the way ahead free."""
        arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.profile.observation_specs.items()}
        arrays["depth"][:] = 5000  # nothing within what is remembered
        for columns, distance_m in objects:
            arrays["depth"][:, columns] = round(1000 * distance_m)
        arrays["proprio"][:] = linear, angular, 0, 0, 9.81, 5.0
        return Observation(arrays, 0, contact)

    def drive(
        self,
        values: tuple[float, float],
        *objects: tuple[slice, float],
        moved_m: float = 0.0,
        turned_rad: float = 0.0,
    ) -> Command:
        """Check a proposal at a tick before which the robot has moved or turned so far."""
        observation = self.see(*objects, linear=moved_m / TICK_S, angular=turned_rad / TICK_S)
        self.gate._last = values  # as if it had driven so before: motors can follow
        return self.gate.check(Action(values, "policy"), observation, 0)


STAND = (0.0, 0.0)


@pytest.fixture
def rover(mini: RobotProfile) -> Drive:
    return Drive(mini)


def obstacle_behind(rover: Drive, gap_m: float) -> Drive:
    """Let the rover see something 0.61 m ahead of its axle, turn round, and back up until `gap_m` is left."""
    rover.drive(STAND, (MIDDLE, 0.45))
    rover.drive(STAND, turned_rad=math.pi)
    rover.drive(STAND, moved_m=-(0.61 - 0.18 - gap_m))
    return rover


def obstacle_at_the_left(rover: Drive) -> Drive:
    """Let the rover see something at (0.61, 0.238) m and drive on until it stands at (0.02, 0.238)."""
    rover.drive(STAND, (LEFT_EDGE, 0.45))
    rover.drive(STAND, moved_m=0.59)
    return rover


def test_nothing_around_means_nothing_to_avoid(rover: Drive) -> None:
    assert rover.drive((0.6, 0.3)) == Command((0.6, 0.3), ())


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
    rover: Drive, distance_m: float, speed_mps: float
) -> None:
    command = rover.drive((0.6, 0.0), (MIDDLE, distance_m))
    assert command.values == pytest.approx((speed_mps, 0.0))
    assert command.reasons == (() if speed_mps == 0.6 else ("surroundings",))


def test_something_behind_that_was_seen_before_stops_backing_up(rover: Drive) -> None:
    obstacle_behind(rover, 0.04)
    command = rover.drive((-0.1, 0.0))
    assert command.values == STAND
    assert command.reasons == ("surroundings",)
    assert rover.drive((0.6, 0.0)) == Command((0.6, 0.0), ())


def test_backing_up_is_allowed_while_there_is_room_to_stop(rover: Drive) -> None:
    obstacle_behind(rover, 0.08)  # 0.1 m/s takes 0.267 s: 0.027 of 0.04
    assert rover.drive((-0.1, 0.0)) == Command((-0.1, 0.0), ())


def test_a_turn_is_slowed_so_that_no_corner_sweeps_over_something_at_the_side(rover: Drive) -> None:
    obstacle_at_the_left(rover)
    # (0.02, 0.238) is 0.058 m from the side. To the left, 0.6 rad bring a corner to 5 mm, 0.38 rad (three quarters of
    # the rate) to 33 mm, 0.21 rad (half) to 49 mm.
    command = rover.drive((0.0, 1.2))
    assert command.values == pytest.approx((0.0, 0.6))
    assert command.reasons == ("surroundings",)
    # To the right, three quarters of the rate leave 48 mm.
    assert rover.drive((0.0, -1.2)).values == pytest.approx((0.0, -0.9))


def test_driving_straight_past_something_at_the_side_is_not_hindered(rover: Drive) -> None:
    obstacle_at_the_left(rover)
    assert rover.drive((0.6, 0.0)) == Command((0.6, 0.0), ())


def test_a_motion_keeps_its_shape_when_it_is_slowed(rover: Drive) -> None:
    linear, angular = rover.drive((0.6, 0.2), (MIDDLE, 0.30)).values
    assert 0 < linear < 0.6
    assert angular / linear == pytest.approx(0.2 / 0.6)


def test_a_robot_that_stands_too_near_may_leave_but_not_go_nearer(rover: Drive) -> None:
    obstacle_behind(rover, 0.01)
    assert rover.drive((-0.05, 0.0)).values == STAND
    assert rover.drive((0.3, 0.0)) == Command((0.3, 0.0), ())


def test_a_waiting_robot_forgets_nothing(rover: Drive) -> None:
    obstacle_behind(rover, 0.04)
    for _ in range(300):
        rover.drive(STAND)
    assert rover.drive((-0.1, 0.0)).values == STAND


@pytest.mark.parametrize(("way_m", "remembered"), [(1.5, True), (2.5, False)])
def test_the_memory_fades_after_five_metres(rover: Drive, way_m: float, remembered: bool) -> None:
    obstacle_behind(rover, 0.04)  # half a turn and 0.39 m count as 1.33 m of way
    rover.drive(STAND, moved_m=way_m)
    rover.drive(STAND, moved_m=-way_m)
    assert (rover.drive((-0.1, 0.0)).values == STAND) == remembered


def test_a_robot_that_was_moved_forgets_everything(rover: Drive) -> None:
    obstacle_behind(rover, 0.04)
    rover.gate.reset()
    assert rover.drive((-0.1, 0.0)) == Command((-0.1, 0.0), ())


def test_limits_mode_lets_a_simulated_robot_back_into_things(mini: RobotProfile) -> None:
    rover = obstacle_behind(Drive(mini, "limits"), 0.04)
    assert rover.drive((-0.1, 1.2)) == Command((-0.1, 1.2), ())


def test_two_gates_keep_two_memories(mini: RobotProfile) -> None:
    one, other = Drive(mini), Drive(mini)
    obstacle_behind(one, 0.04)
    assert other.drive((-0.1, 0.0)) == Command((-0.1, 0.0), ())


def test_an_observation_that_is_refused_leaves_no_trace_in_the_memory(rover: Drive) -> None:
    obstacle_behind(rover, 0.04)
    broken = rover.see(linear=math.nan)
    assert rover.gate.check(Action((-0.1, 0.0), "policy"), broken, 0).reasons == ("bad-observation",)
    assert rover.drive((-0.1, 0.0)).values == STAND


def test_a_point_under_the_body_does_not_blind_the_gate_to_the_others(rover: Drive) -> None:
    # As in obstacle_at_the_left, and dead reckoning has carried a second thing under the body, to (-0.03, 0).
    rover.drive(STAND, (LEFT_EDGE, 0.45), (MIDDLE, 0.40))
    rover.drive(STAND, moved_m=0.59)
    assert rover.drive((0.0, 1.2)).values == pytest.approx((0.0, 0.6))


@pytest.mark.parametrize("why", ["no proposal", "not finite", "contact"])
def test_the_memory_follows_a_robot_that_rolls_on_while_nothing_may_be_driven(rover: Drive, why: str) -> None:
    rover.drive(STAND, (MIDDLE, 0.45))
    rover.drive(STAND, turned_rad=math.pi)
    action = {"no proposal": None, "not finite": Action((math.nan, 0.0), "policy")}.get(why, Action(STAND, "policy"))
    rolling = rover.see(linear=-0.39 / TICK_S, contact=why == "contact")
    assert rover.gate.check(action, rolling, 0).values == STAND
    assert rover.drive((-0.1, 0.0)).values == STAND


@given(
    values=st.lists(st.tuples(st.floats(-1, 1), st.floats(-2, 2)), min_size=1, max_size=6),
    velocities=st.tuples(st.floats(-2, 2), st.floats(-3, 3)),
    near_mm=st.integers(100, 1500),
    column=st.integers(0, 63),
    mode=st.sampled_from(("full", "limits")),
)
def test_whatever_is_around_a_command_is_finite_within_range_and_no_more_than_was_asked(
    values: list[tuple[float, float]],
    velocities: tuple[float, float],
    near_mm: int,
    column: int,
    mode: GateMode,
) -> None:
    profile = load_profile("rover-mini")
    rover = Drive(profile, mode)
    for proposed in values:
        command = rover.drive(
            proposed,
            (slice(column, column + 3), near_mm / 1000),
            moved_m=velocities[0] * TICK_S,
            turned_rad=velocities[1] * TICK_S,
        )
        for before, after, quantity in zip(proposed, command.values, profile.action, strict=True):
            assert math.isfinite(after)
            assert quantity.low <= after <= quantity.high
            assert abs(after) <= abs(before)
            assert after * before >= 0


def test_a_fast_robot_looks_further_around(mini: RobotProfile) -> None:
    limits = msgspec.structs.replace(mini.limits, max_forward_mps=2.0)
    linear = msgspec.structs.replace(mini.action[0], high=2.0)
    fast = Drive(msgspec.structs.replace(mini, limits=limits, action=(linear, mini.action[1])))
    # 2 m/s take 0.2 s + 1.333 s: 3.07 m; three quarters 1.5 m/s * 1.2 s = 1.8 m, half 0.87 m. The gap is 1.98 m.
    command = fast.drive((2.0, 0.0), (MIDDLE, 2.0))
    assert command.values == pytest.approx((1.5, 0.0))
    assert command.reasons == ("surroundings",)


def test_one_absurd_reading_of_the_odometer_does_not_blind_the_memory_for_good(rover: Drive) -> None:
    obstacle_behind(rover, 0.04)
    rover.drive(STAND, (MIDDLE, 0.45), moved_m=1e19, turned_rad=1e19)
    obstacle_behind(rover, 0.04)
    assert rover.drive((-0.1, 0.0)).values == STAND


def test_a_robot_that_stands_too_near_may_leave_slowly(rover: Drive) -> None:
    obstacle_behind(rover, 0.01)
    assert rover.drive((0.05, 0.0)) == Command((0.05, 0.0), ())


def test_what_a_curve_leaves_where_by_hand() -> None:
    # 0.375 pi m/s and pi/4 rad/s for 2 s: a quarter of a circle of 1.5 m; it ends at (1.5, 1.5), facing left.
    seen = _seen_from(np.array([[1.5, 2.5]], np.float32), 0.375 * math.pi, math.pi / 4, 2.0)
    assert seen.shape == (4, 1, 2)
    # Half way: at (1.0607, 0.4393), facing 45 degrees; (0.4393, 2.0607) from there.
    assert seen[1, 0] == pytest.approx([1.76777, 1.14645], abs=1e-5)
    # After a quarter: at (0.5740, 0.1142), facing 22.5 degrees; (0.9260, 2.3858) from there.
    assert seen[0, 0] == pytest.approx([1.76849, 1.84983], abs=1e-4)
    assert seen[3, 0] == pytest.approx([1.0, 0.0], abs=1e-6)


def test_what_a_straight_line_leaves_where_by_hand() -> None:
    seen = _seen_from(np.array([[3.0, 1.0], [0.0, 0.0]], np.float32), 1.0, 0.0, 2.0)
    assert seen[:, 0].tolist() == [[2.5, 1.0], [2.0, 1.0], [1.5, 1.0], [1.0, 1.0]]
    assert seen[:, 1].tolist() == [[-0.5, 0.0], [-1.0, 0.0], [-1.5, 0.0], [-2.0, 0.0]]


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
