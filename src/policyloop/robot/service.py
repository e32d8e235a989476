"""The robot's program: an actor in real time, and the uplink in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from pathlib import Path

import msgspec

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import IncompatibleError, PolicyloopError, StorageError, WireError
from policyloop.link.download import Download
from policyloop.link.keys import load_identity
from policyloop.link.uplink import Uplink

__all__ = ["LinkSettings", "UplinkThread", "open_link"]

log = logging.getLogger(__name__)

_QUEUE_STEPS = 512
"""Steps that may wait for a slow disk; more would fill the memory."""
_COMPLAIN_EVERY_S = 10.0


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a robot's steps go.

    Attributes:
        address: Of the gateway; empty = nowhere.
        keys: Folder of this machine's keys; None = in plain, which only loopback takes.
        gateway_key: Public key of the gateway; needed with `keys`.
        spool: Folder of what waits for an acknowledgement; None = a temporary one.
    """

    address: str = ""
    keys: Path | None = None
    gateway_key: str = ""
    spool: Path | None = None


def open_link(
    settings: LinkSettings, profile: RobotProfile, robot: str, temporary: Path, download: Download | None = None
) -> UplinkThread:
    """Start to stream what a robot records; PolicyloopError if keys or spool cannot be used.

    Args:
        settings: Where to.
        profile: The robot's.
        robot: Its name.
        temporary: Folder of the spool if the settings name none.
        download: Takes policies in that the gateway offers.
    """
    return UplinkThread(
        Uplink(
            settings.address,
            profile,
            robot,
            settings.spool or temporary,
            identity=None if settings.keys is None else load_identity(settings.keys),
            gateway_key=settings.gateway_key,
            download=download,
        )
    )


class UplinkThread:
    """Runs an uplink beside the control loop: handing over a step never waits for disk or network.

    Args:
        uplink: Owned from now on; `close` closes it.

    Attributes:
        failure: What stopped the thread, if something did. The robot drives on without it.
    """

    def __init__(self, uplink: Uplink) -> None:
        self.failure: PolicyloopError | None = None
        self._uplink = uplink
        self._queue: deque[Step] = deque()
        self._overrun = 0
        self._complained_s = -_COMPLAIN_EVERY_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uplink")
        self._thread.start()

    def append(self, step: Step) -> None:
        """Hand over one step; it is lost, and counted, if the disk or a dead thread lets too many wait."""
        if len(self._queue) < _QUEUE_STEPS:
            self._queue.append(step)
        else:
            self._overrun += 1

    @property
    def boot(self) -> str:
        """See `Uplink`."""
        return self._uplink.boot

    @property
    def pending(self) -> int:
        """Steps that the trainer has not acknowledged."""
        return self._uplink.pending + len(self._queue)

    @property
    def lost(self) -> int:
        """Steps that nobody will ever get."""
        return self._uplink.lost + self._overrun

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._pump()
            self._pump()
            self._uplink.drain(2.0)
        except PolicyloopError as error:
            log.error("%s", error)
            self.failure = error

    def _pump(self) -> None:
        while self._queue:
            step = self._queue[0]  # it leaves the queue when it is somewhere else: `pending` never misses it
            try:
                self._uplink.append(step)
            except StorageError as error:
                self._complain(error)
            except (IncompatibleError, WireError) as error:
                log.error("step %d cannot be sent: %s", step.record.sequence, error)
            self._queue.popleft()
        try:
            self._uplink.pump(0.01)
        except StorageError as error:
            self._complain(error)
            self._stop.wait(0.1)

    def _complain(self, error: StorageError) -> None:
        """A disk that refuses once refuses again and again: say so now and then, and go on."""
        now_s = time.monotonic()
        if now_s - self._complained_s > _COMPLAIN_EVERY_S:
            self._complained_s = now_s
            log.error("%s; %d steps are lost so far", error, self.lost)

    def close(self) -> None:
        """Hand over what is left, for at most two seconds; the rest waits in the spool."""
        self._stop.set()
        self._thread.join()
        self._uplink.close()
