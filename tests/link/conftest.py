"""Journals, gateways and uplinks that are closed in the right order whatever happens."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from policyloop.core.profile import RobotProfile
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.link.uplink import Uplink, UplinkSettings

QUICK = UplinkSettings(resend_after_s=0.1, heartbeat_s=0.1, sync_every_s=0.1)


class House:
    """Both ends of the link under one roof.

    Attributes:
        soon_s: How long to wait for what should happen; short in a test that is expected to fail.
    """

    def __init__(self, directory: Path, profile: RobotProfile, soon_s: float) -> None:
        self.directory = directory
        self.profile = profile
        self.soon_s = soon_s
        self._closers: list[Callable[[], None]] = []
        self._context: zmq.Context[Any] = zmq.Context()
        self._next_port = 10_000 + os.getpid() * 97 % 18_000

    def journal(
        self, name: str = "journal", kind: type[Journal] = Journal, profile: RobotProfile | None = None
    ) -> Journal:
        """Open a journal for writing."""
        journal = kind(self.directory / name, profile or self.profile, writable=True)
        self._closers.append(journal.close)
        return journal

    def gateway(
        self, journal: Journal, address: str = "tcp://127.0.0.1:*", v1_address: str | None = None, *, start: bool = True
    ) -> Gateway:
        """Run a gateway with the journal's profile."""
        gateway = Gateway(journal, journal.profile, address, v1_address)
        self._closers.append(gateway.close)
        if start:
            gateway.start()
        return gateway

    def uplink(
        self,
        address: str,
        robot: str = "r0",
        profile: RobotProfile | None = None,
        settings: UplinkSettings = QUICK,
    ) -> Uplink:
        """Run a robot's end; its spool is named after the robot."""
        spool = self.directory / f"spool-{robot}"
        uplink = Uplink(address, profile or self.profile, robot, spool, settings, context=self._context)
        self._closers.append(uplink.close)
        return uplink

    def socket(self, kind: int, address: str, context: zmq.Context[Any] | None = None) -> zmq.Socket[bytes]:
        """Connect a bare socket."""
        bare: zmq.Socket[bytes] = (context or self._context).socket(kind)
        bare.setsockopt(zmq.LINGER, 0)
        self._closers.append(bare.close)
        bare.connect(address)
        return bare

    def connections(self, uplink: Uplink) -> zmq.Socket[bytes]:
        """Return a socket that has something to read once the uplink has connected anew."""
        monitor: zmq.Socket[bytes] = uplink._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._closers.append(monitor.close)
        self._closers.append(uplink._socket.disable_monitor)
        return monitor

    def lasting_address(self) -> str:
        """Return a free address to which a restarted gateway can come back.

        It lies below the range from which the system takes ports for connections: while nobody
        listens there, nobody else is given the port.
        """
        while True:
            self._next_port += 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self._next_port))
                except OSError:
                    continue
            return f"tcp://127.0.0.1:{self._next_port}"

    def until(self, condition: Callable[[], Any], *uplinks: Uplink, timeout_s: float = 15.0) -> None:
        """Pump the uplinks until `condition` holds; AssertionError if it does not in time."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "it never happened"
            for uplink in uplinks:
                uplink.pump(0.002)
            if not uplinks:
                time.sleep(0.002)

    def close(self) -> None:
        """Close everything, newest first."""
        while self._closers:
            self._closers.pop()()
        self._context.destroy(linger=0)


@pytest.fixture
def house(tmp_path: Path, mini: RobotProfile, request: pytest.FixtureRequest) -> Iterator[House]:
    """Return what opens journals, gateways and uplinks, and closes them."""
    house = House(tmp_path, mini, soon_s=15.0)
    yield house
    house.close()


class Proxy:
    """A bad network between two ends of a TCP connection.

    Attributes:
        delay_s: How long each piece is held back, with `jitter_s` more at random.
        slice_bytes: Largest piece that is passed on at once.
        bytes_per_s: Bandwidth of each direction.
        deaf: Nothing passes from the robot to the gateway; connections stand.
        mute: Nothing passes from the gateway to the robot; connections stand.
    """

    def __init__(self, target_port: int) -> None:
        self.delay_s = self.jitter_s = 0.0
        self.slice_bytes = 65536
        self.bytes_per_s = 1e9
        self.deaf = self.mute = False
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._open = True
        self._random = random.Random(0)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """Where the robot connects."""
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while self._open:
            try:
                inward, _ = self._listener.accept()
                outward = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                continue
            self._pairs.append((inward, outward))
            for source, target, direction in ((inward, outward, "deaf"), (outward, inward, "mute")):
                threading.Thread(target=self._relay, args=(source, target, direction), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        try:
            while data := source.recv(65536):
                while getattr(self, direction) and self._open:
                    time.sleep(0.01)
                if self.delay_s:
                    time.sleep(self.delay_s + self._random.random() * self.jitter_s)
                for start in range(0, len(data), self.slice_bytes):
                    piece = data[start : start + self.slice_bytes]
                    target.sendall(piece)
                    if self.bytes_per_s < 1e9:
                        time.sleep(len(piece) / self.bytes_per_s)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Cut every connection as a crash would, with a RST."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.close()

    def close(self) -> None:
        """Stop."""
        self._open = False
        self._listener.close()
        self.reset()


@pytest.fixture
def proxy() -> Iterator[Callable[[str], Proxy]]:
    """Return `proxy(address)`: a bad network in front of a gateway."""
    made: list[Proxy] = []

    def make(address: str) -> Proxy:
        made.append(Proxy(int(address.rpartition(":")[2])))
        return made[-1]

    yield make
    for one in made:
        one.close()
