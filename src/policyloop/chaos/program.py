"""The program of a robot whose motors and sensors are in another process: `chaos.process` freezes and kills it.

python -m policyloop.chaos.program DESCRIPTOR PROFILE.json SOCKET [ADDRESS SPOOL]
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import numpy as np

from policyloop.core.clock import MonotonicClock
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays, Observation, TimedCommand
from policyloop.link.uplink import Uplink
from policyloop.robot.actor import Actor
from policyloop.robot.control import ControlSocket
from policyloop.robot.recorder import Recorder
from policyloop.robot.service import UplinkThread
from policyloop.safety.arming import ArmingLimits, ArmingSwitch
from policyloop.safety.gate import SafetyGate
from policyloop.sim.driver import ScriptedDriver

__all__ = ["Seen"]


class Seen(msgspec.Struct, frozen=True):
    """An observation on its way to the program."""

    arrays: dict[str, bytes]
    captured_ns: int
    contact: bool


class _Base:
    """Sensors and motors at the other end of a connection: an empty message asks for an observation."""

    def __init__(self, profile: RobotProfile, connection: Connection) -> None:
        self._specs, self._connection = profile.observation_specs, connection

    def read(self) -> Observation:
        self._connection.send_bytes(b"")
        seen = msgspec.msgpack.decode(self._connection.recv_bytes(), type=Seen)
        arrays: Arrays = {
            name: np.frombuffer(seen.arrays[name], spec.dtype).reshape(spec.shape) for name, spec in self._specs.items()
        }
        return Observation(arrays, seen.captured_ns, seen.contact)

    def begin_episode(self) -> bool:
        return False

    def write(self, order: TimedCommand) -> None:
        self._connection.send_bytes(msgspec.msgpack.encode(order))


def main(descriptor: str, profile_file: str, control: str, address: str = "", spool: str = "") -> None:
    """Drive until SIGTERM."""
    logging.getLogger().addHandler(logging.NullHandler())  # the outcome tells what there is to tell
    profile, stop = msgspec.json.decode(Path(profile_file).read_bytes(), type=RobotProfile), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    base, clock = _Base(profile, Connection(int(descriptor))), MonotonicClock()
    uplink = Uplink(address, profile, "chaos", Path(spool)) if address else None
    link = UplinkThread(uplink) if uplink is not None else None
    recorder = Recorder(profile, "chaos", uplink.boot if uplink else "", link.append if link else None)
    arming = ArmingSwitch(ArmingLimits.of(profile))
    switch = ControlSocket(Path(control), arming, lambda: 0)
    actor = Actor(profile, base, base, ScriptedDriver(profile), SafetyGate(profile), recorder, clock, arming=arming)
    try:
        actor.run(stop)
    finally:
        switch.close()
        if link is not None:
            link.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
