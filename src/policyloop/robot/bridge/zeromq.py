"""The bridge through ZeroMQ: the same frames, as messages of a REQ or DEALER socket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

from policyloop.core.clock import Clock, MonotonicClock
from policyloop.errors import UsageError, WireError
from policyloop.robot.bridge.complaint import Complaint
from policyloop.robot.bridge.exchange import Exchange
from policyloop.robot.bridge.frames import DAMP, decode_frame
from policyloop.robot.bridge.intake import Intake
from policyloop.robot.bridge.listener import listen_tcp, listen_unix
from policyloop.robot.bridge.paced import PacedBridge

__all__ = ["ZeroMqBridge"]

_ALIVE_NS = 1_000_000_000
"""Who was heard from within this time is the controller; after it, somebody else may be."""
_QUEUE = 4
"""Messages of a peer that ZeroMQ holds, each way."""
_HANDSHAKE = 256
"""ZeroMQ holds its own greeting to the limit for messages, bytes."""
_MOST_PARTS = 3
"""A routing id, the empty frame of a REQ socket, and the state."""


class ZeroMqBridge(PacedBridge):
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
        clock = clock or MonotonicClock()
        intake = Intake(states, proprio_size)
        self._floats = intake.states
        super().__init__(Exchange(intake, targets, clock, address), clock)
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

    def _serve(self, timeout_ns: int) -> None:
        if self._socket.poll(-(-timeout_ns // 1_000_000)):
            self._receive()

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

    def close(self) -> None:
        """End the connection; what was not answered is answered: no command."""
        self._exchange.give_up()
        self._context.destroy()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
