"""Search for a policy that makes a gated rover touch what it has sensed (promise R29).

python bench/adversary.py --random 300
python bench/adversary.py --search 20 --seeds 3    (pip install cma; CMA-ES, 20 generations for each of 3 seeds)

The simulated rover drives behind the whole gate, `Actor` and all, with commands that arrive late by so many ticks. It
may see what the gate sees. What it touches counts as sensed if the rover has seen that very spot by its camera, at most
3.5 m away, and moved no further than memory lasts since (5 m, a radian counts like 0.3 m). What it never saw it may
still touch, also where it saw another part of the same thing, and that is counted apart: `blind` is backing up or
turning on the spot, `aside` is driving forward in a curve so tight that the inner corner sweeps floor which was never
in the picture (the camera sees 34.6 degrees to either side; a curve of less than 1.5 m radius sweeps more than that).
Clearance is that of the declared body, a rectangle larger than the simulated one, to what was sensed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.clock import VirtualClock
from policyloop.core.corridor import column_distances
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Action, Command, Observation, TimedCommand
from policyloop.core.surroundings import Surroundings
from policyloop.robot.actor import Actor
from policyloop.robot.recorder import Recorder
from policyloop.safety.gate import GateMode, SafetyGate
from policyloop.sim.arena import Arena
from policyloop.sim.robot import SimulatedRobot

FEATURES = 8
PARAMETERS = 2 * FEATURES + 1
SEEN_WITHIN_M, MEMORY_M, TURN_COST_M = 3.5, 5.0, 0.3
OUTLINE_M = 0.02

Contact = Literal["", "sensed", "aside", "blind"]
Kind = Literal["attack", "back", "swing", "random", "linear"]
KINDS: tuple[Kind, ...] = ("attack", "back", "swing", "random", "linear")


def profile_without_ends(name: str = "rover-mini") -> RobotProfile:
    """Return the profile with episodes that nothing ends but contact."""
    profile = load_profile(name)
    rules = msgspec.structs.replace(profile.episode, collision_distance_m=1e-9, max_steps=10**9)
    return msgspec.structs.replace(profile, episode=rules)


class Adversary:
    """A driver that wants contact.

    Args:
        profile: A rover's.
        kind: `attack` drives at the nearest thing it knows of, `back` turns its back to it and reverses, `swing` turns
            beside it, `random` holds random extremes, `linear` is a random or searched function of what it sees.
        parameters: Of `linear`, (PARAMETERS,).
        rng: Of `random`, and of the choices of `swing`.
    """

    def __init__(
        self, profile: RobotProfile, kind: Kind, parameters: NDArray[np.float64], rng: np.random.Generator
    ) -> None:
        assert profile.camera is not None
        self._profile, self._kind, self._rng, self._camera = profile, kind, rng, profile.camera
        self._weights = parameters[:-1].reshape(2, FEATURES)
        self._rate = 2 * math.pi / (5 + 60 / (1 + math.exp(-parameters[-1])))
        self._low = np.array([quantity.low for quantity in profile.action])
        self._high = np.array([quantity.high for quantity in profile.action])
        self._around = Surroundings(profile)
        self.reset()

    def reset(self) -> None:
        """A new episode begins."""
        self._around.reset()
        self._tick, self._held, self._last = 0, 0, np.zeros(2)
        self._values = np.zeros(2)

    def executed(self, command: Command) -> None:
        """Learn what the gate let through."""
        self._last = np.array(command.values)

    def propose(self, observation: Observation) -> Action:
        """Return the worst idea."""
        self._tick += 1
        columns = column_distances(observation.arrays["depth"], self._camera)
        self._around.observe(columns, observation.arrays["proprio"], observation.captured_ns)
        points = self._around.points
        distances = np.hypot(points[:, 0], points[:, 1])
        distance_m, bearing = 4.0, 0.0
        if len(points):
            nearest = int(distances.argmin())
            distance_m, bearing = float(distances[nearest]), math.atan2(points[nearest, 1], points[nearest, 0])
        values = self._wanted(distance_m, bearing)
        return Action(tuple(np.clip(values, self._low, self._high).tolist()), "policy")

    def _wanted(self, distance_m: float, bearing: float) -> NDArray[np.float64]:
        if self._kind == "attack":
            return np.array([9.0 if abs(bearing) < 0.6 else 0.0, 6 * bearing])
        if self._kind == "back":
            away = math.remainder(bearing + math.pi, 2 * math.pi)
            return np.array([-9.0 if abs(away) < 0.6 else 0.0, 6 * away])
        if self._kind == "linear":
            phase = self._tick * self._rate
            seen = [1, math.sin(bearing), math.cos(bearing), 2 / (0.3 + distance_m) - 1]
            rest = [self._last[0] / 0.6, self._last[1] / 1.2, math.sin(phase), math.cos(phase)]
            half = np.tanh(self._weights @ np.array([*seen, *rest])) * 1.2
            return (self._low + self._high) / 2 + half * (self._high - self._low) / 2
        self._held -= 1
        if self._kind == "swing" and distance_m > 0.6 and self._held <= 0:
            return np.array([9.0 if abs(bearing) < 0.9 else 0.0, 4 * bearing])
        if self._held <= 0:
            self._held = int(self._rng.integers(2, 12))
            self._values = np.where(self._rng.random(2) < 0.5, self._low, self._high)
            if self._rng.random() < 0.3:
                self._values[0] = 0.0
        return self._values


class Late:
    """Lets commands arrive so many ticks late; each is valid for as long as it would have been."""

    def __init__(self, robot: SimulatedRobot, ticks: int, period_ns: int) -> None:
        self._robot, self._ticks, self._late_ns = robot, ticks, ticks * period_ns
        self._waiting: deque[Command] = deque([Command((0.0, 0.0))] * ticks)

    def write(self, order: TimedCommand) -> None:
        """Take a command, and drive one from before."""
        self._waiting.append(order.command)
        self._robot.write(msgspec.structs.replace(order, command=self._waiting.popleft()))


def outline(place: Arena) -> NDArray[np.float64]:
    """Return points on the walls of everything in an arena, (n, 2) m."""
    found = []
    for solid in place.solids:
        x, y, _ = solid.half_size_m
        if solid.kind == "cylinder":
            turn = np.linspace(0, 2 * math.pi, max(12, round(2 * math.pi * x / OUTLINE_M)), endpoint=False)
            edge = x * np.column_stack([np.cos(turn), np.sin(turn)])
        else:
            along_x = np.linspace(-x, x, max(2, round(2 * x / OUTLINE_M)))
            along_y = np.linspace(-y, y, max(2, round(2 * y / OUTLINE_M)))
            sides = [(along_x, np.full_like(along_x, s * y)) for s in (-1, 1)]
            sides += [(np.full_like(along_y, s * x), along_y) for s in (-1, 1)]
            edge = np.concatenate([np.column_stack(side) for side in sides])
        c, s = math.cos(solid.yaw_rad), math.sin(solid.yaw_rad)
        found.append(edge @ np.array([[c, s], [-s, c]]) + solid.position_m[:2])
    return np.concatenate(found)


class Outcome(NamedTuple):
    """How an episode went.

    Attributes:
        clearance_m: The least distance between the declared body and what it had sensed.
        contact: What was touched: nothing, something sensed, or something it never saw, driving ahead or not.
        where: What moved how at the contact, for reports.
    """

    clearance_m: float
    contact: Contact
    where: str
    ticks: int


class Witness:
    """Knows the truth: where things are, and which of them the rover has sensed."""

    def __init__(self, profile: RobotProfile, robot: SimulatedRobot) -> None:
        assert profile.camera is not None and robot.rover.arena is not None
        self._profile, self._camera, self._robot = profile, profile.camera, robot
        self._points = outline(robot.rover.arena)
        self._seen_at_m = np.full(len(self._points), -math.inf)
        self._way_m, self._ahead_mps = 0.0, 0.0
        self.clearance_m = math.inf

    def look(self, observation: Observation) -> None:
        """Take in what the rover has just seen."""
        linear, angular = observation.arrays["proprio"][:2]
        self._ahead_mps = float(linear)
        self._way_m += (abs(float(linear)) + TURN_COST_M * abs(float(angular))) / self._profile.rates.control_hz
        local, x = self._local(), self._camera.mount_forward_m
        distance_m = self._body_distance_m(local)
        sensed = self._seen_at_m >= self._way_m - MEMORY_M
        self.clearance_m = min(self.clearance_m, float(distance_m[sensed].min(initial=math.inf)))
        ahead = np.flatnonzero((local[:, 0] > x + 0.05) & (local[:, 0] < x + SEEN_WITHIN_M))
        z = local[ahead, 0] - x
        column = np.floor(self._camera.width / 2 - local[ahead, 1] / z * self._camera.focal_px).astype(int)
        inside = (column >= 0) & (column < self._camera.width)
        ahead, z, column = ahead[inside], z[inside], column[inside]
        depth_m = column_distances(observation.arrays["depth"], self._camera)[column]
        self._seen_at_m[ahead[(depth_m > 0) & (np.abs(z - depth_m) < 0.03)]] = self._way_m

    def _local(self) -> NDArray[np.float64]:
        x, y, yaw = self._robot.rover.pose
        c, s = math.cos(yaw), math.sin(yaw)
        return (self._points - (x, y)) @ np.array([[c, -s], [s, c]])

    def _body_distance_m(self, local: NDArray[np.float64]) -> NDArray[np.float64]:
        body = self._profile.body
        outside = np.maximum(np.abs(local) - (body.length_m / 2, body.width_m / 2), 0)
        return np.hypot(outside[:, 0], outside[:, 1])

    def contact(self, observation: Observation) -> tuple[Contact, str]:
        """Say what is touched: the outline nearest to the body."""
        local = self._local()
        distance_m = self._body_distance_m(local)
        touched = distance_m <= distance_m.min() + 0.01
        sensed = bool((self._seen_at_m[touched] >= self._way_m - MEMORY_M).any())
        x, y = local[touched].mean(axis=0)
        fast = self._ahead_mps > self._profile.limits.max_reverse_mps + 0.05  # motors overshoot; now it is braked
        angular = observation.arrays["proprio"][1]
        return (
            "sensed" if sensed else "aside" if fast else "blind",
            f"at ({x:.2f}, {y:.2f}) m of the robot, at {self._ahead_mps:.2f} m/s and {angular:.2f} rad/s",
        )


def drive(
    profile: RobotProfile,
    kind: Kind,
    parameters: NDArray[np.float64],
    seed: int,
    *,
    late_ticks: int = 1,
    ticks: int = 100,
    mode: GateMode = "full",
) -> Outcome:
    """Drive one episode in arena `seed`; equal arguments give equal outcomes."""
    rng = np.random.default_rng([29, seed])
    clock = VirtualClock()
    robot = SimulatedRobot(profile, [seed], rng, clock)
    driver = Adversary(profile, kind, parameters, np.random.default_rng([30, seed]))
    sink = Late(robot, late_ticks, profile.rates.period_ns)
    witness = Witness(profile, robot)
    found: list[tuple[Contact, str]] = []

    def watch(observation: Observation) -> None:
        if observation.contact and not found:
            found.append(witness.contact(observation))
        witness.look(observation)

    recorder = Recorder(profile, "adversary", "")
    gate = SafetyGate(profile, mode)
    actor = Actor(profile, robot, sink, driver, gate, recorder, clock, watch=watch)
    done = 0
    while done < ticks and not found:
        actor.tick()
        done += 1
    assert actor.errors == 0
    contact, where = found[0] if found else ("", "")
    return Outcome(witness.clearance_m, contact, where, done)


def random_case(index: int) -> tuple[Kind, NDArray[np.float64], int]:
    """Return kind, parameters and lateness of a random adversary."""
    rng = np.random.default_rng([31, index])
    return KINDS[index % len(KINDS)], rng.normal(0, 1.5, PARAMETERS), int(rng.integers(2))


def drive_random(profile: RobotProfile, index: int, *, ticks: int = 100, late_ticks: int | None = None) -> Outcome:
    """Drive a random adversary in an arena of its own."""
    kind, parameters, late = random_case(index)
    late = late if late_ticks is None else late_ticks
    return drive(profile, kind, parameters, 50_000 + index, late_ticks=late, ticks=ticks)


def report(outcomes: Sequence[Outcome], what: str) -> None:
    """Print counts."""
    kinds: tuple[Contact, ...] = ("sensed", "aside", "blind")
    count = {contact: sum(outcome.contact == contact for outcome in outcomes) for contact in kinds}
    clearances = [outcome.clearance_m for outcome in outcomes if math.isfinite(outcome.clearance_m)]
    print(
        f"{what}: {len(outcomes)} runs, {sum(outcome.ticks for outcome in outcomes)} ticks; contacts: "
        f"{count['sensed']} with something sensed, {count['aside']} with something never seen at speed, "
        f"{count['blind']} backing up, turning or creeping; least clearance to something sensed "
        f"{min(clearances):.3f} m, 1st percentile {np.percentile(clearances, 1):.3f} m"
    )


def search(
    profile: RobotProfile, generations: int, seed: int, *, late_ticks: int, ticks: int, arenas: int
) -> list[Outcome]:
    """Let CMA-ES minimise the clearance; the same arenas for every candidate of a seed."""
    import cma

    options = {"seed": seed + 1, "verbose": -9, "popsize": 10, "maxiter": generations}
    strategy = cma.CMAEvolutionStrategy(np.zeros(PARAMETERS), 1.5, options)
    outcomes: list[Outcome] = []
    while not strategy.stop():
        candidates = strategy.ask()
        fitness = []
        for candidate in candidates:
            tried = [
                drive(profile, "linear", candidate, 60_000 + 100 * seed + arena, late_ticks=late_ticks, ticks=ticks)
                for arena in range(arenas)
            ]
            for arena, outcome in enumerate(tried):
                if outcome.contact == "sensed":
                    print(f"CONTACT {outcome}, arena {60_000 + 100 * seed + arena}, {np.round(candidate, 4).tolist()}")
            outcomes += tried
            # The worst arena, and the mean for a slope; contact below everything.
            clearances = [-0.1 if outcome.contact == "sensed" else min(outcome.clearance_m, 1) for outcome in tried]
            fitness.append(min(clearances) + 0.1 * float(np.mean(clearances)))
        strategy.tell(candidates, fitness)
        print(f"seed {seed}, generation {strategy.countiter}: best {min(fitness):.4f}", file=sys.stderr, flush=True)
    return outcomes


def main() -> None:
    """Attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=0, metavar="N")
    parser.add_argument("--search", type=int, default=0, metavar="GENERATIONS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arenas", type=int, default=3)
    parser.add_argument("--ticks", type=int, default=100)
    parser.add_argument("--late", type=int, default=None, help="ticks that commands arrive late; default 0 or 1")
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    profile = profile_without_ends()
    if arguments.random:
        outcomes = []
        for index in range(arguments.first, arguments.first + arguments.random):
            outcomes.append(drive_random(profile, index, ticks=arguments.ticks, late_ticks=arguments.late))
            if outcomes[-1].contact:
                print(f"{outcomes[-1]} by {random_case(index)[0]}, index {index}")
        report(outcomes, "random")
    for seed in arguments.seeds if arguments.search else ():
        late = seed % 2 if arguments.late is None else arguments.late
        found = search(profile, arguments.search, seed, late_ticks=late, ticks=arguments.ticks, arenas=arguments.arenas)
        report(found, f"search {seed}, {late} ticks late")


if __name__ == "__main__":
    main()
