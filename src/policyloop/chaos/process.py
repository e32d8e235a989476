"""Faults of a robot's program as a whole: a real process is frozen, killed or cut off from its gateway.

The motors are outside of it, in real time, and obey `robot.motors.MotorLatch`, as the last stage of every robot must.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from policyloop.chaos.program import Seen
from policyloop.chaos.trial import Outcome
from policyloop.core.profile import RobotProfile
from policyloop.core.step import TimedCommand
from policyloop.errors import ConnectionFailed, SafetyRefusal
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.robot.control import RobotStatus, Verb, ask_robot
from policyloop.robot.motors import LONGEST_NS, MotorLatch
from policyloop.sim.rover import Rover, arena

__all__ = ["PROCESS_FAULTS", "ProcessFault", "try_process_fault"]

_DRIVES_MPS, _STANDS_MPS = 0.15, 0.02
_STARTS_S, _FAULTY_S, _AFTER_S, _AGAIN_S = 60.0, 3.0, 2.5, 10.0


class _World:
    """A rover whose program is a process of its own.

    Attributes:
        latch: Its motors.
        said: Reasons of the commands that have come, by how often.
    """

    def __init__(self, profile: RobotProfile, seed: int, folder: Path, *, linked: bool) -> None:
        rules = msgspec.structs.replace(profile.episode, max_steps=1 << 30, collision_distance_m=1e-3)
        self._profile, self._folder = msgspec.structs.replace(profile, episode=rules), folder
        (folder / "profile.json").write_bytes(msgspec.json.encode(self._profile))
        self.latch, self.said = MotorLatch(profile.stop()), Counter[str]()
        self.contact, self.travelled_m, self.fastest_mps = False, 0.0, 0.0
        self.moved_until_ns = 0
        self._rover = Rover(profile)
        self._rover.reset(arena(seed, profile.simulation), np.random.default_rng(seed))
        self._deadline_s = time.monotonic()
        self.journal = Journal(folder / "journal", self._profile, writable=True) if linked else None
        self.gateway: Gateway | None = None
        self._address = ""
        if linked:
            self.link()
        self.start()

    # -- the program --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the program, as a service manager would."""
        ours, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), str(self._folder / "profile.json"), str(self._folder / "control.sock")]
        if self._address:
            arguments += [self._address, str(self._folder / "spool")]
        command = [sys.executable, "-m", "policyloop.chaos.program", *arguments]
        self.program = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._connection = Connection(ours.detach())
        self.latch.restart()

    def ask(self, verb: Verb) -> RobotStatus | None:
        """Reach the program by hand; None if it does not answer, or will not."""
        try:
            return ask_robot(self._folder / "control.sock", verb)
        except (ConnectionFailed, SafetyRefusal):
            return None

    def link(self) -> None:
        """Let a gateway listen, where one has listened before if one has."""
        assert self.journal is not None
        self.gateway = Gateway(self.journal, self._profile, self._address or "tcp://127.0.0.1:*")
        self._address = self.gateway.address
        self.gateway.start()

    def unlink(self) -> None:
        """Take the gateway away."""
        if self.gateway is not None:
            self.gateway.close()
            self.gateway = None

    # -- the machine --------------------------------------------------------------------------------

    def live(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; returns at once, and True, when it is so."""
        self.fastest_mps = 0.0
        for _ in range(round(seconds * self._profile.rates.control_hz)):
            self._drive()
            self._deadline_s = max(self._deadline_s + 1 / self._profile.rates.control_hz, time.monotonic())
            while (left_s := self._deadline_s - time.monotonic()) > 0:
                self._serve(left_s)
            if until():
                return True
        return False

    def _drive(self) -> None:
        values = self.latch.command(time.monotonic_ns()).values
        before = np.array(self._rover.pose[:2])
        self._rover.drive(*values)
        self.travelled_m += float(np.linalg.norm(np.array(self._rover.pose[:2]) - before))
        self.contact |= self._rover.contact
        arrays = self._rover.observe()
        self._seen = Seen(
            {name: array.tobytes() for name, array in arrays.items()}, time.monotonic_ns(), self._rover.contact
        )
        self.speed_mps = abs(float(arrays["proprio"][self._profile.proprio_index("linear_vel")]))
        self.fastest_mps = max(self.fastest_mps, self.speed_mps)

    def _serve(self, left_s: float) -> None:
        try:
            if not self._connection.poll(left_s):
                return
            message = self._connection.recv_bytes()
            if not message:
                self._connection.send_bytes(msgspec.msgpack.encode(self._seen))
                return
        except (OSError, EOFError):
            time.sleep(left_s)  # nobody is there any more
            return
        order = msgspec.msgpack.decode(message, type=TimedCommand)
        self.latch.accept(order, time.monotonic_ns())
        self.said.update(reason for reason in order.command.reasons if reason != "slew")
        if any(order.command.values):
            self.moved_until_ns = order.valid_until_ns

    def drives(self) -> bool:
        """It moves."""
        return self.speed_mps > _DRIVES_MPS

    def __enter__(self) -> _World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.program.kill()
        self.program.wait()
        self._connection.close()
        self.unlink()
        if self.journal is not None:
            self.journal.close()

    def lost(self) -> int:
        """End the program as it should end; return how many of its steps never came."""
        assert self.journal is not None
        self.program.terminate()
        self.live(_AGAIN_S, lambda: self.program.poll() is not None)
        self.unlink()
        sequences = {record.sequence for record in self.journal.headers()}
        return max(sequences, default=0) + 1 - len(sequences) if sequences else 1


class ProcessFault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong with the program.

    Attributes:
        name: For the command line.
        what: In one sentence.
        breaks: Does it.
        mends: What becomes of it.
        linked: The program streams to a gateway.
        must: `stand`: motors at rest within half a second. `endure`: drive on, and lose no step.
    """

    name: str
    what: str
    breaks: Callable[[_World], None]
    mends: Callable[[_World], None]
    linked: bool = False
    must: str = "stand"


def _restart(world: _World) -> None:
    world.program.wait()
    world.start()


PROCESS_FAULTS = (
    ProcessFault(
        name="frozen-program",
        what="the program is stopped by SIGSTOP for three seconds",
        breaks=lambda world: world.program.send_signal(signal.SIGSTOP),
        mends=lambda world: world.program.send_signal(signal.SIGCONT),
    ),
    ProcessFault(
        name="killed-program",
        what="the program is killed by SIGKILL, and started again",
        breaks=lambda world: world.program.kill(),
        mends=_restart,
    ),
    ProcessFault(
        name="dropped-link",
        what="the gateway is gone for three seconds; safety needs no network, and the spool keeps the steps",
        must="endure",
        breaks=_World.unlink,
        mends=_World.link,
        linked=True,
    ),
)


def try_process_fault(profile: RobotProfile, fault: ProcessFault, seed: int = 3) -> Outcome:
    """Let a scripted rover drive, break its program, mend it, and arm it again by hand."""
    with (
        tempfile.TemporaryDirectory(prefix="policyloop-chaos-") as folder,
        _World(profile, seed, Path(folder), linked=fault.linked) as world,
    ):
        armed = world.live(_STARTS_S, lambda: world.ask("arm") is not None) and world.live(_AGAIN_S, world.drives)
        world.said.clear()
        world.travelled_m = 0.0
        began_ns = time.monotonic_ns()
        fault.breaks(world)
        world.live(_FAULTY_S)
        stopped_ns, travelled_m = world.moved_until_ns, world.travelled_m
        stands = not any(world.latch.command(time.monotonic_ns()).values)
        if stands:
            world.said["expired"] += 1
        fault.mends(world)
        world.live(_STARTS_S, lambda: world.ask("status") is not None)
        world.live(_AFTER_S)
        status, said = world.ask("status"), world.said.most_common(3)
        if fault.must == "stand":
            moved_by_itself = world.fastest_mps > _STANDS_MPS
            kept = stands and stopped_ns - began_ns < LONGEST_NS
            armed_again = world.ask("arm") is not None and world.live(_AGAIN_S, world.drives)
        else:
            moved_by_itself, armed_again = False, world.live(_AGAIN_S, world.drives)
            kept = not world.lost()
        return Outcome(
            name=fault.name,
            what=fault.what,
            must=fault.must,
            said=[reason for reason, _ in said],
            stopped_after_s=max(stopped_ns - began_ns, 0) * 1e-9 if stands else None,
            travelled_m=travelled_m,
            contact=world.contact,
            state=status.state if status is not None else "",
            reason=status.reason if status is not None else "",
            moved_by_itself=moved_by_itself,
            armed_again=armed_again,
            passed=armed and kept and not world.contact and not moved_by_itself and armed_again,
        )
