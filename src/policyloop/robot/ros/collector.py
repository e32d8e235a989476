"""The node that records, without ROS: what a person does with a robot becomes demonstrations (rows S1, S7, S8)."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from policyloop.core.clock import Clock
from policyloop.core.step import Action, Command, Observation, Stamps
from policyloop.errors import ConfigError, ConnectionFailed
from policyloop.robot.calibration import CalibrationCapture
from policyloop.robot.recorder import Recorder
from policyloop.robot.ros.diagnosis import Diagnosis
from policyloop.robot.ros.settings import calibration_of, link_of, profile_of, robot_of, topics_of
from policyloop.robot.ros.teleop import Teleop
from policyloop.robot.ros.topics import TopicSource
from policyloop.robot.ros.twist_sink import check_drives_by_twist
from policyloop.robot.service import open_link

__all__ = ["Collector"]


class Collector:
    """Records and streams; drives nothing. Ticks in which nobody drives are gaps, not demonstrations of standing.

    Args:
        values: The node's parameters.
        clock: Real time.
        ros_now: Returns the time that stamps are made with, ns.

    Attributes:
        source: Takes in what sensors say.
        teleop: Takes in what a person does.

    Raises:
        PolicyloopError: A parameter or the profile makes no sense, or the spool cannot be used.
    """

    def __init__(self, values: dict[str, Any], clock: Clock, ros_now: Callable[[], int] | None = None) -> None:
        profile = profile_of(values, "collection_rate_hz")
        check_drives_by_twist(profile)
        self._profile = replace(profile, stream=replace(profile.stream, jpeg_quality=values["jpeg_quality"]))
        self._clock = clock
        self.source = TopicSource(profile, topics_of(values), clock, ros_now)
        self.teleop = Teleop(profile, values["cmd_vel_topic"], clock)
        link = link_of(values)
        if not link.address:
            raise ConfigError("server_address is empty", "give the address of a gateway, such as tcp://trainer:5555")
        folder, samples = calibration_of(values)
        with ExitStack() as opened:
            temporary = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="policyloop-")))
            self._link = open_link(link, self._profile, robot_of(values), temporary)
            opened.callback(self._link.close)
            self._capture = None if folder is None else CalibrationCapture(folder, samples)
            if self._capture is not None:
                opened.callback(self._capture.close)
            self._opened = opened.pop_all()
        self._recorder = Recorder(self._profile, robot_of(values), self._link.boot, self._emit)
        self._steps = self._idle = 0
        self._problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector")

    def start(self) -> None:
        """Begin to record."""
        self._thread.start()

    def _emit(self, step: Any) -> None:
        self._steps += 1
        self._link.append(step)

    def _run(self) -> None:
        deadline_ns = self._clock.now_ns()
        while not self._stop.is_set():
            self.tick()
            deadline_ns = max(deadline_ns + self._profile.rates.period_ns, self._clock.now_ns())
            self._clock.sleep_until_ns(deadline_ns)

    def tick(self) -> None:
        """Record one tick."""
        observation = self._sense()
        action = None if observation is None else self.teleop()
        if observation is None or action is None:
            self._idle += observation is not None
            self._recorder.miss()
            return
        self._recorder.observe(observation)
        now_ns = self._clock.now_ns()
        stamps = Stamps(observation.captured_ns, now_ns, now_ns)
        self._recorder.act(observation, Action(action.values, "human"), Command(action.values), stamps)

    def _sense(self) -> Observation | None:
        try:
            observation = self.source.read()
        except ConnectionFailed as error:
            self._problem = str(error)
            return None
        self._problem = ""
        if self._capture is not None:
            self._capture.observe(observation)
        return observation

    def diagnoses(self) -> list[Diagnosis]:
        """Return how everything does."""
        link = self._link
        values = {
            "steps": str(self._steps),
            "idle_ticks": str(self._idle),
            "pending": str(link.pending),
            "lost": str(link.lost),
            "episodes": str(len(self._recorder.episodes)),
        }
        if link.failure is not None:
            recording = Diagnosis("error", "recording", str(link.failure), values)
        elif self._problem:
            recording = Diagnosis("error", "recording", self._problem, values)
        else:
            recording = Diagnosis("ok", "recording", f"{self._steps} steps, {link.pending} to be sent", values)
        return [recording, *self.source.diagnoses(), self.teleop.diagnosis()]

    def close(self) -> None:
        """End, and hand over what was recorded."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._opened.close()
