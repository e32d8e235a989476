"""A training on a recorded journal, and the place where it keeps its things."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from policyloop.bundle.store import Store
from policyloop.core.step import Step
from policyloop.learn.bc import BcSettings
from policyloop.learn.checkpoint import latest_checkpoint
from policyloop.learn.learner import Learner
from policyloop.learn.ppo import PpoSettings
from policyloop.learn.reporter import Progress
from policyloop.learn.rlpd import RlpdSettings
from policyloop.learn.settings import LearnerSettings
from policyloop.link.journal import Journal

Drive = Callable[..., Step]
Write = Callable[..., Journal]

SETTINGS = LearnerSettings(
    network="mlp",
    device="cpu",
    threads=1,
    demonstrations=64,
    update_interval=50,
    total_updates=6,
    checkpoint_interval=2,
    max_staleness=1000,
    bc=BcSettings(epochs=3, minibatch=16),
    ppo=PpoSettings(minibatch=16, critic_warmup_updates=1, demonstration_weight=0.1),
)


def recording(drive: Drive, robots: int = 1, length: int = 400) -> Iterator[Step]:
    """Yield 64 demonstrations, then episodes of each robot with take-overs, a gap, collisions and time limits."""
    rng = np.random.default_rng(0)

    def numbers(sequence: int) -> dict[str, Any]:
        seen = (*rng.uniform(-1, 1, 2), rng.uniform(0.5, 3), sequence / 1000)
        return {"seen": seen, "proposed": (rng.uniform(-0.9, 0.9), rng.uniform(-1.8, 1.8))}

    for i in range(64):
        yield drive(i, robot="teacher", source="scripted", index=i, **numbers(i))
    for i in range(length):
        if i == 133:
            continue  # never arrived
        for robot in range(robots):
            ended = {19: "truncated", 39: "terminated"}.get(i % 40, "")
            yield drive(
                i,
                robot=f"r{robot}",
                episode=i // 20,
                index=i % 20,
                source="human" if i % 57 < 3 else "policy",
                end=ended,
                gap=i == 134,
                terms={"forward": float(rng.uniform(0, 1)), "time": -0.01},
                **numbers(i),
            )


class Place:
    """Where one training run keeps its things."""

    def __init__(self, root: Path) -> None:
        self.checkpoints, self.runs = root / "checkpoints", root / "runs"
        self.store = Store(root / "store")

    def learner(self, journal: Journal, settings: LearnerSettings = SETTINGS, **more: Any) -> Learner:
        return Learner(journal, settings, checkpoints=self.checkpoints, store=self.store, runs=self.runs, **more)

    def updates(self) -> list[int]:
        return [int(path.name) for path in sorted(self.checkpoints.glob("[0-9]*"))]

    def fingerprint(self) -> str:
        """Return the hash of the newest checkpoint's network."""
        checkpoint = latest_checkpoint(self.checkpoints)
        assert checkpoint is not None
        hasher = hashlib.sha256()
        for name in sorted(checkpoint.tensors):
            if name.startswith("network."):
                hasher.update(name.encode() + checkpoint.tensors[name].numpy().tobytes())
        return hasher.hexdigest()

    def scalars(self) -> dict[str, list[float]]:
        events = EventAccumulator(str(self.runs))
        events.Reload()
        return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    def lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in (self.runs / "progress.jsonl").read_bytes().splitlines()]


def change(**changes: Any) -> LearnerSettings:
    return msgspec.structs.replace(SETTINGS, **changes)


def stops_at(event: threading.Event, update: int) -> Callable[[Progress], None]:
    """Return a report that asks the learner to stop while it works on its update number `update`."""

    def report(progress: Progress) -> None:
        if progress.phase == "updating" and progress.update == update - 1:
            event.set()

    return report


RLPD = change(
    learner="rlpd",
    checkpoint_interval=2,
    rlpd=RlpdSettings(critics=3, critic_steps=0.5, warmup_steps=5, minibatch=16, capacity=150),
)
