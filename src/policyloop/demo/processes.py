"""Child processes that never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from policyloop.errors import PolicyloopError

__all__ = ["Crew", "end_with_parent"]

_GRACE_S = 10.0
_LOOK_S = 0.5
_SHARED_CORES = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""The processes share the cores: libraries take one thread each, and threads that wait must sleep."""


def end_with_parent(parent: int) -> None:
    """In a child: get SIGTERM, as if asked to end, when process `parent` is no longer its parent, also if killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


class Crew:
    """Starts `policyloop` commands as children, with a log file each; stops them all on exit.

    Args:
        logs: Directory of the log files.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Crew:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Robots, which were started after the trainer, can still hand over what they have.
        for name in reversed(list(self._children)):
            self.stop(name)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start `policyloop <command>` as child `name`."""
        environment = {**os.environ, **_SHARED_CORES}
        with (self._logs / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", "policyloop", "--follow-parent", str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches only us; we stop them in order
            )

    def running(self, name: str) -> bool:
        """Tell whether a child still runs; PolicyloopError with its last words if it failed."""
        code = self._children[name].poll()
        if code is None:
            return True
        if code != 0:
            raise PolicyloopError(
                f"{name} ended with exit code {code}: {self._last_words(name)}",
                "what was recorded is kept: run the same command again with --resume",
            )
        return False

    def _last_words(self, name: str) -> str:
        lines = (self._logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-2:]) or "it said nothing"

    def stop(self, *names: str) -> None:
        """Ask children to end, then make them."""
        children = [self._children.pop(name) for name in names if name in self._children]
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in children:
            try:
                child.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
