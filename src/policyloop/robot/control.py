"""How a person reaches a running robot's program on its own machine: a socket that only its user may open.

One line in, one line out. Arming goes through here and nowhere else: no network, no file, no restart arms a robot.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from policyloop.errors import ConnectionFailed, SafetyRefusal, StorageError, UsageError
from policyloop.safety.arming import ArmingSwitch, ArmState

__all__ = ["ControlSocket", "RobotStatus", "Verb", "ask_robot", "find_socket", "socket_path"]

log = logging.getLogger(__name__)

Verb = Literal["arm", "disarm", "stop", "release", "status"]
_MAX_LINE = 1024
_SERVICE_FOLDER = Path("/run/policyloop")
"""RuntimeDirectory of systemd/policyloop-run.service."""
_LOOK_S = 0.1
_PATIENCE_S = 2.0


class RobotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a robot's program says about itself.

    Attributes:
        refused: Why it did not do what it was asked; empty if it did.
    """

    state: ArmState
    reason: str
    stop_held: bool
    policy_version: int
    refused: str = ""


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verb: Verb


def socket_path(robot: str) -> Path:
    """Return where a robot's socket is: in the runtime directory, or in a folder that only this user may open."""
    runtime = os.environ.get("RUNTIME_DIRECTORY") or os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) if runtime else Path(tempfile.gettempdir()) / f"policyloop-{os.getuid()}"
    return folder / f"{re.sub(r'[^a-z0-9._-]', '-', robot.lower())}.sock"


def find_socket(robot: str) -> Path:
    """Return where a robot's program answers: this user's, or that of the service."""
    own = socket_path(robot)
    service = _SERVICE_FOLDER / own.name
    return service if service.exists() and not own.exists() else own


class ControlSocket:
    """Answers on a Unix socket, in a thread of its own.

    Args:
        path: Of the socket; its folder is made if it is not there.
        arming: What it moves.
        version: Tells the version of the policy that drives.

    Raises:
        StorageError: The folder is not this user's alone, or the path cannot be used.
        UsageError: Another program answers there.
    """

    def __init__(self, path: Path, arming: ArmingSwitch, version: Callable[[], int]) -> None:
        self._path, self._arming = path, arming
        self._version = version
        _prepare(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(path))
        except OSError as error:
            self._socket.close()
            raise StorageError(
                f"cannot listen at {path}: {error.strerror or error}", "give another --control"
            ) from error
        finally:
            os.umask(before)
        self._socket.listen(4)
        self._socket.settimeout(_LOOK_S)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control")
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(_PATIENCE_S)
                try:
                    connection.sendall(msgspec.json.encode(self._answer(_line(connection))) + b"\n")
                except (OSError, msgspec.DecodeError) as error:
                    log.warning("a request to the robot was not understood: %s", error)

    def _answer(self, line: bytes) -> RobotStatus:
        refused = ""
        try:
            self._do(msgspec.json.decode(line, type=_Request).verb)
        except SafetyRefusal as error:
            refused = str(error)
        now = self._arming.now
        return RobotStatus(
            state=now.state,
            reason=now.reason,
            stop_held=now.stop_held,
            policy_version=self._version(),
            refused=refused,
        )

    def _do(self, verb: Verb) -> None:
        if verb == "arm":
            self._arming.arm()
        elif verb == "disarm":
            self._arming.disarm()
        elif verb in ("stop", "release"):
            self._arming.stop(held=verb == "stop")

    def close(self) -> None:
        """Answer no more."""
        self._stop.set()
        self._thread.join()
        self._socket.close()
        self._path.unlink(missing_ok=True)


def ask_robot(path: Path, verb: Verb) -> RobotStatus:
    """Ask a robot's program on this machine.

    Raises:
        ConnectionFailed: Nobody answers at `path`.
        SafetyRefusal: It will not do that now.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(_Request(verb)) + b"\n")
            status = msgspec.json.decode(_line(connection), type=RobotStatus)
    except (OSError, msgspec.DecodeError) as error:
        raise ConnectionFailed(
            f"no robot answers at {path}: {error}",
            "is `policyloop run` running, as this user? See --name, --control",
        ) from error
    if status.refused:
        raise SafetyRefusal(f"the robot will not {verb}: {status.refused}")
    return status


def _line(connection: socket.socket) -> bytes:
    """Receive up to the end of the line; OSError if the other side goes or talks too much."""
    data = b""
    while not data.endswith(b"\n"):
        part = connection.recv(_MAX_LINE)
        if not part or len(data) + len(part) > _MAX_LINE:
            raise OSError("no whole line")
        data += part
    return data


def _prepare(path: Path) -> None:
    """Make the folder, and take a dead program's socket away."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = path.parent.stat()
        if about.st_uid not in (os.getuid(), 0) or stat.S_IMODE(about.st_mode) & 0o022:
            raise StorageError(f"{path.parent} belongs to, or can be written by, others", "give another --control")
        if not path.exists():
            return
        if not path.is_socket():
            raise StorageError(f"{path} is there already, and no socket", "give another --control")
        if _answers(path):
            raise UsageError(f"another robot's program answers at {path}", "give this one another --name")
        path.unlink()
    except OSError as error:
        raise StorageError(f"cannot use {path.parent}: {error.strerror}", "give another --control") from error


def _answers(path: Path) -> bool:
    try:
        ask_robot(path, "status")
    except ConnectionFailed:
        return False
    return True
