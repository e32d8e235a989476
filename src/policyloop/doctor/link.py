"""The network: ports that the trainer needs, and the gateway that a robot will talk to."""

from __future__ import annotations

import errno
import socket
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import zmq

from policyloop.core.profile import load_profile
from policyloop.doctor.finding import Check, Finding
from policyloop.doctor.scope import Scope
from policyloop.errors import ConnectionFailed, UsageError
from policyloop.link.keys import load_identity
from policyloop.link.uplink import Uplink, UplinkSettings

__all__ = ["checks"]

_PORTS = {"port of the gateway": 5555, "port of TensorBoard": 6006}
_CONNECT_S, _ECHO_S = 1.0, 2.5
_SKEW_S = 1.0
_ZEROMQ = b"\xff", b"\x7f"
"""First and tenth byte of a ZeroMQ greeting, ZMTP 3."""


def checks(scope: Scope) -> list[Check]:
    """Return the questions about ports and the gateway."""
    ports = [Check(what, partial(port, what, number)) for what, number in _PORTS.items()]
    return [*ports, Check("gateway", partial(gateway, scope))] if scope.gateway else ports


def port(what: str, number: int) -> Finding:
    """Tell whether a port of this machine is free, or who has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConnectionFailed(f"{number} cannot be used: {error.strerror}", "choose another --port") from error
        else:
            return Finding(what=what, state="fine", found=f"{number} is free")
    holder = _holder(number)
    if _speaks_zeromq("127.0.0.1", number):
        return Finding(what=what, state="fine", found=f"{number} is in use by a ZeroMQ program{holder}: a gateway?")
    raise ConnectionFailed(f"{number} is in use by another program{holder}", "end it, or choose another --port")


def _speaks_zeromq(host: str, number: int) -> bool:
    try:
        with socket.create_connection((host, number), timeout=_CONNECT_S) as probe:
            greeting = probe.recv(10, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(greeting) == 10 and (greeting[:1], greeting[9:]) == _ZEROMQ


def _holder(number: int) -> str:
    """Return `, NAME` of the process that listens at a port, if this user may know it."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        fields = [line.split() for line in lines]
        inodes |= {field[9] for field in fields if int(field[1].rpartition(":")[2], 16) == number and field[3] == "0A"}
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(entry.readlink()) in {f"socket:[{inode}]" for inode in inodes}:
                process = entry.parents[1]
                return f", {(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # another user's, or gone
    return ""


def gateway(scope: Scope) -> list[Finding]:
    """Reach the gateway, be greeted as a robot of this profile, and compare the clocks.

    The robot's name is that of this machine's key with `-doctor` behind it: a robot that is connected is not disturbed.
    """
    where = urlsplit(scope.gateway)
    if where.scheme != "tcp" or not where.hostname or not where.port:
        raise UsageError(f"--gateway {scope.gateway}", "use an address such as tcp://trainer:5555")
    _reach(where.hostname, where.port)
    keys = scope.path("keys") if scope.gateway_key else None
    identity = None if keys is None else load_identity(keys)
    name = f"{identity.name if identity else socket.gethostname().lower()}-doctor"
    with (
        tempfile.TemporaryDirectory(prefix="policyloop-doctor-") as spool,
        zmq.Context() as context,
    ):
        uplink = Uplink(
            scope.gateway,
            load_profile(scope.profile),
            name,
            Path(spool),
            UplinkSettings(spool_bytes=1 << 20),
            identity=identity,
            gateway_key=scope.gateway_key,
            context=context,
        )
        with closing(uplink):
            return _greeted(uplink, scope.gateway)


def _reach(host: str, number: int) -> None:
    try:
        socket.create_connection((host, number), timeout=_CONNECT_S).close()
    except OSError as error:
        raise ConnectionFailed(
            f"nobody answers at {host}:{number}: {error}",
            "start `policyloop gateway` or `policyloop train` there, on --host 0.0.0.0 with --keys; then the firewall",
        ) from error


def _greeted(uplink: Uplink, address: str) -> list[Finding]:
    deadline_s = time.monotonic() + _ECHO_S
    while uplink.trainer_clock is None and time.monotonic() < deadline_s:
        uplink.pump(0.05)
    echo = uplink.trainer_clock
    if echo is None:
        raise ConnectionFailed(
            f"{address} is open, but no gateway answers this machine",
            "compare the keys: `policyloop keys show` on both sides, `policyloop keys allow` on the trainer",
        )
    skew_s = (echo.offset_ns - (time.time_ns() - time.monotonic_ns())) * 1e-9
    found = f"{address} took {2e-6 * echo.uncertainty_ns:.1f} ms to answer"
    return [Finding(what="gateway", state="fine", found=found), clocks(skew_s, echo.uncertainty_ns * 1e-9)]


def clocks(skew_s: float, uncertainty_s: float) -> Finding:
    """Judge how far the trainer's clock is ahead of this machine's."""
    ahead = "ahead of" if skew_s > 0 else "behind"
    found = f"the trainer's is {abs(skew_s):.3f} s {ahead} this machine's, give or take {uncertainty_s:.3f} s"
    if abs(skew_s) <= _SKEW_S + uncertainty_s:
        return Finding(what="clocks", state="fine", found=found)
    remedy = "sudo timedatectl set-ntp true on both; nothing is controlled by it, but signatures expire by it"
    return Finding(what="clocks", state="doubtful", found=found, remedy=remedy)
