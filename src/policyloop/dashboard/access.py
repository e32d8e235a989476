"""Who may look at the page, and who may press its buttons: token, session, Host and Origin."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from policyloop.core.files import sync_directory
from policyloop.core.keyfiles import read_secret
from policyloop.errors import SafetyRefusal, StorageError

__all__ = ["COOKIE", "SESSION_S", "Access", "is_loopback", "token_at"]

COOKIE = "policyloop_session"
SESSION_S = 12 * 3600
_TOKEN_BYTES = 32
_LEAST_TOKEN = 32
"""Characters: fewer can be guessed."""


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's own and no other's."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def token_at(path: Path) -> tuple[str, bool]:
    """Return the token in a file, and whether it was made just now; only its owner can read the file.

    Raises:
        SafetyRefusal: Others can read it, or it is short enough to be guessed.
        StorageError: It cannot be made.
    """
    made = False
    if not path.exists():
        _make_token(path)
        made = True
    token = read_secret(path, "delete it, and it is made again").decode("utf-8", "replace").strip()
    if len(token) < _LEAST_TOKEN:
        raise SafetyRefusal(f"the token in {path} has fewer than {_LEAST_TOKEN} characters", "delete it: one is made")
    return token, made


def _make_token(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", "give another --token-file") from error


class Access:
    """Judges requests.

    Args:
        host: Where the page is served.
        token: What opens it; empty = nothing needs to be opened.
        secure: It is served with TLS.
    """

    def __init__(self, host: str, token: str, *, secure: bool = False) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"policyloop dashboard session\x00" + self._token).digest()
        self.secure = secure
        own = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}

    @property
    def needs_token(self) -> bool:
        """Nobody sees anything without logging in."""
        return bool(self._token)

    def session(self, token: str) -> str:
        """Return a new session's cookie for who knows the token; empty for who does not.

        It is no secret of the server's memory: after a restart nobody needs to log in again.
        """
        if not hmac.compare_digest(token.strip().encode(), self._token):
            return ""
        until = str(int(time.time()) + SESSION_S)
        return f"{until}.{self._seal(until)}"

    def _seal(self, until: str) -> str:
        return hmac.new(self._key, until.encode(), hashlib.sha256).hexdigest()

    def is_open_to(self, cookie: str, bearer: str = "") -> bool:
        """Tell whether this cookie is a session's that has not ended, or `bearer` the token itself."""
        if not self.needs_token:
            return True
        if bearer:
            return hmac.compare_digest(bearer.encode(), self._token)
        until, _, seal = cookie.partition(".")
        genuine = hmac.compare_digest(seal.encode(), self._seal(until).encode())
        return genuine and until.isdigit() and int(until) > time.time()

    def host_fits(self, host: str) -> bool:
        """Tell whether a Host header names this machine.

        A page of somebody else, whose name was made to point here, names itself (DNS rebinding). An address cannot be
        made to point anywhere else, so any is taken: tunnels and several networks give a machine many.
        """
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    def is_own_page(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request comes from a page that was served here: its Origin is where it goes."""
        scheme = "https" if self.secure else "http"
        return headers.get("origin", "").lower() == f"{scheme}://{headers.get('host', '').lower()}"
