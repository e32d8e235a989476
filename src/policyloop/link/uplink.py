"""The robot's end of the link: spool, send, resend until the trainer has it on disk.

A step is written to the Spool first and leaves it when it is acknowledged, so a dead link, a dead
trainer or a dead robot loses nothing but the last unsynced moment. The uplink owns no thread:
whoever owns it calls `pump` often (see `robot.service`).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from pathlib import Path

import msgspec
import zmq

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import ConnectionFailed, IncompatibleError, WireError
from policyloop.link.segment_log import SegmentLog
from policyloop.wire.codec import (
    MAX_HEADER_BYTES,
    decode_from_gateway,
    decode_from_robot,
    encode,
    encode_step,
    join_frames,
    split_frames,
)
from policyloop.wire.messages import PROTOCOL, Ack, Hello, Refusal, StepHeader, Welcome

__all__ = ["Uplink", "UplinkSettings"]

log = logging.getLogger(__name__)


class UplinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of the uplink."""

    window: int = 64
    """Steps under way without an acknowledgement."""
    resend_after_s: float = 1.0
    sync_every_s: float = 1.0
    spool_segment_bytes: int = 4 << 20


class Uplink:
    """Streams steps of one robot to one gateway.

    Attributes:
        boot: Random name of this start of the program.
        hold: The learner asks the robot to pause.
        policy_version: Newest policy the trainer has shipped, 0 if none.
        rejected: Steps that the gateway refused.
    """

    def __init__(
        self,
        address: str,
        profile: RobotProfile,
        robot: str,
        spool_directory: Path,
        settings: UplinkSettings | None = None,
        *,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.robot = robot
        self.boot = secrets.token_hex(8)
        self.hold = False
        self.policy_version = 0
        self.rejected = 0
        self._profile = profile
        self._settings = settings or UplinkSettings()
        self._spool = SegmentLog(spool_directory, writable=True, segment_bytes=self._settings.spool_segment_bytes)
        self._next_to_send = self._spool.first
        self._in_flight: deque[tuple[int, str, int]] = deque()  # spool number, boot, sequence
        self._welcome = False
        self._last_progress_s = self._last_hello_s = self._last_heard_s = -1e9
        self._gap_at = -1  # spool number of a step whose predecessors exist nowhere any more
        self._last_sync_s = time.monotonic()
        self._socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 2 * self._settings.window)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_HEADER_BYTES)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.IPV6, "[" in address)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionFailed(
                f"cannot connect to '{address}': {error.strerror}", "use an address such as tcp://127.0.0.1:5555"
            ) from error

    @property
    def pending(self) -> int:
        """Steps that are not acknowledged yet."""
        return self._spool.next - (self._in_flight[0][0] if self._in_flight else self._next_to_send)

    @property
    def window_full(self) -> bool:
        """As many unacknowledged steps wait as may be under way."""
        return self.pending >= self._settings.window

    def append(self, step: Step) -> None:
        """Spool one step of this robot."""
        self._spool.append(join_frames(encode_step(step, self._profile)))

    def pump(self, wait_s: float = 0.0) -> None:
        """Send what may be sent and take in what has arrived; wait at most `wait_s` for an arrival.

        Raises:
            IncompatibleError: The gateway refuses this robot.
        """
        now_s = time.monotonic()
        if now_s - max(self._last_heard_s, self._last_hello_s) > self._settings.resend_after_s:
            self._say_hello(now_s)  # also when idle: the gateway may have been restarted
        if self._welcome:
            self._send(now_s)
        if wait_s > 0:
            self._socket.poll(round(wait_s * 1000))
        self._receive()
        if now_s - self._last_sync_s > self._settings.sync_every_s:
            self._spool.sync()
            self._last_sync_s = now_s

    def _say_hello(self, now_s: float) -> None:
        self._last_hello_s = now_s
        hello = Hello(protocol=PROTOCOL, robot=self.robot, boot=self.boot, profile_digest=self._profile.digest)
        self._try_send([encode(hello)])

    def _send(self, now_s: float) -> None:
        if self._in_flight and now_s - self._last_progress_s > self._settings.resend_after_s:
            log.info("no acknowledgement for %.1f s, sending again", now_s - self._last_progress_s)
            self._next_to_send = self._in_flight[0][0]
            self._in_flight.clear()
            self._last_progress_s = now_s
            self._say_hello(now_s)
        while self._next_to_send < self._spool.next and len(self._in_flight) < self._settings.window:
            frames = split_frames(self._spool.read(self._next_to_send))
            header = decode_from_robot(frames[0])
            assert isinstance(header, StepHeader)
            if self._next_to_send == self._gap_at:
                header = msgspec.structs.replace(header, record=msgspec.structs.replace(header.record, gap=True))
                frames[0] = encode(header)
            if not self._try_send(frames):
                return
            if not self._in_flight:
                self._last_progress_s = now_s
            self._in_flight.append((self._next_to_send, header.record.boot, header.record.sequence))
            self._next_to_send += 1

    def _try_send(self, frames: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def _receive(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._last_heard_s = time.monotonic()
            try:
                message = decode_from_gateway(frames[0])
            except WireError as error:
                log.warning("gateway sent %s", error)
                continue
            if isinstance(message, Welcome):
                self._welcome = True
            elif isinstance(message, Ack):
                self._acknowledge(message.boot, message.sequence)
                self.hold, self.policy_version = message.hold, message.policy_version
            elif isinstance(message, Refusal):
                self._refused(message)

    def _acknowledge(self, boot: str, sequence: int) -> None:
        while self._in_flight and self._in_flight[0][1] == boot and self._in_flight[0][2] <= sequence:
            self._in_flight.popleft()
            self._last_progress_s = time.monotonic()
        if self._in_flight and self._in_flight[0][1] == boot and self._in_flight[0][2] > sequence + 1:
            # The gateway lacks steps that this robot no longer has: say so rather than wait for them.
            self._gap_at = self._next_to_send = self._in_flight[0][0]
            self._in_flight.clear()
        self._spool.drop_before(self._in_flight[0][0] if self._in_flight else self._next_to_send)

    def _refused(self, refusal: Refusal) -> None:
        if refusal.sequence < 0:
            raise IncompatibleError(
                f"the gateway refuses robot '{self.robot}': {refusal.detail}", "start both sides with the same profile"
            )
        self.rejected += 1
        log.warning("step %d refused: %s (%s)", refusal.sequence, refusal.reason, refusal.detail)
        # The gateway has counted it; keeping it would block everything behind it.
        self._acknowledge(refusal.boot, refusal.sequence)

    def drain(self, timeout_s: float) -> bool:
        """Pump at least once and until everything is acknowledged; False if `timeout_s` was too short."""
        deadline_s = time.monotonic() + timeout_s
        self.pump()
        while self.pending and time.monotonic() < deadline_s:
            self.pump(0.02)
        return not self.pending

    def close(self) -> None:
        """Keep what is not acknowledged in the spool and release the socket."""
        self._socket.close()
        self._spool.close()
