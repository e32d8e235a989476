"""What learners make of minutes of driving: simulated rovers and the learner take turns in one process.

    python bench/learners.py rlpd --steps 12000 --seed 0
    python bench/learners.py ppo --steps 12000 --seed 0 --settings settings.toml --name wide
    python bench/learners.py ppo --demonstrations 0 --lag 4
    python bench/learners.py table

Nothing runs at the same time as anything else, so equal arguments give equal results. Steps are those that the policy
drives; a clone is made once for each seed and number of demonstrations and is where every learner begins. Its mean, and
that of policies on the way, drive arenas that no training has seen. `--lag` keeps robots so many policies behind.
"""

from __future__ import annotations

import argparse
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from machine import machine

from policyloop.bundle.store import Store
from policyloop.config import load_settings
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Step
from policyloop.evaluate import EVALUATION_ARENAS, evaluate
from policyloop.learn.learner import Learner
from policyloop.learn.reporter import Progress
from policyloop.learn.settings import LearnerSettings
from policyloop.link.journal import Journal
from policyloop.sim.fleet import Fleet, FleetSettings
from policyloop.statistics import bootstrap_interval
from policyloop.wire.codec import encode_step

ROBOTS = 8
TURN = 100
"""Steps that are driven whenever the learner waits."""

POINTS = 2
"""Policies on the way that are judged."""


class Result(msgspec.Struct, kw_only=True):
    """One run: returns per arena of the policies after so many steps."""

    name: str
    learner: str
    seed: int
    demonstrations: int
    steps: list[int]
    returns: list[tuple[float, ...]]
    collisions: list[float]
    cpu_s: float


class Turns:
    """Stands where a gateway would: whenever the learner waits for steps, robots drive some into its journal."""

    def __init__(self, journal: Journal, folder: Path, steps: int, seed: int, lag: int) -> None:
        self._journal, self._seed, self._left, self._lag = journal, seed, steps, lag
        self._store, self._driven = Store(folder / "store"), Store(folder / "driven")
        self._fleet: Fleet | None = None
        self.over = threading.Event()
        self.stop = threading.Event()

    def announce(self, *, policy_version: int | None = None, hold: bool | None = None) -> None:
        """Take no notice: robots look into the store."""

    def check(self) -> None:
        """Drive a turn."""
        bundles = self._store.versions()
        bundle = bundles[max(0, len(bundles) - 1 - self._lag)]
        if self._driven.current is None or self._driven.current.name != bundle.name:
            copy = self._driven.directory / "versions" / bundle.name
            shutil.copytree(bundle, copy, dirs_exist_ok=True)
            self._driven.activate(copy)
        if self._fleet is None:
            driver = str(self._driven.directory)
            settings = FleetSettings(driver=driver, robots=ROBOTS, seed=self._seed, gate="limits", name="pupil")
            self._fleet = Fleet(self._journal.profile, settings, Path(), emit=self._keep)
        self._fleet.run(self.over, steps=self._fleet.steps + TURN)
        self._left -= TURN
        if self._left <= 0:
            self.stop.set()

    def _keep(self, step: Step) -> None:
        self._journal.append(encode_step(step, self._journal.profile))


def clone(profile: RobotProfile, seed: int, demonstrations: int, folder: Path) -> None:
    """Record the scripted driver and clone it."""
    journal = Journal(folder / "journal", profile, writable=True)
    teachers = FleetSettings(driver="scripted", robots=ROBOTS, seed=seed, gate="limits", name="teacher")
    fleet = Fleet(profile, teachers, Path(), emit=lambda step: journal.append(encode_step(step, profile)))
    fleet.run(threading.Event(), steps=demonstrations)
    settings = LearnerSettings(learner="bc", seed=seed, demonstrations=demonstrations - ROBOTS, threads=1)
    settings = msgspec.structs.replace(settings, bc=msgspec.structs.replace(settings.bc, shift_px=1))
    places = {"checkpoints": folder / "checkpoints", "store": Store(folder / "store"), "runs": folder / "runs"}
    Learner(journal, settings, **places).run()
    journal.close()


def learn(
    profile: RobotProfile, folder: Path, settings: LearnerSettings, steps: int, lag: int, *, resume: bool
) -> list[tuple[int, int]]:
    """Learn; returns (steps driven, version) after each update."""
    journal = Journal(folder / "journal", profile, writable=True)
    turns = Turns(journal, folder, steps, settings.seed, lag)
    passed: list[tuple[int, int]] = []

    def note(progress: Progress) -> None:
        if progress.phase == "collecting" and (not passed or passed[-1][1] != progress.version):
            passed.append((progress.update * settings.steps_per_update, progress.version))

    places = {"checkpoints": folder / "checkpoints", "store": Store(folder / "store"), "runs": folder / "runs"}
    learner = Learner(journal, settings, **places, gateway=turns, resume=resume, report=note, stop=turns.stop)
    learner.run()
    journal.close()
    return [*passed, (learner.ledger["trained"], learner.version)]


def run(arguments: argparse.Namespace) -> None:
    """Clone if need be, learn, judge, and write the result."""
    torch.set_num_threads(1)
    profile = load_profile(arguments.profile)
    name = arguments.name or arguments.learner
    folder = arguments.out / f"{name}-{arguments.demonstrations}-{arguments.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    if arguments.demonstrations:
        base = arguments.out / f"clone-{arguments.demonstrations}-{arguments.seed}"
        if not (base / "checkpoints" / "000000").exists():
            shutil.rmtree(base, ignore_errors=True)
            clone(profile, arguments.seed, arguments.demonstrations, base)
        shutil.copytree(base, folder, symlinks=True)
    chosen: dict[str, Any] = {"learner": arguments.learner, "seed": arguments.seed, "threads": 1}
    settings = load_settings(LearnerSettings, arguments.settings, **chosen)
    updates = max(1, arguments.steps // settings.steps_per_update)
    more = {"total_updates": updates, "demonstrations": arguments.demonstrations, "checkpoint_interval": updates}
    settings = msgspec.structs.replace(settings, **more, max_staleness=max(2, arguments.lag))
    began = time.process_time()
    passed = learn(profile, folder, settings, 2 * arguments.steps, arguments.lag, resume=bool(arguments.demonstrations))
    spent = time.process_time() - began
    picked = [passed[round(at)] for at in np.linspace(0, len(passed) - 1, POINTS + 1)]
    store = Store(folder / "store")
    reports = [
        evaluate(profile, str(store.find(version)), episodes=arguments.episodes, arena_seed=arguments.arena)
        for _, version in picked
    ]
    result = Result(
        name=name,
        learner=arguments.learner,
        seed=arguments.seed,
        demonstrations=arguments.demonstrations,
        steps=[steps for steps, _ in picked],
        returns=[report.returns for report in reports],
        collisions=[report.collision_rate for report in reports],
        cpu_s=spent,
    )
    (arguments.out / f"{folder.name}.json").write_bytes(msgspec.json.encode(result))
    print(row(result), flush=True)


def row(result: Result) -> str:
    """Return a result as a line: steps, return and collisions of each policy that was judged."""
    cells = [
        f"{steps}: {np.mean(returns):.1f} ({collisions:.0%})"
        for steps, returns, collisions in zip(result.steps, result.returns, result.collisions, strict=True)
    ]
    return f"{result.name} seed {result.seed}, {result.cpu_s:.0f} CPU s | " + " | ".join(cells)


def table(out: Path) -> None:
    """Print every result, and for each name the mean over seeds with a 95 % interval of the last policy."""
    results = [msgspec.json.decode(path.read_bytes(), type=Result) for path in sorted(out.glob("*.json"))]
    for result in results:
        print(row(result))
    for name in dict.fromkeys(result.name for result in results):
        mine = [result for result in results if result.name == name]
        for label, at in (("first", 0), ("last", -1)):
            means = [float(np.mean(result.returns[at])) for result in mine]
            low, high = bootstrap_interval(means) if len(means) > 1 else (means[0], means[0])
            contacts = np.mean([result.collisions[at] for result in mine])
            interval = f"{np.mean(means):.1f} [{low:.1f}, {high:.1f}]"
            print(f"{name}, {label}: {interval}, {contacts:.0%} contacts, {len(mine)} seeds")


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learner", choices=["ppo", "rlpd", "table"])
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demonstrations", type=int, default=6000)
    parser.add_argument("--lag", type=int, default=0)
    parser.add_argument("--settings", type=Path, default=None)
    parser.add_argument("--name", default="")
    parser.add_argument("--profile", default="rover-mini")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--arena", type=int, default=EVALUATION_ARENAS)
    parser.add_argument("--out", type=Path, default=Path("learners"))
    arguments = parser.parse_args()
    if arguments.learner == "table":
        table(arguments.out)
        return
    print(machine())
    run(arguments)


if __name__ == "__main__":
    main()
