"""The robots' programs that run on this machine, through their control sockets, as `policyloop robot` does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from policyloop.errors import PolicyloopError, UsageError
from policyloop.robot.control import RobotStatus, Verb, ask_robot

__all__ = ["ControlShown", "Controls"]


class ControlShown(msgspec.Struct, frozen=True, kw_only=True):
    """One robot's program as the page shows it.

    Attributes:
        status: What it said last; None = it has said nothing yet.
        age_s: Since it said that.
        problem: Why it does not answer.
    """

    name: str
    status: RobotStatus | None
    age_s: float
    problem: str


class Controls:
    """Asks robots' programs who may move them, and passes on what a person wants.

    Args:
        sockets: By the robot's name.
    """

    def __init__(self, sockets: Mapping[str, Path]) -> None:
        self._sockets = dict(sockets)
        self._status: dict[str, tuple[RobotStatus, float]] = {}
        self._problems: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Robots that can be reached from here."""
        return list(self._sockets)

    def look(self, name: str) -> None:
        """Ask a robot for its status; one that does not answer is shown as such."""
        try:
            self.ask(name, "status")
        except PolicyloopError as error:
            self._problems[name] = error.message

    def ask(self, name: str, verb: Verb) -> RobotStatus:
        """Pass on one verb.

        Raises:
            UsageError: There is no such robot on this machine.
            ConnectionFailed: Its program does not answer.
            SafetyRefusal: It will not do that now.
        """
        if name not in self._sockets:
            raise UsageError(f"no robot '{name[:64]}' can be reached from here", "start the dashboard with --robot")
        status = ask_robot(self._sockets[name], verb)
        self._status[name] = status, time.monotonic()
        self._problems.pop(name, None)
        return status

    def shown(self) -> list[ControlShown]:
        """Return all of them."""
        now_s = time.monotonic()
        found = []
        for name in self._sockets:
            status, asked_s = self._status.get(name, (None, now_s))
            problem = self._problems.get(name, "")
            found.append(ControlShown(name=name, status=status, age_s=now_s - asked_s, problem=problem))
        return found
