"""Tell systemd how the robot's program is: datagrams to the socket that it names, as in sd_notify(3).

A supervisor that hears nothing for a whole watchdog interval kills the process and starts it anew. So the one thing
that must speak is the control loop; a thread of its own would go on saying that all is well while the loop hangs.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping

from policyloop.core.clock import Clock
from policyloop.errors import ConfigError

__all__ = ["Notifier"]

log = logging.getLogger(__name__)

_STATUS_EVERY_NS = 5_000_000_000
"""Where nobody asked for signs of life."""


class Notifier:
    """Says READY, WATCHDOG and STOPPING; says nothing where nobody listens.

    Args:
        clock: The control loop's.
        status: Returns one line for people, which `systemctl status` shows.
        environment: Where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are.

    Raises:
        ConfigError: WATCHDOG_USEC or WATCHDOG_PID is not a number.
    """

    def __init__(self, clock: Clock, status: Callable[[], str], environment: Mapping[str, str] = os.environ) -> None:
        self._clock, self._status = clock, status
        interval_ns = _watchdog_ns(environment)
        self._vital = ["WATCHDOG=1"] if interval_ns else []
        self._every_ns = interval_ns // 3 or _STATUS_EVERY_NS
        self._news = ["READY=1"]
        self._due_ns: int | None = None
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None

    def alive(self) -> None:
        """Call before each tick: the one before it was done. The first of these calls says that the program is ready.

        Says so three times in a watchdog interval, not in every tick. Never waits: what does not get through is tried
        again in the next tick.
        """
        now_ns = self._clock.now_ns()
        if self._due_ns is None:
            self._due_ns = now_ns  # nothing is done yet
        elif now_ns >= self._due_ns and self._send([*self._news, *self._vital, f"STATUS={_line(self._status())}"]):
            self._due_ns, self._news = now_ns + self._every_ns, []

    def stopping(self) -> None:
        """Say that the program ends in order; the last thing that is said."""
        self._send(["STOPPING=1", "STATUS=stopping"])
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, lines: list[str]) -> bool:
        """Send one datagram; whether there is nothing more to do about it."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
        except OSError as error:  # full, or gone: the supervisor draws its own conclusions
            log.debug("systemd was not told: %s", error)
            return False
        return True


def _line(text: str) -> str:
    return " ".join(text.split())


def _address(name: str) -> bytes:
    """Return the socket's address: a path, or a name in the abstract namespace, which is written with an @."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else b""


def _watchdog_ns(environment: Mapping[str, str]) -> int:
    """Return within what time a sign of life is expected of this process; 0 = none is."""
    try:
        interval_us = int(environment.get("WATCHDOG_USEC", 0))
        process = int(environment.get("WATCHDOG_PID", os.getpid()))
    except ValueError as error:
        raise ConfigError(
            f"WATCHDOG_USEC or WATCHDOG_PID: {error}", "systemd sets them; do not set them by hand"
        ) from error
    return 1000 * interval_us if interval_us > 0 and process == os.getpid() else 0
