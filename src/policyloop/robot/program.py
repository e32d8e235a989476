"""The robot's program, whatever the robot is: policy, gate, arming, recording and streaming, wired once.

`policyloop run` and the ROS 2 node are two ways to start it.
"""

from __future__ import annotations

import gc
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from policyloop.bundle.signing import KeyRing
from policyloop.core.clock import Clock, MonotonicClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Action
from policyloop.robot.actor import Actor
from policyloop.robot.calibration import CalibrationCapture, CalibrationSettings
from policyloop.robot.control import ControlSocket, socket_path
from policyloop.robot.drivers import PolicyDriver
from policyloop.robot.io import CommandSink, SensorSource
from policyloop.robot.notify import Notifier
from policyloop.robot.pull import open_download
from policyloop.robot.recorder import Recorder
from policyloop.robot.scheduling import freeze_garbage
from policyloop.robot.service import LinkSettings, UplinkThread, open_link
from policyloop.runtime.guarded import open_slot
from policyloop.runtime.health import SwapSettings
from policyloop.runtime.locate import find_policy
from policyloop.safety.arming import ArmingLimits, ArmingSwitch
from policyloop.safety.gate import SafetyGate

__all__ = ["Program", "ProgramSettings"]


class ProgramSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a robot is driven.

    Attributes:
        policy: What with: see `runtime.locate.find_policy`.
        robot: Its name.
        backend: What runs the network.
        trusted: Folder of keys: only what they have signed drives; None = unsigned policies do too.
        proof: What a new version of a store must show.
        link: Where steps go.
        pull: See `robot.pull.open_download`.
        arm: Arm the robot once its input has been healthy for a second.
        control: Socket for `policyloop robot`; None = after the robot's name.
        explore: Draw actions at random around the policy's mean.
        calibration: Folder for calibration samples; None = take none.
        samples: How often, how many.
        seed: Of the exploration.
    """

    policy: Path
    robot: str
    backend: str = "auto"
    trusted: Path | None = None
    proof: SwapSettings = SwapSettings()
    link: LinkSettings = LinkSettings()
    pull: str = "off"
    arm: bool = False
    control: Path | None = None
    explore: bool = False
    calibration: Path | None = None
    samples: CalibrationSettings = CalibrationSettings()
    seed: int = 0


class Program:
    """Everything that drives one robot but the robot; a context manager, or `close` it.

    Args:
        profile: The robot's.
        settings: How it is driven.
        clock: Real time.

    Attributes:
        slot: Holds the policy.
        arming: Who may move the robot.
        link: Takes steps to the trainer; None = nowhere.

    Raises:
        PolicyloopError: No policy that may drive, or what is asked for makes no sense.
    """

    def __init__(self, profile: RobotProfile, settings: ProgramSettings, clock: Clock | None = None) -> None:
        self._profile, self._settings = profile, settings
        self._clock = clock or MonotonicClock()
        self.link: UplinkThread | None = None
        with ExitStack() as opened:
            self._open(opened)
            self._opened = opened.pop_all()

    def _open(self, opened: ExitStack) -> None:
        profile, settings = self._profile, self._settings
        found = find_policy(settings.policy)
        ring = None if settings.trusted is None else KeyRing(settings.trusted)
        download = open_download(settings.pull, found, profile, ring, settings.link.address)
        self.slot = open_slot(found, profile, settings.backend, ring, settings.proof)
        opened.callback(self.slot.close)
        self.arming = ArmingSwitch(ArmingLimits.of(profile), arm_once=settings.arm)
        path = settings.control or socket_path(settings.robot)
        opened.callback(ControlSocket(path, self.arming, lambda: self.slot.policy.version).close)
        self._capture = None
        if settings.calibration is not None:
            self._capture = CalibrationCapture(settings.calibration, settings.samples)
            opened.callback(self._capture.close)
        if settings.link.address:
            temporary = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="policyloop-")))
            self.link = open_link(settings.link, profile, settings.robot, temporary, download)
            opened.callback(self.link.close)

    def actor(
        self,
        source: SensorSource,
        sink: CommandSink,
        *,
        gate: SafetyGate | None = None,
        human: Callable[[], Action | None] = lambda: None,
        await_input: Callable[[int], bool] | None = None,
    ) -> Actor:
        """Return what drives a robot with all this; arguments as those of `Actor`."""
        profile, link = self._profile, self.link
        rng = np.random.default_rng(self._settings.seed) if self._settings.explore else None
        driver = PolicyDriver(self.slot, len(profile.action), rng)
        emit, boot = (link.append, link.boot) if link else (None, "")
        recorder = Recorder(profile, self._settings.robot, boot, emit)

        def status() -> str:
            now = self.arming.now
            why = f" ({now.reason})" if now.reason else ""
            version, swaps = self.slot.policy.version, self.slot.swaps
            return f"{now.state}{why}, policy {version}, {swaps} swaps, {actor.errors} errors"

        def between_ticks() -> None:
            self._notifier.alive()
            self.slot.follow()

        self._notifier = Notifier(self._clock, status)
        actor = Actor(
            profile,
            source,
            sink,
            driver,
            gate or SafetyGate(profile),
            recorder,
            self._clock,
            arming=self.arming,
            human=human,
            between_ticks=between_ticks,
            watch=self._capture.observe if self._capture else None,
            await_input=await_input,
        )
        return actor

    def drive(self, actor: Actor, stop: threading.Event, *, seconds: float = 0.0) -> None:
        """Run the control loop until `stop` is set, or for some time; ends with a zero command."""
        freeze_garbage()
        try:
            actor.run(stop, ticks=round(seconds * self._profile.rates.control_hz) if seconds else None)
        finally:
            self._notifier.stopping()
            gc.unfreeze()

    def close(self) -> None:
        """Hand over what was recorded and release everything."""
        self._opened.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
