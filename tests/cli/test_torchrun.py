"""`torchrun -m policyloop train`: several processes, one training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.learn.checkpoint import load_checkpoint
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

SETTINGS = """
network = "mlp"
device = "cpu"
demonstrations = 0
update_interval = 16
total_updates = 2
max_staleness = 1000
[ppo]
minibatch = 8
"""


@pytest.fixture
def driven(mini: RobotProfile, make_step: Callable[..., Step], tmp_path: Path) -> Path:
    """A journal of episodes of ten steps that a policy drove."""
    journal = Journal(tmp_path / "journal", mini, writable=True)
    for i in range(60):
        step = make_step(mini, i, episode=i // 10, index=i % 10, truncated=i % 10 == 9)
        journal.append(encode_step(step, mini))
    journal.close()
    return tmp_path / "journal"


def torchrun(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Start two ranks on this machine and wait for their end."""
    (folder / "learner.toml").write_text(SETTINGS)
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*starter, "-m", "policyloop", "train", "--profile", "rover-mini", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=240
    )


def test_two_ranks_train_beside_a_gateway_and_write_one_set_of_files(driven: Path, tmp_path: Path) -> None:
    ended = torchrun(tmp_path, "--journal", driven, "--port", 0, "--settings", "learner.toml")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("policy 3 in store; steps: 3")
    assert ended.stdout.count("policy 3") == ended.stderr.count("listening at") == 1
    state = load_checkpoint(tmp_path / "checkpoints" / "000002").state
    assert state.feed.ledger["trained"] >= 30
    assert (tmp_path / "store" / "current" / "policy.onnx").is_file()


def test_simulated_robots_are_not_shared(tmp_path: Path) -> None:
    ended = torchrun(tmp_path, "--simulated", 8)
    assert ended.returncode == 1  # torchrun's own
    assert "2 ranks can share --learner ppo from a journal, not simulated robots" in ended.stderr
    assert "start it without torchrun" in ended.stderr
    assert not (tmp_path / "checkpoints").exists()
