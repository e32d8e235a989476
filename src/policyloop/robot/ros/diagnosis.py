"""One line of `/diagnostics`."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["LEVELS", "Diagnosis", "Level"]

Level = Literal["ok", "warning", "error"]

LEVELS: dict[Level, int] = {"ok": 0, "warning": 1, "error": 2}
"""As diagnostic_msgs/DiagnosticStatus numbers them."""


class Diagnosis(msgspec.Struct, frozen=True):
    """How one part of a robot's program does.

    Attributes:
        level: How bad it is.
        name: Which part.
        message: One sentence.
        values: Numbers and names, as text.
    """

    level: Level
    name: str
    message: str
    values: dict[str, str] = {}
