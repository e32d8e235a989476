"""How long a person waits for the command line, and what of it is imports: the best of nine.

The wall clock is what a person sees; where other programs run beside it, the processor's time is what to compare.

Usage: python bench/cli.py
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time

from machine import machine

_TRIES = 9
_SHOWN = 12


def _spent_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _best(*arguments: str) -> str:
    walls, cpus = [], []
    for _ in range(_TRIES):
        began_s, spent_s = time.perf_counter(), _spent_s()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        walls.append(1e3 * (time.perf_counter() - began_s))
        cpus.append(1e3 * (_spent_s() - spent_s))
    return f"{min(walls):7.0f} ms, processor {min(cpus):6.0f} ms"


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
    print(f"{'python -c pass':25} {_best('-c', 'pass')}")
    for command in (["--version"], ["--help"], ["train", "--help"], ["doctor"]):
        print(f"policyloop {' '.join(command):14} {_best('-m', 'policyloop', *command)}")
    print("imports of --help, each package by itself:")
    for ms, name in _imports("-m", "policyloop", "--help")[:_SHOWN]:
        print(f"  {name:24} {ms:7.1f} ms")


if __name__ == "__main__":
    main()
