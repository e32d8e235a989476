"""What a training will take, said before anybody drives: arithmetic on rates, and on sample counts that were measured.

Everything here is an estimate; `policyloop.measured` names where its numbers come from, and what is not measured
yet. Pure: whoever can measure how fast this machine learns passes it in.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from policyloop.core.profile import RobotProfile
from policyloop.errors import UsageError
from policyloop.measured import (
    CAMERA_STEPS_PER_S,
    DEPTH_BYTES_PER_PIXEL,
    HEADER_BYTES,
    JPEG_BYTES_PER_PIXEL,
    NEEDED,
    PIXEL_PASSES_PER_S,
    VECTOR_PASSES_PER_S,
    WALKING_STEPS_PER_S,
    WEAK_LINK_MBPS,
    Need,
)

__all__ = ["Choice", "Learner", "Milestone", "Plan", "Situation", "duration", "fitting_learner", "make_plan"]

Learner = Literal["bc", "ppo", "rlpd", "simulated"]
Choice = Literal["auto", "bc", "ppo", "rlpd", "simulated"]
"""`simulated` is PPO from robots in the trainer's own process, as `train --simulated`; auto is what fits."""

MANY_ROBOTS = 64
"""From so many at once on-policy learning is cheap: data is no longer what one waits for."""


PASSES_PER_STEP: dict[str, float] = {"bc": 10, "ppo": 4, "rlpd": 64, "simulated": 4}
"""How often pictures go through the network for each step: epochs of `BcSettings` and `PpoSettings`; half a minibatch
of the actor's in `RlpdSettings`, whose critics see none."""
UPDATE_INTERVAL = {"bc": 1, "ppo": 8192, "rlpd": 200, "simulated": 1}
"""Steps of an update (`LearnerSettings.steps_per_update`)."""

CRITIC_UPDATES = 3
"""First updates of PPO after a clone that leave the policy alone (`PpoSettings.critic_warmup_updates`)."""
CHECKPOINT_UPDATES = 10
MAX_STALENESS = 2
"""Policy versions by which a step may lag (`LearnerSettings.max_staleness`); older ones are not learned from."""
PROBATION_S = 30.0
"""Of a policy that drives, before it is good (`SwapSettings`)."""

_DAY_S = 86_400.0


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What is there to learn with.

    Attributes:
        rate_hz: Steps a second of each robot; 0 = the profile's.
        robots: That drive at the same time, real ones or simulated ones in real time.
        learner: auto = the one that fits.
        update_interval: Steps of an update; 0 = the learner's own.
        demonstrations: Steps to clone first; 0 = no clone.
        sim_robots: Simulated robots that could drive instead.
        passes_per_s: Steps a second through the network, forward and backward; None = from a table.
        passes_source: Where that comes from.
        stop_and_go: Robots pause while the learner works.
    """

    rate_hz: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    robots: Annotated[int, msgspec.Meta(ge=1)] = 1
    learner: Choice = "auto"
    update_interval: Annotated[int, msgspec.Meta(ge=0)] = 0
    demonstrations: Annotated[int, msgspec.Meta(ge=0)] = 6000
    sim_robots: Annotated[int, msgspec.Meta(ge=0)] = 0
    passes_per_s: float | None = None
    passes_source: str = "measured on this machine just now"
    stop_and_go: bool = False


class Cycle(NamedTuple):
    """From one update to the next: its steps, what gathering and learning take, and how often there is one."""

    steps: int
    collect_s: float
    update_s: float
    period_s: float


class Milestone(msgspec.Struct, frozen=True):
    """Something worth waiting for.

    Attributes:
        what: It is.
        after_s: From the first tick: earliest and latest.
        basis: What the estimate rests on.
    """

    what: str
    after_s: tuple[float, float]
    basis: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate, all of it.

    Attributes:
        milestones: Earliest first.
        why: This learner.
        passes_per_s: Steps a second through the network, forward and backward.
        passes_source: Where that number comes from.
        steps_per_s: Of all robots together.
        collect_s, update_s: To gather and to learn from one update's steps.
        keeps_up: Learning takes no longer than gathering.
        staleness: Versions by which steps lag behind the learner, at most.
        bytes_per_step: By stream.
        radio_mbps: Of each robot.
        gateway_mbps: Of all robots together.
        disk_gb_per_hour: On the trainer; a robot without a link spools its share.
        disk_gb: Until there is a good policy, at the latest.
    """

    profile: str
    learner: Learner
    why: str
    passes_per_s: float
    passes_source: str
    steps_per_s: float
    collect_s: float
    update_s: float
    keeps_up: bool
    staleness: int
    milestones: tuple[Milestone, ...]
    bytes_per_step: dict[str, float]
    radio_mbps: float
    gateway_mbps: float
    disk_gb_per_hour: float
    disk_gb: float
    warnings: tuple[str, ...]


def fitting_learner(profile: RobotProfile, robots: int, sim_robots: int) -> tuple[Learner, str]:
    """Return the learner that fits, and why."""
    if sim_robots >= MANY_ROBOTS:
        if profile.joints is not None:
            return "simulated", f"{sim_robots} simulated robots in one process: PPO, every step fresh"
        return "ppo", f"{sim_robots} simulated robots: data is cheap, and PPO is stable"
    if robots >= MANY_ROBOTS:
        return "ppo", f"{robots} robots at once: data is cheap, and PPO is stable"
    few = "one real robot" if robots == 1 else f"{robots} robots"
    return "rlpd", f"{few}: every step must be learned from many times; demonstrations and take-overs help"


def make_plan(profile: RobotProfile, situation: Situation) -> Plan:
    """Estimate what is asked for.

    Raises:
        UsageError: Robots of this profile cannot be simulated in the trainer.
    """
    learner, why = _learner(profile, situation)
    rate_hz = situation.rate_hz or profile.rates.control_hz
    robots = max(situation.robots, situation.sim_robots) if learner == "ppo" else situation.robots
    steps_per_s = WALKING_STEPS_PER_S if learner == "simulated" else robots * rate_hz
    passes_per_s, source = _passes_per_s(profile, situation)
    interval = situation.update_interval or UPDATE_INTERVAL[learner]
    collect_s, update_s = interval / steps_per_s, interval * PASSES_PER_STEP[learner] / passes_per_s
    if learner == "simulated":
        update_s = 0.0  # is part of the measured rate
    sizes = {} if learner == "simulated" else bytes_per_step(profile)
    step_bytes = sum(sizes.values())
    cycle_s = collect_s + update_s if situation.stop_and_go else max(collect_s, update_s)
    milestones = _milestones(
        learner, situation, steps_per_s, passes_per_s, Cycle(interval, collect_s, update_s, cycle_s)
    )
    plan = Plan(
        profile=profile.name,
        learner=learner,
        why=why,
        passes_per_s=passes_per_s,
        passes_source=source,
        steps_per_s=steps_per_s,
        collect_s=collect_s,
        update_s=update_s,
        keeps_up=learner == "bc" or update_s <= collect_s,
        staleness=0 if learner != "ppo" or situation.stop_and_go else math.ceil(update_s / collect_s),
        milestones=milestones,
        bytes_per_step=sizes,
        radio_mbps=8e-6 * rate_hz * step_bytes,
        gateway_mbps=8e-6 * steps_per_s * step_bytes,
        disk_gb_per_hour=3600e-9 * steps_per_s * step_bytes,
        disk_gb=1e-9 * milestones[-1].after_s[1] * steps_per_s * step_bytes,
        warnings=(),
    )
    in_order = tuple(sorted(milestones, key=lambda milestone: milestone.after_s))
    warnings = tuple(_warnings(plan, profile, situation, robots))
    return msgspec.structs.replace(plan, milestones=in_order, warnings=warnings)


def _learner(profile: RobotProfile, situation: Situation) -> tuple[Learner, str]:
    if situation.learner == "auto":
        return fitting_learner(profile, situation.robots, situation.sim_robots)
    if situation.learner == "simulated" and profile.joints is None:
        raise UsageError(
            f"robots of profile '{profile.name}' are not simulated in the trainer's own process",
            "plan for --learner ppo --sim-robots N, and drive them with `policyloop sim`",
        )
    return situation.learner, "as asked for"


def _passes_per_s(profile: RobotProfile, situation: Situation) -> tuple[float, str]:
    if situation.passes_per_s is not None:
        return situation.passes_per_s, situation.passes_source
    table = "one core of an AMD EPYC, from a table: docs/planning.md"
    if profile.camera is None:
        return VECTOR_PASSES_PER_S, table
    return _by_pixels(profile.camera.width * profile.camera.height, PIXEL_PASSES_PER_S), table


def _by_pixels(pixels: int, table: tuple[tuple[int, float], ...]) -> float:
    """Return a rate by the size of the picture: a power law between the table's rows, the nearest row beyond."""
    sizes, rates = np.log(np.array(table)).T
    return float(np.exp(np.interp(math.log(pixels), sizes, rates)))


def bytes_per_step(profile: RobotProfile) -> dict[str, float]:
    """Return what a step takes on the radio and on the disk, by stream."""
    sizes: dict[str, float] = {"header": HEADER_BYTES, "proprio": 4.0 * profile.proprio_size}
    if profile.camera is not None:
        pixels = profile.camera.width * profile.camera.height
        sizes["rgb"] = pixels * (3.0 if profile.stream.rgb_encoding == "raw" else JPEG_BYTES_PER_PIXEL)
        sizes["depth"] = pixels * DEPTH_BYTES_PER_PIXEL
    return sizes


def _milestones(
    learner: Learner,
    situation: Situation,
    steps_per_s: float,
    passes_per_s: float,
    cycle: Cycle,
) -> tuple[Milestone, ...]:
    if learner == "simulated":
        return (_good(NEEDED["simulated"], 0.0, 1 / steps_per_s),)
    found, start_s = [], 0.0
    if situation.demonstrations:
        recorded_s = situation.demonstrations / steps_per_s
        cloned_s = recorded_s + situation.demonstrations * PASSES_PER_STEP["bc"] / passes_per_s
        start_s = cloned_s
        found += [
            _at("demonstrations are recorded", recorded_s, f"{situation.demonstrations} steps, somebody drives"),
            _at("the first clone drives", cloned_s, f"{PASSES_PER_STEP['bc']:.0f} passes over each step"),
            _at("it has proved itself", cloned_s + PROBATION_S, f"{PROBATION_S:.0f} s on probation"),
        ]
    if learner == "bc":
        need = NEEDED["bc"]
        missing_s = max(0, need.steps[1] - situation.demonstrations) * (
            1 / steps_per_s + PASSES_PER_STEP["bc"] / passes_per_s
        )
        basis = f"{need.reached}; {need.source}"
        return (*found, _at("a good policy", start_s + missing_s, basis))
    first_s = start_s + cycle.collect_s + cycle.update_s
    found.append(_at("the first update is done", first_s, f"{cycle.steps} steps of the policy's own"))
    if learner == "ppo" and situation.demonstrations:
        basis = f"{CRITIC_UPDATES} updates fit only the critic, so that the clone is not torn up"
        found.append(_at("an update changes the clone", first_s + CRITIC_UPDATES * cycle.period_s, basis))
    tenth_s = first_s + (CHECKPOINT_UPDATES - 1) * cycle.period_s
    found.append(_at("the tenth update, a checkpoint", tenth_s, "--checkpoint-interval 10"))
    need = NEEDED["ppo from nothing" if learner == "ppo" and not situation.demonstrations else learner]
    return (*found, _good(need, start_s, cycle.period_s / cycle.steps))


def _at(what: str, after_s: float, basis: str) -> Milestone:
    return Milestone(what, (after_s, after_s), basis)


def _good(need: Need, start_s: float, seconds_per_step: float) -> Milestone:
    after_s = (start_s + need.steps[0] * seconds_per_step, start_s + need.steps[1] * seconds_per_step)
    return Milestone(
        "a good policy", after_s, f"{need.steps[0]} to {need.steps[1]} steps: {need.reached}; {need.source}"
    )


def _warnings(plan: Plan, profile: RobotProfile, situation: Situation, robots: int) -> list[str]:
    found = []
    if plan.learner == "ppo" and robots < MANY_ROBOTS:
        steps = round(plan.collect_s * plan.steps_per_s)
        found.append(
            f"PPO learns from {steps} steps at a time, {duration(plan.collect_s)} of driving, and forgets them: "
            f"take RLPD; or --stop-and-go, or a lag of at most {MAX_STALENESS} versions"
        )
    if not plan.keeps_up:
        found.append(
            f"the learner does not keep up: it needs {plan.steps_per_s * PASSES_PER_STEP[plan.learner]:.0f} passes a "
            f"second and makes {plan.passes_per_s:.0f}; use a GPU, a smaller picture, or a lower rate"
        )
    if plan.staleness > MAX_STALENESS:
        found.append(f"steps lag by up to {plan.staleness} versions; more than {MAX_STALENESS} are not learned from")
    if not situation.demonstrations and plan.learner != "simulated":
        found.append("no clone: a policy that starts from nothing finds obstacles by touching them; always clone first")
    if plan.milestones[-1].after_s[0] > _DAY_S:
        found.append(f"a good policy takes days: {duration(plan.milestones[-1].after_s[0])} of driving without a pause")
    if plan.radio_mbps > WEAK_LINK_MBPS:
        found.append(f"{plan.radio_mbps:.0f} Mbit/s from each robot: more than a weak 2.4 GHz link carries")
    if profile.camera is not None and situation.sim_robots:
        pixels = profile.camera.width * profile.camera.height
        cores = plan.steps_per_s / _by_pixels(pixels, CAMERA_STEPS_PER_S)
        if cores > 1:
            found.append(f"to simulate {situation.sim_robots} robots in real time takes about {math.ceil(cores)} cores")
    return found


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    if seconds < 2 * _DAY_S:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / _DAY_S:.1f} days"
