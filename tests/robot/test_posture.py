from __future__ import annotations

import math

import numpy as np
import pytest

from policyloop.robot.posture import BodyState, ModeMachine, ModeSettings, Posture

SETTINGS = ModeSettings(pose=(0.0, -0.65, 1.3), kp=(30.0,) * 3, kd=(1.0,) * 3)
MACHINE = ModeMachine(SETTINGS)
S = 1_000_000_000


def body(*, roll_deg: float = 0.0, pitch_deg: float = 0.0, off: float = 0.0, speed: float = 0.0) -> BodyState:
    roll, pitch = math.radians(roll_deg), math.radians(pitch_deg)
    down = [math.sin(pitch), -math.cos(pitch) * math.sin(roll), -math.cos(pitch) * math.cos(roll)]
    pose = np.array(SETTINGS.pose, np.float32)
    return BodyState(
        np.zeros(3, np.float32), np.array(down, np.float32), pose + np.float32(off), np.full(3, speed, np.float32)
    )


def standing() -> Posture:
    posture = MACHINE.next(MACHINE.begin("none", 0), "stand_up", body(off=0.2), False, 0)
    assert posture.mode == "stand_up"
    return posture


def walking() -> Posture:
    posture = MACHINE.next(standing(), "policy", body(), True, 2 * S)
    assert posture.mode == "policy"
    return posture


def test_a_robot_stands_up_smoothly_then_walks_then_damps_when_the_policy_is_silent() -> None:
    posture = standing()
    start = np.array(SETTINGS.pose, np.float32) + np.float32(0.2)
    np.testing.assert_allclose(MACHINE.setpoint(posture, None, 0).target, start)
    np.testing.assert_allclose(MACHINE.setpoint(posture, None, S * 3 // 4).target, start - 0.1, atol=1e-6)
    held = MACHINE.setpoint(posture, None, 9 * S)
    np.testing.assert_allclose(held.target, SETTINGS.pose, atol=1e-7)
    assert (held.kp == 100).all() and (held.kd == 2.5).all()
    assert MACHINE.next(posture, "policy", body(), True, S).mode == "stand_up"  # not finished
    assert MACHINE.next(posture, "policy", body(), False, 2 * S).mode == "stand_up"  # nobody commands
    assert MACHINE.next(posture, "policy", body(off=0.4), True, 2 * S).mode == "stand_up"  # it does not stand
    posture = walking()
    out = MACHINE.setpoint(posture, (0.1, 0.2, 0.3), 2 * S)
    np.testing.assert_allclose(out.target, [0.1, 0.2, 0.3], rtol=1e-6)
    assert (out.kp == 30).all() and (out.kd == 1).all()
    assert MACHINE.setpoint(posture, None, 2 * S).kd.tolist() == [4, 4, 4]
    posture = MACHINE.next(posture, "policy", body(), False, 2 * S + 1)
    assert (posture.mode, posture.cause) == ("damping", "no_command")
    out = MACHINE.setpoint(posture, (0.1, 0.2, 0.3), 2 * S)
    assert (out.kp == 0).all() and (out.kd == 4).all()


@pytest.mark.parametrize(("angles", "mode"), [((29.9, 44.9), "policy"), ((30.1, 0), "damping"), ((0, 45.1), "damping")])
def test_a_robot_that_leans_damps(angles: tuple[float, float], mode: str) -> None:
    for sign in (-1, 1):
        leaning = body(roll_deg=sign * angles[0], pitch_deg=sign * angles[1])
        assert MACHINE.next(walking(), "policy", leaning, True, 3 * S).mode == mode


def test_damping_is_left_by_a_new_request_from_rest_and_by_nothing_else() -> None:
    posture = MACHINE.next(walking(), "stop", body(), True, 3 * S)
    assert (posture.mode, posture.cause) == ("damping", "stop")
    for request in ("none", "policy"):
        posture = MACHINE.next(posture, request, body(), True, 4 * S)
        assert posture.mode == "damping"
    posture = MACHINE.next(posture, "stand_up", body(speed=1.0), True, 4 * S)
    assert posture.mode == "damping"  # it moves still
    assert MACHINE.next(posture, "idle", body(speed=1.0), True, 4 * S).mode == "idle"
    assert MACHINE.next(posture, "stand_up", body(), True, 4 * S).mode == "stand_up"


def test_what_is_held_while_damping_begins_does_not_count() -> None:
    fallen = MACHINE.next(standing(), "stand_up", body(roll_deg=60), True, S)
    assert fallen.mode == "damping"
    for tick in range(5):
        fallen = MACHINE.next(fallen, "stand_up", body(), True, (2 + tick) * S)
        assert fallen.mode == "damping"


def test_what_is_held_at_the_start_moves_nothing() -> None:
    posture = MACHINE.begin("stand_up", 0)
    posture = MACHINE.next(posture, "stand_up", body(), True, S)
    assert posture.mode == "idle"
    assert not MACHINE.setpoint(posture, None, S).kd.any()


@pytest.mark.parametrize("field", ["gyro", "gravity", "position", "velocity"])
def test_a_sensor_that_is_no_number_damps_in_every_mode(field: str) -> None:
    whole = body()
    arrays = {name: getattr(whole, name).copy() for name in whole.__struct_fields__}
    arrays[field][1] = np.nan
    for before in (MACHINE.begin("none", 0), standing(), walking()):
        after = MACHINE.next(before, "none", BodyState(**arrays), True, 3 * S)
        assert (after.mode, after.cause) == ("damping", "sensors")
