"""The demo with several training seeds, or PPO from nothing; one row per seed.

python bench/demo.py --minutes 10 --seeds 3
python bench/demo.py --minutes 10 --seeds 3 --from-nothing
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from machine import machine

COLUMNS = ("scripted", "clone", "untrained", "learned", "clone + gate", "untrained + gate", "learned + gate")


def children_cpu_s() -> float:
    """Return the CPU time of all finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the demos and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--from-nothing", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="policyloop-bench-"))
    print(machine())
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        out = folder / f"seed{seed}"
        command = [sys.executable, "-m", "policyloop", "demo", "--out", str(out), "--seed", str(seed)]
        command += ["--minutes", str(arguments.minutes)]
        if arguments.from_nothing:
            command += ["--demonstrations", "0"]
        before = children_cpu_s()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        report = msgspec.json.decode((out / "report.json").read_bytes())
        wall_s = sum(report["phases_s"].values())
        print(f"seed {seed}: {wall_s / 60:.1f} minutes, {(children_cpu_s() - before) / 60:.1f} CPU-minutes in all")
        for name in COLUMNS:
            row = report["drivers"].get(name)
            if row:
                low, high = row["return_ci"]
                print(
                    f"  {name:16} return {row['return_mean']:6.1f} [{low:.0f}, {high:.0f}]  median "
                    f"{row['return_median']:6.1f}  collisions {row['collision_rate']:.0%}  {row['distance_m']:.1f} m",
                    flush=True,
                )


if __name__ == "__main__":
    main()
