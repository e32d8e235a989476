"""A policy that was cloned from a simulated drive, and the recording: small, but real."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from policyloop.bundle.store import Store
from policyloop.core.profile import EpisodeRules, RobotProfile
from policyloop.core.step import Step
from policyloop.learn.bc import BcSettings
from policyloop.learn.learner import Learner
from policyloop.learn.settings import LearnerSettings
from policyloop.link.journal import Journal
from policyloop.sim.fleet import Fleet, FleetSettings
from policyloop.wire.codec import encode_step


class Drive:
    """Where a recording and the policy cloned from it are."""

    def __init__(self, root: Path, profile: RobotProfile) -> None:
        self.profile = profile
        self.journal, self.checkpoints, self.store = root / "journal", root / "checkpoints", root / "store"

    @property
    def checkpoint(self) -> Path:
        return self.checkpoints / "000000"


@pytest.fixture(scope="session")
def drive(mini: RobotProfile, tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """600 steps of the scripted driver in episodes of 30, and a clone of them."""
    root = tmp_path_factory.mktemp("drive")
    made = Drive(root, msgspec.structs.replace(mini, episode=EpisodeRules(max_steps=30)))
    journal = Journal(made.journal, made.profile, writable=True)

    def keep(step: Step) -> None:
        # A start's name is random, and it decides which episodes are held out.
        record = msgspec.structs.replace(step.record, boot="boot")
        journal.append(encode_step(msgspec.structs.replace(step, record=record), made.profile))

    fleet = Fleet(made.profile, FleetSettings(driver="scripted", robots=2), root / "spools", keep)
    fleet.run(threading.Event(), steps=620)
    fleet.close()
    settings = LearnerSettings(learner="bc", device="cpu", threads=1, demonstrations=600, bc=BcSettings(epochs=4))
    Learner(journal, settings, checkpoints=made.checkpoints, store=Store(made.store), runs=root / "runs").run()
    journal.close()
    return made
