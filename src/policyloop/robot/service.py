"""The robot's program: an actor in real time, and the uplink in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import deque

from policyloop.core.step import Step
from policyloop.errors import IncompatibleError, PolicyloopError, WireError
from policyloop.link.uplink import Uplink

__all__ = ["UplinkThread"]

log = logging.getLogger(__name__)


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
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uplink")
        self._thread.start()

    def append(self, step: Step) -> None:
        """Hand over one step."""
        self._queue.append(step)

    @property
    def pending(self) -> int:
        """Steps that the trainer has not acknowledged."""
        return self._uplink.pending + len(self._queue)

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
            step = self._queue.popleft()
            try:
                self._uplink.append(step)
            except (IncompatibleError, WireError) as error:
                log.error("step %d cannot be sent: %s", step.record.sequence, error)
        self._uplink.pump(0.01)

    def close(self) -> None:
        """Hand over what is left, for at most two seconds; the rest waits in the spool."""
        self._stop.set()
        self._thread.join()
        self._uplink.close()
