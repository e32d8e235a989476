"""The bridge through ZeroMQ: the same frames, as messages of a REQ or DEALER socket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

from policyloop.core.clock import Clock, MonotonicClock
from policyloop.core.step import Observation, TimedCommand
from policyloop.errors import UsageError, WireError
from policyloop.robot.bridge.complaint import Complaint
from policyloop.robot.bridge.exchange import Exchange
from policyloop.robot.bridge.frames import DAMP, decode_frame
from policyloop.robot.bridge.intake import Intake
from policyloop.robot.bridge.listener import listen_tcp, listen_unix

__all__ = ["ZeroMqBridge"]

_ALIVE_NS = 1_000_000_000
"""Who was heard from within this time is the controller; after it, somebody else may be."""
_QUEUE = 4
"""Messages of a peer that ZeroMQ holds, each way."""
_HANDSHAKE = 256
"""ZeroMQ holds its own greeting to the limit for messages, bytes."""
_MOST_PARTS = 3
"""A routing id, the empty frame of a REQ socket, and the state."""


class ZeroMqBridge:
    """A `PacedBridge` for one controller at a time.

    ZeroMQ cannot be told to end one peer's connection: who sends wrong frames, or is the second, is answered "no
    command". A frame that is too large ends the connection, by ZeroMQ itself.

    Args:
        address: `ipc://PATH` for this user alone, or `tcp://127.0.0.1:PORT`, 0 = any.
        states: Where in the proprioception vector each number of a state belongs.
        proprio_size: Length of that vector.
        targets: How many numbers a reply has.
        clock: The robot's.

    Raises:
        ConnectionFailed: The port is taken.
        SafetyRefusal: The address can be reached from other machines: a frame carries no authentication.
        StorageError: The path cannot be used.
        UsageError: Another program answers at the path, or the address is of another kind.
    """

    def __init__(
        self,
        address: str,
        *,
        states: NDArray[np.intp],
        proprio_size: int,
        targets: int,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or MonotonicClock()
        intake = Intake(states, proprio_size)
        self._floats = intake.states
        self._exchange = Exchange(intake, targets, self._clock, address)
        self._complaint = Complaint(address)
        self._peer, self._heard_ns = b"", 0
        self._path = Path(address.removeprefix("ipc://")) if address.startswith("ipc://") else None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, _QUEUE),
            (zmq.SNDHWM, _QUEUE),
            (zmq.MAXMSGSIZE, max(4 + 4 * self._floats, _HANDSHAKE)),
        ):
            self._socket.setsockopt(option, value)
        try:
            self.address = self._bind(address)
        except BaseException:
            self._context.destroy()
            raise

    def _bind(self, address: str) -> str:
        if self._path is not None:
            listener = listen_unix(self._path)
        elif address.startswith("tcp://") and address.rpartition(":")[2].isdecimal():
            host, _, port = address.removeprefix("tcp://").rpartition(":")
            listener = listen_tcp(host, int(port))
            name = listener.getsockname()
            address = f"tcp://[{name[0]}]:{name[1]}" if ":" in name[0] else f"tcp://{name[0]}:{name[1]}"
        else:
            raise UsageError(f"{address} is no address of a bridge", "ipc://PATH or tcp://127.0.0.1:PORT")
        listener.setblocking(False)
        self._socket.setsockopt(zmq.IPV6, int("[" in address))
        # ZeroMQ would make a Unix socket that others may open.
        self._socket.setsockopt(zmq.USE_FD, listener.detach())
        self._socket.bind(address)
        return address

    @property
    def driving(self) -> bool:
        """True: a frame does not tell what the controller does with the reply."""
        return True

    def wait(self, deadline_ns: int) -> bool:
        """Return True when a whole new frame has come, False at `deadline_ns` (monotonic) without one."""
        self._exchange.give_up()
        while not self._exchange.fresh:
            left_ns = deadline_ns - self._clock.now_ns()
            if self._socket.poll(max(0, -(-left_ns // 1_000_000))):
                self._receive()
            if left_ns <= 0:
                break
        return self._exchange.fresh

    def _receive(self) -> None:
        parts = [self._socket.recv(zmq.NOBLOCK)]
        more = self._socket.getsockopt(zmq.RCVMORE)
        while more:
            part = self._socket.recv(zmq.NOBLOCK)
            more = self._socket.getsockopt(zmq.RCVMORE)
            if len(parts) <= _MOST_PARTS:
                parts.append(part)
        *envelope, frame = parts
        now_ns = self._clock.now_ns()
        try:
            if len(envelope) not in (1, 2) or envelope[1:] not in ([], [b""]):
                raise WireError("frame", f"a message of {len(parts)} parts: send one")
            if envelope[0] != self._peer and now_ns - self._heard_ns <= _ALIVE_NS:
                raise WireError("frame", "another controller is connected already: stop one of them")
            values = decode_frame(frame, self._floats)
        except WireError as error:
            self._complaint.say(str(error), now_ns)
            self._send(envelope[:2], DAMP)
            return
        self._peer, self._heard_ns = envelope[0], now_ns
        self._exchange.arrived(values, lambda reply: self._send(envelope, reply))

    def _send(self, envelope: list[bytes], reply: bytes) -> None:
        try:
            self._socket.send_multipart([*envelope, reply], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            self._complaint.say(f"a reply was not sent: {error}", self._clock.now_ns())

    def read(self) -> Observation:
        """Return the newest state; its time is that of its arrival. ConnectionFailed if none has come yet."""
        return self._exchange.read()

    def begin_episode(self) -> bool:
        """Return False: the robot stays where it is."""
        return False

    def write(self, order: TimedCommand) -> None:
        """Answer the frame that was read last, from any thread; dropped if it has been answered."""
        self._exchange.write(order)

    def close(self) -> None:
        """End the connection; what was not answered is answered: no command."""
        self._exchange.give_up()
        self._context.destroy()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
