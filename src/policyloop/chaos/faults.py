"""What can go wrong: each fault changes what the robot sees, what is proposed to it, or how time passes."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import numpy as np

from policyloop.core.step import Action, Observation

__all__ = ["FAULTS", "Fault"]

_HOUR_NS = 3_600_000_000_000


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong.

    Attributes:
        name: For the command line.
        what: In one sentence.
        sees: Turns an observation, given the last one before the fault, into what arrives; may raise.
        proposes: Turns the driver's proposal into another; may raise, or take its time.
        real_time: It is about real time, so the robot lives in it.
        must: `stand`: command zero at once, and trip. `halt`: no forward command. `endure`: drive on without a contact.
    """

    name: str
    what: str
    must: str = "stand"
    sees: Callable[[Observation, Observation], Observation] = lambda now, last: now
    proposes: Callable[[Action], Action] = lambda action: action
    real_time: bool = False


def _with(observation: Observation, **arrays: object) -> Observation:
    return msgspec.structs.replace(observation, arrays={**observation.arrays, **arrays})


def _proprio(observation: Observation, index: int, value: float) -> Observation:
    proprio = observation.arrays["proprio"].copy()
    proprio[index] = value
    return _with(observation, proprio=proprio)


def _holes(observation: Observation, last: Observation) -> Observation:
    """Lose half of the pictures, and a third of the columns of the rest."""
    rng = np.random.default_rng(observation.captured_ns)
    if rng.random() < 0.5:
        raise TimeoutError("no picture came")
    depth = observation.arrays["depth"].copy()
    depth[:, rng.random(depth.shape[1]) < 0.33] = 0
    return _with(observation, depth=depth)


def _stamped(change_ns: int) -> Callable[[Observation, Observation], Observation]:
    return lambda now, last: msgspec.structs.replace(now, captured_ns=now.captured_ns + change_ns)


def _unplugged(now: Observation, last: Observation) -> Observation:
    raise OSError("the camera was unplugged")


def _raising(action: Action) -> Action:
    raise RuntimeError("the backend failed")


def _sleeping(seconds: float) -> Callable[[Action], Action]:
    def late(action: Action) -> Action:
        time.sleep(seconds)
        return action

    return late


def _once(seconds: float) -> Callable[[Action], Action]:
    waiting = [seconds]

    def hang(action: Action) -> Action:
        if waiting:
            time.sleep(waiting.pop())
        return action

    return hang


FAULTS = (
    Fault(name="no-new-frame", what="the camera delivers its last frame for ever", sees=lambda now, last: last),
    Fault(
        name="frozen-picture",
        what="the camera repeats one picture under new stamps",
        sees=lambda now, last: _with(now, rgb=last.arrays["rgb"], depth=last.arrays["depth"]),
    ),
    Fault(name="unplugged", what="the camera raises an error at every read", sees=_unplugged),
    Fault(
        name="black-depth",
        what="the depth picture holds no measurement at all",
        must="halt",
        sees=lambda now, last: _proprio(_with(now, depth=np.zeros_like(now.arrays["depth"])), 5, 0.0),
    ),
    Fault(
        name="dropouts", what="half of the frames are lost, a third of the rest is holes", must="endure", sees=_holes
    ),
    Fault(name="nan-odometry", what="the velocity is not a number", sees=lambda now, last: _proprio(now, 0, np.nan)),
    Fault(
        name="stuck-imu",
        what="the yaw rate stays what it was",
        must="endure",
        sees=lambda now, last: _proprio(now, 1, float(last.arrays["proprio"][1])),
    ),
    Fault(name="clock-ahead", what="the camera's stamps jump an hour ahead", sees=_stamped(_HOUR_NS)),
    Fault(name="clock-behind", what="the camera's stamps jump an hour back", sees=_stamped(-_HOUR_NS)),
    Fault(
        name="nan-policy",
        what="the policy answers with NaN",
        proposes=lambda action: msgspec.structs.replace(action, values=(float("nan"), 0.0)),
    ),
    Fault(name="failing-policy", what="the policy raises an error at every tick", proposes=_raising),
    Fault(
        name="reckless-policy",
        what="the policy drives ahead at full speed, whatever it sees",
        must="endure",
        proposes=lambda action: msgspec.structs.replace(action, values=(9.0, 0.0)),
    ),
    Fault(
        name="slow-inference",
        what="every inference takes one tick and a half",
        must="endure",
        proposes=_sleeping(0.15),
        real_time=True,
    ),
    Fault(name="hung-inference", what="one inference takes two seconds", proposes=_once(2.0), real_time=True),
)
