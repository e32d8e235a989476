"""Ask everything at once, in processes that are ended if they do not answer.

Drivers, network disks and vendors' libraries hang and crash; whoever asks them must survive that, and say so.
A process writes a line before each question and one after it, so that the question that it died of has a name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib import import_module
from types import TracebackType

import msgspec

from policyloop.doctor.finding import Check, Finding, wrong
from policyloop.doctor.scope import Scope
from policyloop.errors import PolicyloopError

__all__ = ["GROUPS", "LIMIT_S", "answer", "examine"]

GROUPS = ("machine", "training", "npu", "keys", "link", "disks", "services", "ros")
"""Modules of this package; each has `checks(scope)`."""
LIMIT_S = 4.5
_FAILED = 1


class _Said(msgspec.Struct):
    """A line of the process that asks: it begins with a question, or has the answer."""

    what: str
    findings: list[Finding] | None = None


def examine(scope: Scope, groups: tuple[str, ...] = GROUPS, limit_s: float = LIMIT_S) -> list[Finding]:
    """Return what was found, in the order of `groups`; whatever needs longer than `limit_s` is ended and named."""
    deadline_s = time.monotonic() + limit_s
    with ExitStack() as stack:
        asked = [stack.enter_context(_Asked(group, scope)) for group in groups]
        return [finding for one in asked for finding in one.answers(deadline_s, limit_s)]


class _Asked:
    """The process that asks one group's questions."""

    def __init__(self, group: str, scope: Scope) -> None:
        self._group = group
        self._process = subprocess.Popen(
            [sys.executable, "-m", "policyloop.doctor", group, msgspec.json.encode(scope).decode()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> _Asked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def answers(self, deadline_s: float, limit_s: float) -> list[Finding]:
        """Return what is known by the deadline."""
        try:
            out, err = self._process.communicate(timeout=max(deadline_s - time.monotonic(), 0.0))
            why = _why(self._process.returncode, err)
        except subprocess.TimeoutExpired:
            self._end()
            out, _ = self._process.communicate()
            why = f"no answer within {limit_s:g} s: it was given up"
        said = [msgspec.json.decode(line, type=_Said) for line in out.splitlines(keepends=True) if line.endswith(b"\n")]
        found = [finding for one in said for finding in one.findings or []]
        if why:
            what = said[-1].what if said and said[-1].findings is None else self._group
            found.append(
                Finding(
                    what=what,
                    state="wrong",
                    found=why,
                    remedy="look at that part by hand: whatever uses it would hang or crash as well",
                    exit_code=_FAILED,
                )
            )
        return found


def _why(code: int, err: bytes) -> str:
    """Return why a process did not come to its end, or an empty string."""
    if code < 0:
        return f"asking it ended the process with {signal.Signals(-code).name}"
    lines = err.decode(errors="replace").strip().splitlines()
    return f"asking it failed: {lines[-1] if lines else f'exit code {code}'}" if code else ""


def answer(group: str, scope: Scope, say: Callable[[bytes], object]) -> None:
    """Ask the questions of one group, in this process; `say` gets the lines."""
    for check in import_module(f"policyloop.doctor.{group}").checks(scope):
        say(_line(_Said(check.what)))
        say(_line(_Said(check.what, _ask(check))))


def _ask(check: Check) -> list[Finding]:
    try:
        found = check.ask()
    except PolicyloopError as error:
        return [wrong(check.what, error)]
    except Exception as error:  # a trap that nobody knows yet is a finding as well
        about = f"{type(error).__name__}: {error}"
        return [Finding(what=check.what, state="wrong", found=about, exit_code=_FAILED)]
    return found if isinstance(found, list) else [found]


def _line(said: _Said) -> bytes:
    return msgspec.json.encode(said) + b"\n"
