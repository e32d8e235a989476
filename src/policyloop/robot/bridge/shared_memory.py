"""The bridge through shared memory: the controller runs at its own rate, and so does the robot's program."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policyloop.core.step import Observation, TimedCommand
from policyloop.errors import ConnectionFailed
from policyloop.robot.bridge.header import LONGEST_VALIDITY_NS, Header
from policyloop.robot.bridge.intake import Intake
from policyloop.robot.bridge.record import DRIVE, IN_POLICY_MODE, Record, representable
from policyloop.robot.bridge.shared_file import SharedFile

__all__ = ["SharedMemoryBridge"]


class SharedMemoryBridge:
    """A `SensorSource` and a `CommandSink`; owns the file.

    Args:
        path: Of the file; see `shared_path`.
        states: Where in the proprioception vector each number of a state belongs.
        proprio_size: Length of that vector.
        targets: How many numbers a command has.
        digest: The robot profile's, 64 hexadecimal characters.
        kp: N m/rad of each joint, which the policy was made for.
        kd: N m s/rad of each joint.
        pose: rad of each joint, where the policy starts from.
        longest_validity_ns: The controller damps rather than obey a command that claims more.

    Raises:
        ConfigError: A size or a gain is wrong.
        SafetyRefusal: The file is another user's, or others may open it.
        StorageError: It cannot be made.
        UsageError: Another program serves it.
    """

    def __init__(
        self,
        path: Path,
        *,
        states: NDArray[np.intp],
        proprio_size: int,
        targets: int,
        digest: str,
        kp: tuple[float, ...] = (),
        kd: tuple[float, ...] = (),
        pose: tuple[float, ...] = (),
        longest_validity_ns: int = LONGEST_VALIDITY_NS,
    ) -> None:
        self._path, self._targets = path, targets
        self._intake = Intake(states, proprio_size)
        header = Header(
            owner_floats=targets,
            guest_floats=self._intake.states,
            digest=bytes.fromhex(digest),
            kp=kp,
            kd=kd,
            pose=pose,
            longest_validity_ns=longest_validity_ns,
        )
        self._file = SharedFile.create(path, header)
        self._state: Record | None = None
        self._lock = threading.Lock()
        self._sent = 0
        self._closed = False

    @property
    def driving(self) -> bool:
        """Whether the controller does what the policy says, as of the last `read`."""
        return self._state is not None and bool(self._state.flags & IN_POLICY_MODE)

    def read(self) -> Observation:
        """Return the newest state; one that has not changed keeps its capture time, and so grows old.

        Raises:
            ConnectionFailed: None has come yet.
        """
        self._state = self._file.reader.read() or self._state
        if self._state is None:
            raise ConnectionFailed(f"no state has come through {self._path} yet", "start the controller")
        return self._intake.observation(self._state.values, self._state.time_ns, followed=self.driving)

    def begin_episode(self) -> bool:
        """Return False: the robot stays where it is."""
        return False

    def write(self, order: TimedCommand) -> None:
        """Hand a command to the controller, from any thread; what cannot be driven becomes an order to damp."""
        values = order.command.values
        drive = not order.command.damped and representable(values, self._targets)
        with self._lock:
            # A thread that was held up must not put an older command in the place of a newer one.
            if self._closed or order.sequence <= self._sent:
                return
            self._sent = order.sequence
            self._file.writer.write(
                order.valid_until_ns, DRIVE if drive else 0, values if drive else (0.0,) * self._targets
            )

    def close(self) -> None:
        """Let go of the file; the controller damps when the last command is no longer valid."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._file.close()
