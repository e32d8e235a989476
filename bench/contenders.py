"""Contenders that take turns, each in a process of its own, so that all meet the same load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator

__all__ = ["serve", "take_turns"]


def take_turns(names: Iterable[str], rounds: int, *, threads: int = 1) -> Iterator[dict[str, list[float]]]:
    """Yield what every contender measured in a round, after one round that only warms up.

    Each is this script once more, with the same arguments and `--contender NAME`; there it calls `serve`.
    """
    command = [sys.executable, *sys.argv, "--contender"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    processes = {}
    for name in names:  # one after another: some try at their start what is fastest
        processes[name] = subprocess.Popen(
            [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert _answer(processes[name]) == "ready\n", f"{name} did not start"
    for place in range(rounds + 1):
        measured = {}
        for name, process in processes.items():
            print(file=process.stdin, flush=True)
            measured[name] = json.loads(_answer(process))
        if place > 0:
            yield measured
    for process in processes.values():
        process.communicate()


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def serve(measure: Callable[[], list[float]]) -> None:
    """Be a contender: measure whenever it is this one's turn."""
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)
