"""Simulated robots that stream like real ones, several to a process, as fast as the core allows."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.link.keys import Identity
from policyloop.link.uplink import Uplink
from policyloop.robot.actor import Actor, Disturbance
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.io import Driver
from policyloop.robot.recorder import EpisodeSummary, Recorder
from policyloop.runtime.reload import PolicySlot
from policyloop.safety.gate import GateMode, SafetyGate
from policyloop.sim.apprentice import Apprentice
from policyloop.sim.assistance import AssistedDriver
from policyloop.sim.curriculum import Curriculum, CurriculumSettings
from policyloop.sim.driver import RandomDriver, ScriptedDriver
from policyloop.sim.randomization import Randomization
from policyloop.sim.robot import Bursts, SimulatedRobot

__all__ = ["Fleet", "FleetSettings"]

TRAINING_ARENAS = range(48)
"""Arena seeds that training uses; `evaluate` takes others."""


class FleetSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate.

    Attributes:
        driver: `scripted`, `random`, or the path of a bundle or store.
        connect: Gateway address; empty = simulate without streaming.
        explore: A policy draws its actions instead of taking the mean.
        disturb: A scripted driver is disturbed, to show how it recovers.
        gate: `limits` lets a simulated robot bump into things.
        assisted: The first so many robots drive the bare policy, and the scripted driver takes over
            where it stands still.
        pupil: This bundle or store drives, and what is recorded is what the scripted driver would have done.
        randomization: Each episode takes place under other conditions; None = under the nominal ones.
        curriculum: Each robot begins in sparse arenas and goes on to denser ones by itself; None = all arenas are what
            the profile says.
    """

    driver: str
    robots: int = 1
    connect: str = ""
    name: str = "sim"
    seed: int = 0
    arena_seeds: tuple[int, ...] = tuple(TRAINING_ARENAS)
    explore: bool = True
    disturb: bool = True
    gate: GateMode = "full"
    assisted: int = 0
    pupil: str = ""
    randomization: Randomization | None = None
    curriculum: CurriculumSettings | None = None


class _Member:
    """One robot of the fleet."""

    def __init__(self, actor: Actor, recorder: Recorder, uplink: Uplink | None, curriculum: Curriculum | None) -> None:
        self.actor, self.recorder, self.uplink, self.curriculum = actor, recorder, uplink, curriculum

    def may_drive(self) -> bool:
        """The link has room and nobody asks for a pause."""
        return self.uplink is None or not (self.uplink.hold or self.uplink.window_full)


class Fleet:
    """Robots `<name>-0`, `<name>-1`, ...

    Args:
        profile: Of every robot.
        settings: What to simulate.
        spool_directory: Each robot keeps its spool in a folder of its own under it.
        emit: Called with every finished step when nothing is streamed.
        identity: Keys of all of them; they are called after it, or `<its name>-...`.
        gateway_key: The gateway's public key.
    """

    def __init__(
        self,
        profile: RobotProfile,
        settings: FleetSettings,
        spool_directory: Path,
        emit: Callable[[Step], None] | None = None,
        *,
        identity: Identity | None = None,
        gateway_key: str = "",
    ) -> None:
        self._profile, self._settings, self._emit = profile, settings, emit
        self._identity, self._gateway_key = identity, gateway_key
        self._slot: PolicySlot | None = None
        follows = settings.pupil or (settings.driver if settings.driver not in ("scripted", "random") else "")
        if follows:
            self._slot = PolicySlot(Path(follows), profile)
        self._members = [self._member(index, spool_directory) for index in range(settings.robots)]
        self.steps = 0

    def _member(self, index: int, spool_directory: Path) -> _Member:
        settings, profile = self._settings, self._profile
        rng = np.random.default_rng([settings.seed, index])
        clock = VirtualClock()
        name = f"{settings.name}-{index}"
        uplink = None
        if settings.connect:
            uplink = Uplink(
                settings.connect,
                profile,
                name,
                spool_directory / name,
                identity=self._identity,
                gateway_key=self._gateway_key,
            )
        emit = uplink.append if uplink else self._emit
        recorder = Recorder(profile, name, uplink.boot if uplink else secrets.token_hex(8), emit)
        curriculum = Curriculum(settings.curriculum, profile.simulation) if settings.curriculum else None
        robot = SimulatedRobot(
            profile,
            settings.arena_seeds,
            rng,
            clock,
            randomization=settings.randomization,
            world=None if curriculum is None else lambda: curriculum.world(recorder.episodes),
        )
        gate = SafetyGate(profile, settings.gate)
        driver = self._driver(rng, assisted=index < settings.assisted)
        disturb: Disturbance | None = driver if isinstance(driver, Apprentice) else None
        if disturb is None and settings.disturb and settings.driver == "scripted":
            disturb = Bursts(profile, rng)
        actor = Actor(profile, robot, robot, driver, gate, recorder, clock, disturb=disturb)
        return _Member(actor, recorder, uplink, curriculum)

    def _driver(self, rng: np.random.Generator, *, assisted: bool) -> Driver:
        if self._slot is not None:
            explore = self._settings.explore and not (assisted or self._settings.pupil)
            driver = PolicyDriver(self._slot, len(self._profile.action), rng if explore else None)
            if self._settings.pupil:
                return Apprentice(driver, ScriptedDriver(self._profile))
            return AssistedDriver(driver, ScriptedDriver(self._profile), self._profile) if assisted else driver
        return (
            ScriptedDriver(self._profile) if self._settings.driver == "scripted" else RandomDriver(self._profile, rng)
        )

    @property
    def episodes(self) -> Sequence[EpisodeSummary]:
        """Every finished episode of every robot."""
        return [episode for member in self._members for episode in member.recorder.episodes]

    @property
    def levels(self) -> tuple[int, ...]:
        """Level of each robot, from 0; empty without a curriculum."""
        return tuple(member.curriculum.level for member in self._members if member.curriculum is not None)

    @property
    def policy_version(self) -> int:
        """Version of the policy that drives; 0 if none does."""
        return self._slot.policy.version if self._slot else 0

    def run(
        self, stop: threading.Event, *, steps: int | None = None, report: Callable[[Fleet], None] | None = None
    ) -> None:
        """Drive until `stop` is set or `steps` are done in all."""
        while not stop.is_set() and (steps is None or self.steps < steps):
            if self._slot is not None:
                self._slot.follow(wait=True)
            moved = False
            for member in self._members:
                if member.may_drive():
                    member.actor.tick()
                    self.steps += 1
                    moved = True
                if member.uplink is not None:
                    member.uplink.pump()
            if not moved:
                self._wait()
            if report is not None:
                report(self)

    def _wait(self) -> None:
        """Nobody may drive: give the core away until a message comes."""
        for member in self._members:
            if member.uplink is not None:
                member.uplink.pump(0.005)

    def close(self, drain_s: float = 3.0) -> bool:
        """Hand over what is spooled and release everything; False if something is still in a spool."""
        drained, deadline_s = True, time.monotonic() + drain_s
        for member in self._members:
            if member.uplink is not None:
                drained &= member.uplink.drain(max(0.0, deadline_s - time.monotonic()))
                member.uplink.close()
        if self._slot is not None:
            self._slot.close()
        return drained
