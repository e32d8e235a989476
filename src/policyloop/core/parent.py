"""Processes that must not outlive who started them."""

from __future__ import annotations

import ctypes
import signal

__all__ = ["end_with_parent"]

_PR_SET_PDEATHSIG = 1
"""Linux's prctl.h."""


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
