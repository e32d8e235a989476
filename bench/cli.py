"""How long a person waits for the command line, and what of it is imports: best of nine, wall clock.

Usage: python bench/cli.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import time

from machine import machine

_TRIES = 9
_SHOWN = 12


def _best_ms(*arguments: str) -> float:
    times = []
    for _ in range(_TRIES):
        began_s = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        times.append(1e3 * (time.perf_counter() - began_s))
    return min(times)


def _imports(*arguments: str) -> list[tuple[float, str]]:
    """Return (ms, package) of everything that is imported, by its own time and that of its parts, longest first."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=False
    )
    spent: dict[str, float] = {}
    for own_us, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", result.stderr):
        package = ".".join(name.split(".")[:2]) if name.startswith("policyloop") else name.partition(".")[0]
        spent[package] = spent.get(package, 0.0) + int(own_us) / 1000
    return sorted(((ms, name) for name, ms in spent.items()), reverse=True)


def main() -> None:
    """Print the times of the interpreter, of help, of the version and of the doctor."""
    print(machine())
    print(f"python -c pass            {_best_ms('-c', 'pass'):7.0f} ms")
    for command in (["--version"], ["--help"], ["train", "--help"], ["doctor"]):
        print(f"policyloop {' '.join(command):14} {_best_ms('-m', 'policyloop', *command):7.0f} ms")
    print("imports of --help, each package by itself:")
    for ms, name in _imports("-m", "policyloop", "--help")[:_SHOWN]:
        print(f"  {name:24} {ms:7.1f} ms")


if __name__ == "__main__":
    main()
