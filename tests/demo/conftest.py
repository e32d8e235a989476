"""What the demo's tests share: a look at the processes of this machine, and polling."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def until() -> Callable[..., None]:
    """Return `until(condition, seconds=60)`: poll until `condition()` holds; fails after the deadline."""

    def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Return `alive(pid)`: whether a process runs; one that is dead but not reaped does not."""

    def check(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False

    return check


@pytest.fixture
def processes_of(alive: Callable[[int], bool]) -> Callable[..., list[int]]:
    """Return `processes_of(path, word="")`: living processes that name `path`, and `word`, on their command line."""

    def find(path: Path, word: str = "") -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            names_it = any(str(path) in argument for argument in arguments)
            if names_it and (not word or word in arguments) and alive(int(entry.name)):
                found.append(int(entry.name))
        return found

    return find


@pytest.fixture
def handles_sigterm() -> Callable[[int], bool]:
    """Return `handles_sigterm(pid)`: whether a process has come so far as to end in order when it is asked to."""

    def check(pid: int) -> bool:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    return check
