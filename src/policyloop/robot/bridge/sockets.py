"""The bridge through a Unix socket or TCP: a controller sends its state, and gets targets back."""

from __future__ import annotations

import select
import socket
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policyloop.core.clock import Clock, MonotonicClock
from policyloop.errors import WireError
from policyloop.robot.bridge.complaint import Complaint
from policyloop.robot.bridge.connection import Connection
from policyloop.robot.bridge.exchange import Exchange
from policyloop.robot.bridge.intake import Intake
from policyloop.robot.bridge.listener import listen_tcp, listen_unix
from policyloop.robot.bridge.paced import PacedBridge

__all__ = ["SocketBridge"]

_ALIVE_NS = 1_000_000_000
"""Who was heard from within this time keeps the connection; after it, somebody else may have it."""
_LOOK_NS = 20_000_000
"""How often a peer's patience is looked at while nothing happens."""


class SocketBridge(PacedBridge):
    """A `PacedBridge` for one controller at a time. Make it with `unix` or `tcp`.

    Args:
        listener: Where controllers connect to.
        states: Where in the proprioception vector each number of a state belongs.
        proprio_size: Length of that vector.
        targets: How many numbers a reply has.
        where: Names the socket.
        clock: The robot's.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        states: NDArray[np.intp],
        proprio_size: int,
        targets: int,
        where: str,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or MonotonicClock()
        self._listener = listener
        self._listener.setblocking(False)
        intake = Intake(states, proprio_size)
        self._floats = intake.states
        super().__init__(Exchange(intake, targets, clock, where), clock)
        self._complaint = Complaint(where)
        self._connection: Connection | None = None
        self._path: Path | None = None

    @classmethod
    def unix(
        cls, path: Path, *, states: NDArray[np.intp], proprio_size: int, targets: int, clock: Clock | None = None
    ) -> SocketBridge:
        """Listen at a path that only this user may open; errors as `listen_unix`."""
        where = f"unix socket {path}"
        bridge = cls(
            listen_unix(path), states=states, proprio_size=proprio_size, targets=targets, where=where, clock=clock
        )
        bridge._path = path
        return bridge

    @classmethod
    def tcp(
        cls,
        host: str,
        port: int,
        *,
        states: NDArray[np.intp],
        proprio_size: int,
        targets: int,
        clock: Clock | None = None,
    ) -> SocketBridge:
        """Listen on a port of the loopback interface, 0 = any; errors as `listen_tcp`."""
        listener = listen_tcp(host, port)
        where = "tcp port {1} of {0}".format(*listener.getsockname())
        return cls(listener, states=states, proprio_size=proprio_size, targets=targets, where=where, clock=clock)

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._listener.getsockname()[1])

    def _serve(self, timeout_ns: int) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        if self._connection is not None:
            poll.register(self._connection, self._connection.events)
        ready = {fd for fd, _ in poll.poll(min(timeout_ns, _LOOK_NS) / 1e6)}
        if self._connection is not None:
            self._attend(self._connection, ready=self._connection.fileno() in ready)
        if self._listener.fileno() in ready:
            self._accept()

    def _attend(self, connection: Connection, *, ready: bool) -> None:
        now_ns = self._clock.now_ns()
        try:
            if ready and connection.events == select.POLLOUT:
                connection.flush()
            elif ready:
                values = connection.receive(now_ns)
                if values is not None:
                    self._exchange.arrived(values, lambda reply: connection.send(reply, self._clock.now_ns()))
            connection.check(now_ns)
        except (OSError, WireError) as error:
            self._complaint.say(str(error), now_ns)
            self._drop()

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        now_ns = self._clock.now_ns()
        busy = self._connection is not None and now_ns - self._connection.heard_ns <= _ALIVE_NS
        if busy or self._exchange.fresh:
            peer.close()
            self._complaint.say("another controller is connected already: stop one of them", now_ns)
            return
        if peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._drop()
        self._connection = Connection(peer, self._floats, now_ns)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """End the connection; what was not answered is answered: no command."""
        self._exchange.give_up()
        self._drop()
        self._listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
