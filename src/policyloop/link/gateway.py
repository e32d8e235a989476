"""The trainer's end of the link: check, store, acknowledge. One thread, many robots.

A step is acknowledged only after the journal is synced. A step that cannot be decoded is refused
by name and counted; nothing a robot sends can end the process. v1 packets from a PULL socket go
into the same journal as demonstrations.

With keys, every connection is encrypted and only robots on the allow-list get as far as a greeting;
a robot may speak only under the name its key was allowed for.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass

import zmq
from zmq.auth.thread import ThreadAuthenticator

from policyloop.core.profile import RobotProfile
from policyloop.errors import ConnectionFailed, SafetyRefusal, StorageError, WireError
from policyloop.link.addresses import is_local, keep_alive
from policyloop.link.journal import Journal, Received
from policyloop.link.keys import AllowList, Identity
from policyloop.link.offer import Offer
from policyloop.wire.codec import MAX_MESSAGE_BYTES, MAX_STRING, decode_from_robot, decode_step, encode, encode_step
from policyloop.wire.messages import (
    NOT_NOW,
    PROTOCOL,
    Ack,
    Bye,
    Fetch,
    FromGateway,
    Hello,
    Refusal,
    StepHeader,
    Welcome,
)
from policyloop.wire.v1 import V1Session

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

_POLL_MS = 20
_DEAD_AFTER_S = 3.0
_FORGET_AFTER_S = 30.0
_LOOK_S = 1.0
"""How often robots that fell silent and keys that were revoked are looked for."""
_DOMAIN = "policyloop"
_EVENTS = ("robot-refused", "twin-refused", "lost", "lost-by-robot")
"""Counts of something else than a received step."""
_SAVE_COUNTS_S = 10.0
_BATCH = 256
_Stream = tuple[str, str]  # robot, boot


@dataclass
class _Peer:
    """Who is behind a socket identity."""

    stream: _Stream
    key: str
    """Public key with which the connection was authenticated; empty without keys."""
    name: str
    """Name that this key was allowed for."""
    heard_s: float
    lost: int = 0


class _Doorkeeper:
    """Tells ZeroMQ which keys may connect, as the allow-list stands at that moment."""

    def __init__(self, allowed: AllowList) -> None:
        self._allowed = allowed

    def callback(self, domain: str, key: bytes) -> bool:
        """See `zmq.auth.Authenticator.configure_curve_callback`."""
        name = self._allowed.name_of(key.decode())
        if not name:
            log.warning("a stranger with key %s was turned away", key.decode())
        return bool(name)


_Touched = dict[tuple[bytes, _Stream], None]  # who must hear how far the journal is, in order of arrival


class Gateway:
    """Receives steps into a journal.

    Args:
        journal: Open for writing.
        profile: What every robot here must have.
        address: Where robots connect, such as `tcp://127.0.0.1:5555`.
        v1_address: Where v1 packets are pulled; None = not at all. They are neither encrypted nor signed.
        identity: The trainer's keys; without them only this machine can connect.
        allowed: Who may connect; needed with `identity`.
        offer: What robots that pull can fetch; None = nothing.

    Attributes:
        counts: Steps `stored`, `duplicate`, `out-of-order`, and refusals by reason.
        failure: The error that stopped the thread, if one did.

    Raises:
        ConnectionFailed: A port is in use.
        SafetyRefusal: An address other than loopback, where anybody could connect.
    """

    def __init__(
        self,
        journal: Journal,
        profile: RobotProfile,
        address: str,
        v1_address: str | None = None,
        *,
        identity: Identity | None = None,
        allowed: AllowList | None = None,
        offer: Offer | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.failure: Exception | None = None
        self._journal = journal
        self._profile = profile
        self._hold = False
        self._policy_version = 0
        self._announce = threading.Event()
        self._stop = threading.Event()
        self._last = journal.last_sequences()
        self._peers: dict[bytes, _Peer] = {}  # by socket identity
        self._silent: set[str] = set()
        self._twins: set[_Stream] = set()
        self._met: set[str] = set()
        self._looked_s = self._saved_s = 0.0
        self._received_before = journal.received
        self._allowed = allowed
        self._offer = offer
        self._answers: list[tuple[bytes, FromGateway]] = []  # wait for the sync
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None
        if identity is not None:
            assert allowed is not None
            self._authenticator = ThreadAuthenticator(self._context)
            self._authenticator.start()
            self._authenticator.configure_curve_callback(_DOMAIN, _Doorkeeper(allowed))
        self._router = self._bind(zmq.ROUTER, address, identity)
        self._v1 = self._bind(zmq.PULL, v1_address, None) if v1_address else None
        self._v1_session = V1Session(profile, secrets.token_hex(8))
        self._thread = threading.Thread(target=self._run, name="gateway")

    def _bind(self, kind: int, address: str, identity: Identity | None) -> zmq.Socket[bytes]:
        if identity is None and not is_local(address):
            self._give_up()
            raise SafetyRefusal(
                f"{address} would listen to everybody on the network, unencrypted",
                "give --keys (policyloop keys new NAME), or use a loopback address and an ssh tunnel",
            )
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, "[" in address)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.RCVHWM, 1000)
        keep_alive(socket)
        if identity is not None:
            socket.curve_server = True
            socket.curve_publickey = identity.public.encode()
            socket.curve_secretkey = identity.secret.encode()
            socket.zap_domain = _DOMAIN.encode()
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            self._give_up()
            raise ConnectionFailed(f"cannot listen at {address}: {error.strerror}", "choose another --port") from error
        return socket

    def _give_up(self) -> None:
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.destroy()

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
        return len(self._met)

    @property
    def alive(self) -> list[str]:
        """Robots that were heard in the last seconds."""
        now_s = time.monotonic()
        return sorted({peer.stream[0] for peer in [*self._peers.values()] if now_s - peer.heard_s < _DEAD_AFTER_S})

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
        if self._authenticator is not None:
            self._authenticator.stop()
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
                self._look_around()
            self._save_counts()
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
            touched |= dict.fromkeys((identity, peer.stream) for identity, peer in self._peers.items())
        for identity, stream in touched:
            self._acknowledge(identity, stream)

    def _drain_router(self, touched: _Touched) -> None:
        for _ in range(_BATCH):
            try:
                received = self._router.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            identity, *frames = [frame.bytes for frame in received]
            key = _key_of(received[-1]) if self._authenticator is not None else ""
            try:
                message = decode_from_robot(frames[0] if frames else b"")
            except WireError as error:
                self.counts[error.reason] += 1
                self._answers.append((identity, Refusal(reason=error.reason, detail=error.detail[:200], sequence=0)))
                continue
            if isinstance(message, Hello):
                self._greet(identity, message, key, touched)
            elif isinstance(message, Bye):
                gone = self._peers.pop(identity, None)
                if gone is not None:
                    self._silent.add(gone.stream[0])  # it said so: nobody need be told that it is silent
            elif isinstance(message, Fetch):
                self._offer_to(identity, message)
            else:
                self._take(identity, message, frames, touched)

    def _greet(self, identity: bytes, hello: Hello, key: str, touched: _Touched) -> None:
        name = self._allowed.name_of(key) if self._allowed is not None and key else ""
        problem = self._misfit(hello, key, name)
        if problem:
            self.counts["robot-refused"] += 1
            log.warning("robot '%s' refused: %s", hello.robot[:64], problem)
            self._answers.append((identity, Refusal(reason="robot-refused", detail=problem)))
            return
        if self._has_twin(identity, hello):
            self.counts["twin-refused"] += 1
            detail = f"another robot is connected as '{hello.robot[:64]}': give each its own --name"
            if (hello.robot, hello.boot) not in self._twins:  # it asks again every second
                log.warning("%s", detail)
                self._twins.add((hello.robot, hello.boot))
            self._answers.append((identity, Refusal(reason="twin-refused", detail=detail, sequence=NOT_NOW)))
            return
        stream = (hello.robot, hello.boot)
        known = self._peers.get(identity)
        lost_before = known.lost if known is not None and known.stream == stream else 0
        if hello.lost > lost_before:
            self.counts["lost-by-robot"] += hello.lost - lost_before
        self._peers[identity] = _Peer(stream, key, name, time.monotonic(), max(lost_before, hello.lost))
        self._twins.discard(stream)
        self._met.add(hello.robot)
        self._answers.append((identity, Welcome(protocol=PROTOCOL, sent_ns=hello.sent_ns, time_ns=time.time_ns())))
        touched[identity, stream] = None

    def _offer_to(self, identity: bytes, fetch: Fetch) -> None:
        """Answer a robot that has been greeted, if anything is offered here."""
        if identity not in self._peers or self._offer is None:
            return
        chunk, piece = self._offer.answer(fetch)
        self._send(identity, chunk, piece)

    def _misfit(self, hello: Hello, key: str, name: str) -> str:
        """Return why this robot cannot stream here, or an empty string."""
        if not all(0 < len(text) <= MAX_STRING for text in (hello.robot, hello.boot)):
            return f"its name or boot is empty or longer than {MAX_STRING} characters"
        if key and not _covers(name, hello.robot):
            return f"its key was allowed for '{name}'" if name else "its key is not allowed any more"
        if hello.protocol != PROTOCOL:
            older = "robot" if hello.protocol < PROTOCOL else "trainer"
            return f"it speaks protocol {hello.protocol}, not {PROTOCOL}: upgrade the {older}"
        if hello.profile_digest != self._profile.digest:
            return (
                f"its profile is {hello.profile_digest[:12]}, this gateway's '{self._profile.name}' "
                f"is {self._profile.digest[:12]}"
            )
        return ""

    def _has_twin(self, identity: bytes, hello: Hello) -> bool:
        """Tell whether another start of the same robot is alive behind another connection."""
        since_s = time.monotonic() - _DEAD_AFTER_S
        return any(
            other != identity
            and peer.stream[0] == hello.robot
            and peer.stream[1] != hello.boot
            and peer.heard_s > since_s
            for other, peer in self._peers.items()
        )

    def _look_around(self) -> None:
        """Now and then: forget who left or whose key was revoked, and say who fell silent."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        for identity, peer in list(self._peers.items()):
            if peer.key and self._allowed is not None and not self._allowed.name_of(peer.key):
                log.warning("the key of robot '%s' was revoked", peer.stream[0])
                del self._peers[identity]
            elif now_s - peer.heard_s > _FORGET_AFTER_S:
                del self._peers[identity]
        silent = self._met - set(self.alive)
        for robot in silent - self._silent:
            log.warning("robot '%s' has been silent for %.0f s", robot, _DEAD_AFTER_S)
        self._silent = silent
        if now_s - self._saved_s > _SAVE_COUNTS_S:
            self._saved_s = now_s
            self._save_counts()

    def _save_counts(self) -> None:
        """Write down what did not become a record: the journal itself cannot tell."""
        before = self._received_before
        steps, events = Counter(before.steps), Counter(before.events)
        for name, count in self.counts.items():
            if name != "stored":
                (events if name in _EVENTS else steps)[name] += count
        try:
            self._journal.save_received(Received(steps=dict(steps), events=dict(events)))
            self._journal.save_sequences(self._last)
        except StorageError as error:  # steps come first: while they can be stored the gateway goes on
            log.warning("%s", error)

    def _take(self, identity: bytes, header: StepHeader, frames: list[bytes], touched: _Touched) -> None:
        peer = self._peers.get(identity)
        if peer is None:
            self.counts["not-greeted"] += 1  # it knew another gateway at this port: it will greet and send again
            return
        peer.heard_s = time.monotonic()
        record = header.record
        stream = (record.robot, record.boot)
        if peer.key and not _covers(peer.name, record.robot):
            self.counts["foreign-step"] += 1
            detail = f"a step of '{record.robot}' under the key of '{peer.name}'"
            refusal = Refusal(reason="foreign-step", detail=detail[:200], boot=record.boot, sequence=record.sequence)
            self._answers.append((identity, refusal))
            return
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
            if record.sequence > last + 1:
                self.counts["lost"] += record.sequence - last - 1
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

    def _send(self, identity: bytes, message: FromGateway, *frames: bytes) -> None:
        try:
            self._router.send_multipart([identity, encode(message), *frames], zmq.DONTWAIT)
        except zmq.Again:
            log.debug("a robot does not take its messages")


def _key_of(frame: zmq.Frame) -> str:
    """Return the public key with which this frame's connection was authenticated."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


def _covers(name: str, robot: str) -> bool:
    """Tell whether the key of `name` may speak for `robot`: for itself, or for one of its fleet."""
    return bool(name) and (robot == name or robot.startswith(f"{name}-"))
