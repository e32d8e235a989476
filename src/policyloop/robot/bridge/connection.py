"""One controller at the other end of a socket: a frame comes, a reply goes; it can neither block nor fill this side."""

from __future__ import annotations

import select
import socket

import numpy as np
from numpy.typing import NDArray

from policyloop.errors import WireError
from policyloop.robot.bridge.frames import FrameParser

__all__ = ["Connection"]

_PATIENCE_NS = 100_000_000
"""For the rest of a frame, and for the peer to take its reply."""


class Connection:
    """A peer.

    Args:
        peer: Its socket.
        floats: How many each frame has.
        now_ns: Monotonic.
    """

    def __init__(self, peer: socket.socket, floats: int, now_ns: int) -> None:
        peer.setblocking(False)
        self._peer, self._parser = peer, FrameParser(floats)
        self._out = b""
        self._broken = ""
        self._since_ns = self.heard_ns = now_ns

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._peer.fileno()

    @property
    def events(self) -> int:
        """What to poll for: nothing more is received while a reply is still to be taken."""
        return select.POLLOUT if self._out else select.POLLIN

    def receive(self, now_ns: int) -> NDArray[np.float32] | None:
        """Receive what there is of a frame; returns it when it is whole.

        Raises:
            WireError: It lies about its size.
            OSError: The peer has gone.
        """
        while True:
            try:
                data = self._peer.recv(self._parser.missing)
            except BlockingIOError:
                return None
            if not data:
                raise ConnectionResetError("the controller has gone" + " in the middle of a frame" * self._parser.begun)
            if not self._parser.begun:
                self._since_ns = now_ns
            self.heard_ns = now_ns
            values = self._parser.feed(data)
            if values is not None:
                return values

    def send(self, reply: bytes, now_ns: int) -> None:
        """Send a reply, or as much of it as the peer takes now."""
        self._out, self._since_ns = reply, now_ns
        self.flush()

    def flush(self) -> None:
        """Send what is left of the reply."""
        try:
            self._out = self._out[self._peer.send(self._out, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._out, self._broken = b"", f"the controller has gone: {error.strerror}"

    def check(self, now_ns: int) -> None:
        """Raise WireError if the peer keeps this side waiting, OSError if it has gone."""
        if self._broken:
            raise ConnectionResetError(self._broken)
        if now_ns - self._since_ns <= _PATIENCE_NS:
            return
        if self._out:
            raise WireError("frame", "the controller does not read its replies")
        if self._parser.begun:
            raise WireError("frame", "the controller sent half a frame and no more: send whole frames")

    def close(self) -> None:
        """End the connection."""
        self._peer.close()
