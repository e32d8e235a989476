"""The robot's end of the link: spool, send, resend until the trainer has it on disk.

A step is written to the Spool first and leaves it when it is acknowledged, so a dead link, a dead
trainer or a dead robot loses nothing but the last unsynced moment. The uplink owns no thread:
whoever owns it calls `pump` often (see `robot.service`).
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import deque
from pathlib import Path

import msgspec
import zmq

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step, TrainerClock
from policyloop.errors import ConnectionFailed, IncompatibleError, SafetyRefusal, StorageError, UsageError, WireError
from policyloop.link.addresses import is_local, keep_alive
from policyloop.link.download import Download
from policyloop.link.keys import Identity, check_key
from policyloop.link.spool import Spool
from policyloop.wire.codec import MAX_HEADER_BYTES, decode_from_gateway, encode, encode_step
from policyloop.wire.messages import CHUNK_BYTES, NOT_NOW, PROTOCOL, Ack, Bye, Hello, Refusal, Welcome

__all__ = ["Uplink", "UplinkSettings"]

log = logging.getLogger(__name__)

_GOODBYE_MS = 200
_ECHOES = 16
"""Clocks drift apart: an offset measured longer ago than so many heartbeats is forgotten."""


class UplinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of the uplink."""

    window: int = 64
    """Steps under way without an acknowledgement."""
    resend_after_s: float = 1.0
    heartbeat_s: float = 1.0
    dead_after_s: float = 3.0
    """A gateway that was silent for so long is gone."""
    sync_every_s: float = 1.0
    spool_bytes: int = 4 << 30
    """About 20 minutes at 30 Hz, an hour at 10 Hz."""
    spool_segment_bytes: int = 4 << 20


class Uplink:
    """Streams steps of one robot to one gateway.

    Args:
        address: The gateway's.
        profile: The robot's.
        robot: Its name.
        spool_directory: Where undelivered steps wait.
        settings: Numbers.
        identity: The robot's keys; needed to leave the machine.
        gateway_key: The gateway's public key; nobody else is talked to.
        context: Of ZeroMQ; the process's own by default.
        download: Pulls policies over the same connection; None = nothing is pulled.

    Raises:
        SafetyRefusal: `address` is on the network and there are no keys.
        ConnectionFailed: `address` is none.
        StorageError: The spool cannot be opened.

    Attributes:
        boot: Random name of this start of the program.
        hold: The learner asks the robot to pause; nobody does while the gateway is not heard.
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
        identity: Identity | None = None,
        gateway_key: str = "",
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        download: Download | None = None,
    ) -> None:
        self.robot = robot
        self.boot = secrets.token_hex(8)
        self.hold = False
        self.policy_version = 0
        self.rejected = 0
        self._profile = profile
        self._settings = settings or UplinkSettings()
        _check_safe(address, identity, gateway_key)
        self._spool = Spool(
            spool_directory,
            budget_bytes=self._settings.spool_bytes,
            segment_bytes=self._settings.spool_segment_bytes,
        )
        self._next_to_send = self._spool.first
        self._in_flight: deque[tuple[int, str, int]] = deque()  # spool number, boot, sequence
        self._download = download
        self._welcome = False
        self._waits_for = ""
        self._last_progress_s = self._last_hello_s = self._last_heard_s = -1e9
        self._gap_at = -1  # spool number of a step whose predecessors exist nowhere any more
        self._last_sync_s = time.monotonic()
        self._echoes: deque[TrainerClock] = deque(maxlen=_ECHOES)
        self._context = context or zmq.Context.instance()
        self._address, self._identity, self._gateway_key = address, identity, gateway_key
        self._socket: zmq.Socket[bytes] = self._open()

    def _open(self) -> zmq.Socket[bytes]:
        """Return a new socket that connects, and connects again whenever it must."""
        self._opened_s = time.monotonic()
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 2 * self._settings.window)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_HEADER_BYTES if self._download is None else CHUNK_BYTES)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.IPV6, "[" in self._address)
        socket.setsockopt(zmq.RECONNECT_IVL, random.randint(100, 200))  # robots must not come back all at once
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        keep_alive(socket)
        if self._identity is not None:
            socket.curve_publickey = self._identity.public.encode()
            socket.curve_secretkey = self._identity.secret.encode()
            socket.curve_serverkey = check_key(self._gateway_key).encode()
        try:
            socket.connect(self._address)
        except zmq.ZMQError as error:
            socket.close()
            self._spool.close()
            raise ConnectionFailed(
                f"cannot connect to '{self._address}': {error.strerror}", "use an address such as tcp://127.0.0.1:5555"
            ) from error
        return socket

    def _reopen(self) -> None:
        """Begin anew with a new socket: ZeroMQ itself gives up after a handshake that was refused."""
        self._socket.close()
        self._socket = self._open()
        self._welcome = self.hold = False  # who asked for a pause may be gone
        if self._in_flight:
            self._next_to_send = self._in_flight[0][0]
            self._in_flight.clear()

    @property
    def pending(self) -> int:
        """Steps that are not acknowledged yet."""
        return self._spool.next - (self._in_flight[0][0] if self._in_flight else self._next_to_send)

    @property
    def lost(self) -> int:
        """Steps that had to go for lack of room, or were damaged on the disk."""
        return self._spool.lost

    @property
    def connected(self) -> bool:
        """The gateway was heard lately."""
        return time.monotonic() - self._last_heard_s < self._settings.dead_after_s

    @property
    def trainer_clock(self) -> TrainerClock | None:
        """The best of the last echoes; None before the first."""
        return min(self._echoes, key=lambda echo: echo.uncertainty_ns, default=None)

    @property
    def window_full(self) -> bool:
        """As many unacknowledged steps wait as may be under way."""
        return self.pending >= self._settings.window

    def append(self, step: Step) -> None:
        """Spool one step of this robot.

        Raises:
            StorageError: The disk refuses; the step is counted as lost.
            WireError, IncompatibleError: It is not a step of this robot's profile.
        """
        clock = self.trainer_clock
        if clock is not None:
            step = msgspec.structs.replace(step, record=msgspec.structs.replace(step.record, trainer_clock=clock))
        self._spool.append(encode_step(step, self._profile))

    def pump(self, wait_s: float = 0.0) -> None:
        """Send what may be sent and take in what has arrived; wait at most `wait_s` for an arrival.

        Raises:
            IncompatibleError: The gateway refuses this robot.
        """
        now_s = time.monotonic()
        if now_s - max(self._last_heard_s, self._opened_s) > self._settings.dead_after_s:
            self._reopen()
        if now_s - self._last_hello_s > self._settings.heartbeat_s:
            self._say_hello(now_s)  # also when nothing is to be sent: the gateway may have been restarted
        if self._welcome:
            self._send(now_s)
            self._ask(now_s)
        if wait_s > 0:
            self._socket.poll(round(wait_s * 1000))
        self._receive()
        if now_s - self._last_sync_s > self._settings.sync_every_s:
            self._spool.sync()
            self._last_sync_s = now_s

    def _say_hello(self, now_s: float) -> None:
        self._last_hello_s = now_s
        hello = Hello(
            protocol=PROTOCOL,
            robot=self.robot,
            boot=self.boot,
            profile_digest=self._profile.digest,
            sent_ns=time.monotonic_ns(),
            lost=self.lost,
        )
        self._try_send([encode(hello)])

    def _send(self, now_s: float) -> None:
        if self._in_flight and now_s - self._last_progress_s > self._settings.resend_after_s:
            log.info("no acknowledgement for %.1f s, sending again", now_s - self._last_progress_s)
            self._next_to_send = self._in_flight[0][0]
            self._in_flight.clear()
            self._last_progress_s = now_s
            self._say_hello(now_s)
        self._next_to_send = max(self._next_to_send, self._spool.first)  # what the spool gave up is gone
        while self._next_to_send < self._spool.next and len(self._in_flight) < self._settings.window:
            try:
                header, frames = self._spool.read(self._next_to_send)
            except (StorageError, WireError) as error:
                log.error("a spooled step is damaged and given up: %s", error)
                self._spool.lost += 1
                self._next_to_send += 1
                continue
            if self._next_to_send == self._gap_at:
                header = msgspec.structs.replace(header, record=msgspec.structs.replace(header.record, gap=True))
                frames[0] = encode(header)
            if not self._try_send(frames):
                return
            if not self._in_flight:
                self._last_progress_s = now_s
            self._in_flight.append((self._next_to_send, header.record.boot, header.record.sequence))
            self._next_to_send += 1

    def _ask(self, now_s: float) -> None:
        fetch = self._download.request(now_s) if self._download is not None else None
        if fetch is not None:
            self._try_send([encode(fetch)])

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
                self._welcome, self._waits_for = True, ""
                self._learn_clock(message)
            elif isinstance(message, Ack):
                self._acknowledge(message.boot, message.sequence)
                self.hold, self.policy_version = message.hold, message.policy_version
            elif isinstance(message, Refusal):
                self._refused(message)
            elif self._download is not None and len(frames) == 2:
                self._download.take(message, frames[1])

    def _acknowledge(self, boot: str, sequence: int) -> None:
        while self._in_flight and self._in_flight[0][1] == boot and self._in_flight[0][2] <= sequence:
            self._in_flight.popleft()
            self._last_progress_s = time.monotonic()
        if self._in_flight and self._in_flight[0][1] == boot and self._in_flight[0][2] > sequence + 1:
            # The gateway lacks steps that this robot no longer has: say so rather than wait for them.
            self._gap_at = self._next_to_send = self._in_flight[0][0]
            self._in_flight.clear()
        self._spool.delivered(self._in_flight[0][0] if self._in_flight else self._next_to_send)

    def _learn_clock(self, welcome: Welcome) -> None:
        now_ns = time.monotonic_ns()
        if welcome.time_ns and 0 < welcome.sent_ns <= now_ns:
            half_ns = (now_ns - welcome.sent_ns) // 2
            self._echoes.append(TrainerClock(welcome.time_ns - welcome.sent_ns - half_ns, half_ns + 1))

    def _refused(self, refusal: Refusal) -> None:
        if refusal.sequence == NOT_NOW:
            if refusal.detail != self._waits_for:  # the answer to every heartbeat
                log.warning("the gateway refuses robot '%s' for now: %s", self.robot, refusal.detail)
            self._welcome, self._waits_for = False, refusal.detail
            return
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
        """Say goodbye, keep what is not acknowledged in the spool, and release the socket."""
        if self._welcome and not self._socket.closed and self._try_send([encode(Bye())]):
            self._socket.close(linger=_GOODBYE_MS)
        else:
            self._socket.close()
        self._spool.close()


def _check_safe(address: str, identity: Identity | None, gateway_key: str) -> None:
    """Refuse to send pictures in the clear, or to whoever answers."""
    if identity is None and not is_local(address):
        raise SafetyRefusal(
            f"{address} is not on this machine, and there are no keys",
            "make keys on both sides (policyloop keys new NAME) and give --keys and --gateway-key",
        )
    if identity is not None and not gateway_key:
        raise UsageError(
            "the gateway's public key is missing", "give --gateway-key; `policyloop keys show` there prints it"
        )
