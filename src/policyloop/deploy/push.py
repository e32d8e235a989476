"""The operator's end of a deployment: OpenSSH, with the user's own configuration and known hosts."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from policyloop.bundle.archive import pack
from policyloop.bundle.manifest import MANIFEST_NAME
from policyloop.bundle.signing import SIGNATURE_NAME
from policyloop.deploy.session import (
    PROTOCOL,
    Converted,
    Done,
    FromRobot,
    Greeting,
    Progress,
    Refused,
    Request,
    read_line,
    write_line,
)
from policyloop.errors import (
    ConfigError,
    ConnectionFailed,
    IncompatibleError,
    PolicyloopError,
    UsageError,
    VerificationError,
    error_of,
)

__all__ = ["Destination", "Tell", "asked", "push"]

Tell = Callable[[str, float | None], None]
"""Called with what happens, and how much of it is done; None = all of it, or nobody knows."""

_OPTIONS = ("-T", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
_SSH_FAILED, _NOT_FOUND = 255, 127
_END_S = 10.0
_CHUNK_BYTES = 1 << 16


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A robot, as ssh finds it.

    Attributes:
        host: `user@host`, or a name from the ssh configuration.
        store: Directory of its store.
        profile: Name of its profile.
        program: How policyloop is called there.
        ssh_config: Another configuration than the user's own.
    """

    host: str
    store: str = "/opt/models"
    profile: str = ""
    program: str = "policyloop"
    ssh_config: Path | None = None

    @property
    def command(self) -> list[str]:
        """The ssh command. A key that sshd ties to `policyloop receive` makes the robot ignore what it asks for."""
        if self.host.startswith("-") or not self.host:
            raise UsageError(f"'{self.host}' is no host", "give user@host")
        remote = [*shlex.split(self.program), "receive", self.store]
        if self.profile:
            remote += ["--profile", self.profile]
        config = [] if self.ssh_config is None else ["-F", str(self.ssh_config)]
        # Without a person at the terminal ssh must fail, not ask.
        batch = [] if sys.stdin.isatty() else ["-o", "BatchMode=yes"]
        return ["ssh", *config, *batch, *_OPTIONS, "--", self.host, shlex.join(remote)]


def push(
    contents: Mapping[str, bytes],
    destination: Destination,
    request: Request,
    progress: Tell = lambda what, share: None,
) -> Done:
    """Send a signed bundle and wait for what becomes of it.

    Args:
        contents: Every file of the bundle's directory, its signature among them.
        destination: Where to.
        request: What to do there; for a `check` only manifest and signature are sent.
        progress: Called with what happens, at both ends.

    Raises:
        PolicyloopError: What the robot refuses, with its own exit code; ConnectionFailed if ssh does not get through,
            VerificationError if the host is not who it was or is not known.
    """
    if SIGNATURE_NAME not in contents:
        raise ConfigError("the bundle is not signed", "make a key: policyloop keys new NAME --signing")
    if request.verb == "check":
        contents = {name: contents[name] for name in (MANIFEST_NAME, SIGNATURE_NAME)}
    with asked(destination, request, [pack(contents)], progress) as (answer, _):
        if not isinstance(answer, Done):
            raise VerificationError(f"{destination.host} answers something else", "is policyloop at both ends?")
        return answer


@contextmanager
def asked(
    destination: Destination, request: Request, blobs: Sequence[bytes], progress: Tell
) -> Iterator[tuple[Greeting | Done | Converted, BinaryIO]]:
    """Ask a robot for something; give its last answer, and the stream on which more may follow.

    Raises:
        PolicyloopError: As `push`.
    """
    with _ssh(destination) as (sent, answers):
        greeting = read_line(answers, FromRobot)
        if not isinstance(greeting, Greeting):
            raise VerificationError(f"{destination.host} does not greet", "is policyloop at both ends?")
        if greeting.protocol != PROTOCOL:
            raise IncompatibleError(
                f"{destination.host} speaks protocol {greeting.protocol}, not {PROTOCOL}", "upgrade the older side"
            )
        progress(f"{destination.host} is a {greeting.profile_name} with policyloop {greeting.policyloop}", None)
        try:
            write_line(sent, request)
            _send(sent, blobs, progress)
        except OSError:
            progress("the robot does not listen to the end", None)  # it says why
        yield _last_answer(destination, answers, progress), answers


def _send(sent: BinaryIO, blobs: Sequence[bytes], progress: Tell) -> None:
    done, total = 0, sum(map(len, blobs))
    for blob in blobs:
        for at in range(0, len(blob), _CHUNK_BYTES):
            done += sent.write(blob[at : at + _CHUNK_BYTES])
            sent.flush()
            progress("sending", done / total)


def _last_answer(destination: Destination, answers: BinaryIO, progress: Tell) -> Greeting | Done | Converted:
    """Read until the robot has come to an end; PolicyloopError if it refuses."""
    while True:
        answer = read_line(answers, FromRobot)
        if isinstance(answer, Progress):
            progress(answer.text, answer.share)
        elif isinstance(answer, Refused):
            raise error_of(answer.exit_code, f"{destination.host}: {answer.message}", answer.remedy)
        else:
            return answer


@contextmanager
def _ssh(destination: Destination) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Run ssh; give what goes in and what comes out. Where the talk breaks off, ssh's own words say why."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(destination.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        except FileNotFoundError:
            raise ConfigError("there is no ssh on this machine", "install OpenSSH's client") from None
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdin, process.stdout  # type: ignore[misc]
        except (ConnectionFailed, VerificationError) as error:
            code = _end(process)
            raise _explain(destination.host, code, said, error) from error
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Close both ends and wait for ssh; returns its exit code."""
    assert process.stdin is not None and process.stdout is not None
    for stream in (process.stdin, process.stdout):
        try:
            stream.close()
        except OSError:
            continue
    try:
        return process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _explain(host: str, code: int, said: IO[bytes], error: PolicyloopError) -> PolicyloopError:
    """Return the error that a person can do something about."""
    said.seek(0)
    text = said.read(1 << 16).decode(errors="replace").strip()
    last = text.splitlines()[-1] if text else str(error)
    if "IDENTIFICATION HAS CHANGED" in text or "Host key verification failed" in text:
        return VerificationError(
            f"ssh does not know {host}: {last}",
            f"connect once by hand (ssh {host}) and compare the fingerprint with the robot's own",
        )
    if code == _SSH_FAILED:
        return ConnectionFailed(f"ssh to {host}: {last}", f"try it by hand: ssh {host}")
    if code == _NOT_FOUND:
        return ConfigError(f"{host}: {last}", "install policyloop there, or say where it is: --remote PATH")
    if text:
        return type(error)(f"{host}: {last}", error.remedy)
    return error
