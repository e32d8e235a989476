"""The trainer's end of the link: check, store, acknowledge. One thread, many robots.

A step is acknowledged only after the journal is synced. A step that cannot be decoded is refused
by name and counted; nothing a robot sends can end the process. v1 packets from a PULL socket go
into the same journal as demonstrations.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter

import zmq

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConnectionFailed, SafetyRefusal, WireError
from policyloop.link.journal import Journal
from policyloop.wire.codec import MAX_MESSAGE_BYTES, decode_from_robot, decode_step, encode, encode_step
from policyloop.wire.messages import PROTOCOL, Ack, FromGateway, Hello, Refusal, StepHeader, Welcome
from policyloop.wire.v1 import V1Session

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

_LOCAL = ("tcp://127.", "tcp://localhost", "tcp://[::1]", "inproc://", "ipc://")
_POLL_MS = 20
_BATCH = 256
_Stream = tuple[str, str]  # robot, boot
_Touched = dict[tuple[bytes, _Stream], None]  # who must hear how far the journal is, in order of arrival


class Gateway:
    """Receives steps into a journal.

    Args:
        journal: Open for writing.
        profile: What every robot here must have.
        address: Where robots connect, such as `tcp://127.0.0.1:5555`.
        v1_address: Where v1 packets are pulled; None = not at all.

    Attributes:
        counts: Steps `stored`, `duplicate`, `out-of-order`, and refusals by reason.
        failure: The error that stopped the thread, if one did.

    Raises:
        ConnectionFailed: A port is in use.
        SafetyRefusal: An address other than loopback, where anybody could connect.
    """

    def __init__(self, journal: Journal, profile: RobotProfile, address: str, v1_address: str | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.failure: Exception | None = None
        self._journal = journal
        self._profile = profile
        self._hold = False
        self._policy_version = 0
        self._announce = threading.Event()
        self._stop = threading.Event()
        self._last = journal.last_sequences()
        self._peers: dict[bytes, _Stream] = {}  # by socket identity
        self._answers: list[tuple[bytes, FromGateway]] = []  # wait for the sync
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._bind(zmq.ROUTER, address)
        self._v1 = self._bind(zmq.PULL, v1_address) if v1_address else None
        self._v1_session = V1Session(profile, secrets.token_hex(8))
        self._thread = threading.Thread(target=self._run, name="gateway")

    def _bind(self, kind: int, address: str) -> zmq.Socket[bytes]:
        if not address.startswith(_LOCAL) or ";" in address:  # what follows a semicolon is listened at as well
            self._context.destroy()
            raise SafetyRefusal(
                f"{address} would listen to everybody on the network, unencrypted",
                "use a loopback address and an ssh tunnel: ssh -R 5555:127.0.0.1:5555 robot",
            )
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, "[" in address)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.RCVHWM, 1000)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy()
            raise ConnectionFailed(f"cannot listen at {address}: {error.strerror}", "choose another --port") from error
        return socket

    @property
    def address(self) -> str:
        """Where the gateway really listens (with the port that the system chose for port 0)."""
        return self._router.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def v1_address(self) -> str:
        """Where v1 packets are really pulled; empty if they are not."""
        return self._v1.getsockopt_string(zmq.LAST_ENDPOINT) if self._v1 else ""

    @property
    def robots(self) -> int:
        """Robots that have connected since the start."""
        return len({robot for robot, _ in self._peers.values()})

    def start(self) -> None:
        """Start receiving."""
        self._thread.start()

    def announce(self, *, hold: bool | None = None, policy_version: int | None = None) -> None:
        """Tell every robot whether to pause, and the newest policy's version."""
        if hold is not None:
            self._hold = hold
        if policy_version is not None:
            self._policy_version = policy_version
        self._announce.set()

    def check(self) -> None:
        """Raise the error that stopped the gateway, if one did."""
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Stop receiving and release the ports. The journal stays open."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._router.close()
        if self._v1:
            self._v1.close()
        self._context.term()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        if self._v1:
            poller.register(self._v1, zmq.POLLIN)
        try:
            while not self._stop.is_set():
                ready = dict(poller.poll(_POLL_MS))
                touched: _Touched = {}
                if self._router in ready:
                    self._drain_router(touched)
                if self._v1 and self._v1 in ready:
                    self._drain_v1()
                if ready:
                    self._journal.sync()
                self._answer(touched)
        except Exception as error:  # whatever ends this thread, `check` must tell
            # Nothing is acknowledged that is not stored: robots keep it and send it again.
            log.error("%s", error)
            self.failure = error

    def _answer(self, touched: _Touched) -> None:
        """Say what has been decided, now that it is synced."""
        for identity, answer in self._answers:
            self._send(identity, answer)
        self._answers.clear()
        if self._announce.is_set():
            self._announce.clear()
            touched |= dict.fromkeys(self._peers.items())
        for identity, stream in touched:
            self._acknowledge(identity, stream)

    def _drain_router(self, touched: _Touched) -> None:
        for _ in range(_BATCH):
            try:
                identity, *frames = self._router.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                message = decode_from_robot(frames[0] if frames else b"")
            except WireError as error:
                self.counts[error.reason] += 1
                self._answers.append((identity, Refusal(reason=error.reason, detail=error.detail[:200], sequence=0)))
                continue
            if isinstance(message, Hello):
                self._greet(identity, message, touched)
            else:
                self._take(identity, message, frames, touched)

    def _greet(self, identity: bytes, hello: Hello, touched: _Touched) -> None:
        problem = ""
        if hello.protocol != PROTOCOL:
            older = "robot" if hello.protocol < PROTOCOL else "trainer"
            problem = f"it speaks protocol {hello.protocol}, not {PROTOCOL}: upgrade the {older}"
        elif hello.profile_digest != self._profile.digest:
            problem = (
                f"its profile is {hello.profile_digest[:12]}, this gateway's '{self._profile.name}' "
                f"is {self._profile.digest[:12]}"
            )
        if problem:
            self.counts["robot-refused"] += 1
            log.warning("robot '%s' refused: %s", hello.robot[:64], problem)
            self._answers.append((identity, Refusal(reason="robot-refused", detail=problem)))
            return
        self._peers[identity] = (hello.robot, hello.boot)
        self._answers.append((identity, Welcome(protocol=PROTOCOL)))
        touched[identity, (hello.robot, hello.boot)] = None

    def _take(self, identity: bytes, header: StepHeader, frames: list[bytes], touched: _Touched) -> None:
        if identity not in self._peers:
            self.counts["not-greeted"] += 1  # it knew another gateway at this port: it will greet and send again
            return
        record = header.record
        stream = (record.robot, record.boot)
        last = self._last.get(stream, -1)
        if record.sequence <= last:
            self.counts["duplicate"] += 1
        elif record.sequence > last + 1 and not record.gap:
            self.counts["out-of-order"] += 1  # something before it was lost under way: it will be sent again
        else:
            try:
                decode_step(header, frames[1:], self._profile)
            except WireError as error:
                self.counts[error.reason] += 1
                refusal = Refusal(
                    reason=error.reason, detail=error.detail[:200], boot=record.boot, sequence=record.sequence
                )
                self._answers.append((identity, refusal))
                self._last[stream] = record.sequence
                return
            self._journal.append(frames)
            self._last[stream] = record.sequence
            self.counts["stored"] += 1
        touched[identity, stream] = None

    def _drain_v1(self) -> None:
        assert self._v1 is not None
        for _ in range(_BATCH):
            try:
                frames = self._v1.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                if len(frames) != 1:
                    raise WireError("v1-length", f"{len(frames)} frames, a v1 packet is one")
                step = self._v1_session.accept(frames[0], time.monotonic_ns())
            except WireError as error:
                self.counts[error.reason] += 1
                log.warning("v1 packet refused: %s", error)
                continue
            self._journal.append(encode_step(step, self._profile))
            self.counts["stored"] += 1

    def _acknowledge(self, identity: bytes, stream: _Stream) -> None:
        self._send(identity, self._ack(stream[1], self._last.get(stream, -1)))

    def _ack(self, boot: str, sequence: int) -> Ack:
        return Ack(boot=boot, sequence=sequence, hold=self._hold, policy_version=self._policy_version)

    def _send(self, identity: bytes, message: FromGateway) -> None:
        try:
            self._router.send_multipart([identity, encode(message)], zmq.DONTWAIT)
        except zmq.Again:
            log.debug("a robot does not take its messages")
