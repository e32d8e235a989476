"""What the demo's tests share: a look at the processes of this machine, and polling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


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
