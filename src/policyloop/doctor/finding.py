"""One line of the doctor's table, and the question that it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import msgspec

from policyloop.errors import ConfigError, PolicyloopError

__all__ = ["Check", "Finding", "State", "exit_code_of", "wrong"]

State = Literal["fine", "absent", "doubtful", "wrong"]
"""absent: fine unless somebody wants that part; doubtful: works, but costs something or may fail later."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    Attributes:
        what: Which part.
        found: How it is, in one line.
        remedy: What to do; empty where nothing need be done.
        exit_code: Of `policyloop doctor` if the state is `wrong`, from the one table.
    """

    what: str
    state: State
    found: str
    remedy: str = ""
    exit_code: int = 0


class Check(NamedTuple):
    """A question, asked in a process of its own because it may hang or crash.

    Attributes:
        what: As in the finding.
        ask: Returns a finding, or several; an error of ours that it raises becomes one.
    """

    what: str
    ask: Callable[[], Finding | list[Finding]]


def wrong(what: str, error: PolicyloopError) -> Finding:
    """Return what an error says as a finding, with the error's exit code."""
    return Finding(what=what, state="wrong", found=error.message, remedy=error.remedy, exit_code=error.exit_code)


def exit_code_of(findings: Iterable[Finding]) -> int:
    """Return the exit code of the first finding that is wrong; 0 if none is."""
    return next((found.exit_code or ConfigError.exit_code for found in findings if found.state == "wrong"), 0)
