"""One step of experience: what was seen, proposed, done, and what came of it.

Time is monotonic nanoseconds of the robot that recorded it. `terminated` ends an episode because
of the task (a collision) and has no future; `truncated` cuts it for other reasons (time limit, a
human took over, a swap of the robot's program) and has one; `gap` says that steps before this one
are missing, so nothing may be carried across.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from numpy.typing import NDArray

__all__ = [
    "Action",
    "Arrays",
    "Behaviour",
    "Command",
    "Observation",
    "Source",
    "Stamps",
    "Step",
    "StepRecord",
    "TimedCommand",
    "TrainerClock",
]

Arrays = dict[str, NDArray[Any]]
Source = Literal["policy", "human", "scripted", "random"]
"""Who proposed the action. Only `policy` steps may enter a policy gradient."""


class Observation(msgspec.Struct, frozen=True):
    """One synchronised set of sensor readings.

    Attributes:
        arrays: By the names and specs of `RobotProfile.observation_specs`.
        captured_ns: Capture time of the oldest reading in the set.
        contact: The robot touches something (bumper, or the simulator's contact).
        followed: The robot follows commands; False while its controller does something of its own, such as standing up.
    """

    arrays: Arrays
    captured_ns: int
    contact: bool = False
    followed: bool = True


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution that the acting policy really drew from (row N2): a diagonal Gaussian before tanh.

    Never recomputed from newer weights: a quantised or older actor drove with this one.
    """

    mean: tuple[float, ...]
    log_std: tuple[float, ...]
    sample: tuple[float, ...]
    log_prob: float
    policy_version: int
    policy_digest: str
    backend: str
    drawn: bool = True
    """False where the policy proposed its mean: such a step has no density and enters no policy gradient."""


class Action(msgspec.Struct, frozen=True):
    """What the policy, a human or a script proposes, in physical units and the profile's order."""

    values: tuple[float, ...]
    source: Source
    behaviour: Behaviour | None = None


class Command(msgspec.Struct, frozen=True):
    """What the SafetyGate let through; `reasons` names each rule that changed the proposal."""

    values: tuple[float, ...]
    reasons: tuple[str, ...] = ()
    damped: bool = False
    """No joint is driven: the motors only damp."""


class TimedCommand(msgspec.Struct, frozen=True):
    """A command on its way to the motors.

    Attributes:
        sequence: Counts from 1 with every command that the robot's program sends.
        valid_until_ns: Monotonic time from which on the motors must stand still unless a newer one has come.
    """

    command: Command
    sequence: int
    valid_until_ns: int


class Stamps(msgspec.Struct, frozen=True):
    """Monotonic times of one tick, ns: sensors captured, action inferred, command sent."""

    captured_ns: int
    inferred_ns: int
    acted_ns: int


class TrainerClock(msgspec.Struct, frozen=True):
    """How the robot's monotonic clock relates to the trainer's UTC clock.

    Attributes:
        offset_ns: Trainer's UTC minus robot's monotonic time.
        uncertainty_ns: The offset is right within plus or minus this, half of the best echo's round trip.
    """

    offset_ns: int
    uncertainty_ns: int


class StepRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a step except its arrays: the header of its message and of its journal record."""

    robot: str
    boot: str
    """Random for each start of the robot's program: (robot, boot, sequence) names a step for ever."""
    sequence: int
    episode: int
    index: int
    """Position in the episode, from 0."""
    profile_digest: str
    stamps: Stamps
    previous_command: tuple[float, ...]
    action: Action
    command: Command
    reward_terms: dict[str, float]
    terminated: bool = False
    truncated: bool = False
    gap: bool = False
    intervention: Literal["", "start", "hold", "stop"] = ""
    contact: bool = False
    wall_clock_s: float = 0.0
    """Wall clock at capture, for people only."""
    trainer_clock: TrainerClock | None = None
    """To compare stamps of several robots; None = it was never asked."""

    @property
    def ended(self) -> bool:
        """The episode ends with this step."""
        return self.terminated or self.truncated

    @property
    def reward(self) -> float:
        """Sum of the robot's own reward terms."""
        return sum(self.reward_terms.values())


class Step(msgspec.Struct, frozen=True):
    """A step with its observation, and the final observation where the episode ended here."""

    record: StepRecord
    observation: Arrays
    final_observation: Arrays | None = None
