"""What both ends of the link ask of a ZeroMQ address and socket."""

from __future__ import annotations

from typing import Any

import zmq

__all__ = ["is_local", "keep_alive"]

_LOCAL = ("tcp://127.", "tcp://localhost:", "tcp://[::1]:", "inproc://", "ipc://")

_BEAT_MS, _DEAD_AFTER_MS = 1000, 2500


def is_local(address: str) -> bool:
    """Tell whether only this machine can be at the other end. What follows a semicolon counts as well."""
    return address.startswith(_LOCAL) and ";" not in address


def keep_alive(socket: zmq.Socket[Any]) -> None:
    """Let ZeroMQ ask every second whether the peer still answers, and drop a connection that does not.

    A cable that was pulled says nothing: without this, TCP would wait for a quarter of an hour.
    """
    socket.setsockopt(zmq.HEARTBEAT_IVL, _BEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_AFTER_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, _DEAD_AFTER_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _DEAD_AFTER_MS)
