"""What the learner's tests share: a robot without a camera, its steps, and journals of them."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.learn.training import Place, recording

from policyloop.core.profile import EpisodeRules, Limits, RobotProfile
from policyloop.core.spec import Quantity, RangedQuantity
from policyloop.core.step import Action, Behaviour, Command, Source, Stamps, Step, StepRecord
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

Record = Step | list[bytes]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def blind() -> RobotProfile:
    """A robot without a camera: velocity, yaw rate, free distance and a tag that tells steps apart."""
    return RobotProfile(
        name="blind",
        proprio=(
            Quantity(name="linear_vel", unit="m/s"),
            Quantity(name="angular_vel", unit="rad/s"),
            Quantity(name="min_forward_dist", unit="m"),
            Quantity(name="tag", unit="1"),
        ),
        action=(
            RangedQuantity(name="linear", unit="m/s", low=-1.0, high=1.0),
            RangedQuantity(name="angular", unit="rad/s", low=-2.0, high=2.0),
        ),
        limits=Limits(max_forward_mps=1.0, max_reverse_mps=1.0, max_angular_radps=2.0),
        episode=EpisodeRules(max_steps=20),
        reward={"forward": 1.0},
        training_reward={"forward": 2.0, "spin": -0.5, "override": -1.0, "collision": -10.0, "time": -0.01},
    )


@pytest.fixture(scope="session")
def drive(blind: RobotProfile) -> Callable[..., Step]:
    """Return `drive(sequence, ...)`: one step of the robot without a camera.

    The tag of a step's observation is its sequence number / 1000; the policy's draw is its mean.
    """

    def build(
        sequence: int,
        *,
        robot: str = "r0",
        boot: str = "b0",
        episode: int = 0,
        index: int | None = None,
        source: Source = "policy",
        version: int = 1,
        seen: Sequence[float] | None = None,
        proposed: tuple[float, float] = (0.5, 0.25),
        done: tuple[float, float] | None = None,
        end: str = "",
        final: Sequence[float] | None = (0.0, 0.0, 2.0, 4.0),
        gap: bool = False,
        terms: dict[str, float] | None = None,
    ) -> Step:
        behaviour = None
        if source == "policy":
            sample = tuple(math.atanh(p / h) for p, h in zip(proposed, (1.0, 2.0), strict=True))
            behaviour = Behaviour(
                mean=sample,
                log_std=(-0.5, -0.5),
                sample=sample,
                log_prob=2 * (0.5 - 0.5 * math.log(2 * math.pi)),
                policy_version=version,
                policy_digest="0" * 64,
                backend="test",
            )
        record = StepRecord(
            robot=robot,
            boot=boot,
            sequence=sequence,
            episode=episode,
            index=sequence if index is None else index,
            profile_digest=blind.digest,
            stamps=Stamps(0, 0, 0),
            previous_command=(0.0, 0.0),
            action=Action(proposed, source, behaviour),
            command=Command(proposed if done is None else done),
            reward_terms=terms or {"forward": 0.0},
            terminated=end == "terminated",
            truncated=end == "truncated",
            gap=gap,
        )
        observed = np.array((0.0, 0.0, 2.0, sequence / 1000) if seen is None else seen, np.float32)
        after = {"proprio": np.array(final, np.float32)} if end and final is not None else None
        return Step(record, {"proprio": observed}, after)

    return build


@pytest.fixture
def write_journal(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    """Return `write_journal(profile, records)`: records on disk in a new journal, opened for reading.

    A record is a step, or the frames of something that is none.
    """
    opened: list[Journal] = []

    def write(profile: RobotProfile, records: Iterable[Record]) -> Journal:
        directory = tmp_path / f"journal-{len(opened)}"
        writer = Journal(directory, profile, writable=True)
        for record in records:
            writer.append(encode_step(record, profile) if isinstance(record, Step) else record)
        writer.close()
        opened.append(Journal(directory))
        return opened[-1]

    yield write
    for journal in opened:
        journal.close()


@pytest.fixture(scope="session")
def begin() -> Callable[..., tuple[BaseProcess, Connection]]:
    """Return `begin(program, **names)`: a process that runs Python text with these names, and what it reports.

    The program has the name `report` too, which sends an object here. Processes begin quickly: they are
    forked from one that has imported torch and done nothing else.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["policyloop.learn.learner", "torch.utils.tensorboard", "torch._dynamo"])

    def start(program: str, **names: Any) -> tuple[BaseProcess, Connection]:
        reports, child_end = server.Pipe(duplex=False)
        child = server.Process(target=exec, args=(program, {**names, "report": child_end.send}), daemon=True)
        child.start()
        child_end.close()
        return child, reports

    return start


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return where one training keeps its things."""
    return Place(tmp_path / "run")


@pytest.fixture
def journal(blind: RobotProfile, drive: Callable[..., Step], write_journal: Callable[..., Journal]) -> Journal:
    """Return a journal of 64 demonstrations and then one robot's episodes; see `recording`."""
    return write_journal(blind, recording(drive))
