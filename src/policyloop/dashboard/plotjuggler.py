"""Steps as JSON over UDP, one datagram each: what PlotJuggler's `UDP Server` reads."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from typing import Any

import msgspec

from policyloop.core.profile import RobotProfile
from policyloop.dashboard.tail import Seen
from policyloop.errors import UsageError, WireError
from policyloop.link.telemetry import Value, proprio_of, telemetry

__all__ = ["PlotStream"]

log = logging.getLogger(__name__)


class PlotStream:
    """Sends live steps; nobody needs to listen.

    Args:
        address: HOST:PORT.

    Raises:
        UsageError: That is no address.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            if not 0 < int(port) < 65536 or not host:
                raise ValueError("no host or no port")
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        except (OSError, ValueError) as error:
            raise UsageError(f"--plotjuggler {address}: {error}", "give HOST:PORT, such as 127.0.0.1:9870") from error
        family, kind, protocol, _, where = found[0]
        self._address: Any = where
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)

    def send(self, seen: Iterable[Seen], profile: RobotProfile) -> None:
        """Send steps; what the network does not take at once is left out."""
        for step in seen:
            try:
                row = telemetry(step.record, proprio_of(step.frames, profile), profile)
                self._socket.sendto(msgspec.json.encode(_message(row, step.heard_ns)), self._address)
            except (OSError, WireError) as error:
                log.debug("a step was not sent to PlotJuggler: %s", error)

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()


def _message(row: dict[str, Value], heard_ns: int) -> dict[str, Any]:
    """Return a row under its robot's name, with slashes as levels; PlotJuggler takes `timestamp` for the time, s."""
    tree: dict[str, Any] = {}
    for name, value in row.items():
        if name in ("robot", "boot"):
            continue
        *levels, leaf = name.split("/")
        place = tree
        for level in levels:
            place = place.setdefault(level, {})
        place[leaf] = value
    return {str(row["robot"]): tree, "timestamp": heard_ns * 1e-9}
