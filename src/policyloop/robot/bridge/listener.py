"""Where a controller connects to: a Unix socket of this user alone, or a TCP port that only this machine reaches."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from policyloop.errors import ConnectionFailed, SafetyRefusal, StorageError, UsageError

__all__ = ["listen_tcp", "listen_unix"]

_BACKLOG = 4
_PATIENCE_S = 0.5


def listen_unix(path: Path) -> socket.socket:
    """Return a socket that only this user may connect to; a dead program's is taken away.

    Raises:
        StorageError: There is something else at `path`, or it cannot be used.
        UsageError: Another program answers there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_room(path)
        # Before it has a name: the name is made with this mode, and nobody can come in between.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StorageError(f"cannot listen at {path}: {error.strerror or error}", "choose another path") from error
    except BaseException:
        listener.close()
        raise
    return listener


def listen_tcp(host: str, port: int) -> socket.socket:
    """Return a socket that only programs on this machine can connect to.

    Raises:
        SafetyRefusal: `host` is not this machine's loopback: a frame carries no authentication.
        ConnectionFailed: The port is taken.
    """
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    if not _is_loopback(host):
        raise SafetyRefusal(
            f"frames carry no authentication, and {host} can be reached from other machines",
            "listen on 127.0.0.1, or tunnel through ssh",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConnectionFailed(f"cannot listen on {host}:{port}: {error}", "choose another port") from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _make_room(path: Path) -> None:
    try:
        about = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(about.st_mode):
        raise StorageError(f"{path} is there already, and no socket", "choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PATIENCE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
            return
        except TimeoutError:
            pass
    raise UsageError(f"another program answers at {path}", "stop it, or choose another path")
