"""Two processes that learn together from one journal: they learn what one learns, and neither waits for a dead one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tests.learn.training import change

from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import ConfigError
from policyloop.learn.checkpoint import Checkpoint, latest_checkpoint
from policyloop.learn.feed import Feed
from policyloop.learn.learner import Learner
from policyloop.learn.ranks import Ranks
from policyloop.learn.settings import LearnerSettings
from policyloop.learn.share import Share, owner
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

Drive = Callable[..., Step]
Begin = Callable[..., tuple[BaseProcess, Connection]]

SETTINGS = change(update_interval=60, total_updates=10, checkpoint_interval=3)
"""Ten updates of which the first fits the critic alone; interventions and demonstrations are learned beside them."""

LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac", "explained_variance", "effective_share")

PROGRAM = """
import os
os.environ.update(environment)
from policyloop.bundle.store import Store
from policyloop.errors import PolicyloopError
from policyloop.learn.follower import follow
from policyloop.learn.learner import Learner
from policyloop.learn.ranks import Ranks
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal

def tell(progress):
    report((progress.phase, progress.update))
    if progress.phase == "collecting":  # now the robots' later steps arrive
        while later:
            records.append(later.pop(0))

try:
    ranks = Ranks.join(settings.learner, settings.device, timeout_s)
    if ranks.leads:
        records = Journal(journal, profile, writable=bool(later))
        gateway = Gateway(records, profile, "tcp://127.0.0.1:*") if later else None
        if gateway:
            gateway.start()
        Learner(
            records,
            settings,
            checkpoints=root / "checkpoints",
            store=Store(root / "store"),
            runs=root / "runs",
            resume=resume,
            gateway=gateway,
            report=tell,
            ranks=ranks,
        ).run()
        if gateway:
            gateway.close()
        records.close()
    else:
        follow(ranks, journal)
    ranks.close()
    report("ended")
except PolicyloopError as error:
    report(str(error))
"""


def recording(drive: Drive, length: int = 420) -> Iterator[Step]:
    """Yield 64 demonstrations, then two robots' episodes with take-overs, a gap, collisions and time limits."""
    rng = np.random.default_rng(0)
    for i in range(64):
        yield drive(i, robot="teacher", source="scripted", seen=(*rng.uniform(-1, 1, 2), 1.0, 0.0))
    for i in range(length):
        for robot in range(2):
            numbers = (*rng.uniform(-1, 1, 2), rng.uniform(0.5, 3), i / 1000)
            proposed = (rng.uniform(-0.9, 0.9), rng.uniform(-1.8, 1.8))
            if (i, robot) == (133, 0):
                continue  # never arrived
            yield drive(
                i,
                robot=f"r{robot}",
                episode=i // 20,
                index=i % 20,
                source="human" if (i + 7 * robot) % 57 < 3 else "policy",
                end={19: "truncated", 39: "terminated"}.get(i % 40, ""),
                gap=(i, robot) == (134, 0),
                seen=numbers,
                proposed=proposed,
            )


@pytest.fixture
def journal(
    blind: RobotProfile, drive: Drive, write_journal: Callable[[RobotProfile, Iterable[Step]], Journal]
) -> Journal:
    return write_journal(blind, recording(drive))


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Pair:
    """Two ranks that learn in processes of their own."""

    def __init__(
        self,
        begin: Begin,
        profile: RobotProfile,
        journal: Path,
        root: Path,
        port: int,
        settings: LearnerSettings = SETTINGS,
        *,
        resume: bool = False,
        timeout_s: float = 60.0,
        later: Sequence[list[bytes]] = (),
    ) -> None:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        self.ranks = [
            begin(
                PROGRAM,
                environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                journal=journal,
                settings=settings,
                root=root,
                resume=resume,
                timeout_s=timeout_s,
                profile=profile,
                later=list(later),
            )
            for rank in range(2)
        ]

    def wait_for(self, report: object) -> None:
        """Wait until the leading rank says this."""
        while self.ranks[0][1].recv() != report:
            pass

    def kill(self, rank: int, number: signal.Signals = signal.SIGKILL) -> None:
        pid = self.ranks[rank][0].pid
        assert pid is not None
        os.kill(pid, number)

    def last_words(self, rank: int) -> Any:
        """Wait for a rank's end; returns what it said last."""
        said: Any = None
        try:
            while True:
                said = self.ranks[rank][1].recv()
        except EOFError:
            self.ranks[rank][0].join()
            return said


def numbers_of(root: Path) -> list[dict[str, Any]]:
    lines = (root / "runs" / "progress.jsonl").read_bytes().splitlines()
    return [line for line in map(msgspec.json.decode, lines) if "update" in line]


def learned(root: Path) -> Checkpoint:
    checkpoint = latest_checkpoint(root / "checkpoints")
    assert checkpoint is not None
    return checkpoint


def learn_alone(journal: Journal, root: Path, settings: LearnerSettings = SETTINGS) -> None:
    Learner(journal, settings, checkpoints=root / "checkpoints", store=Store(root / "store"), runs=root / "runs").run()


def assert_equal_learning(one: Path, two: Path, updates: int) -> None:
    """The loss curve is the same to 1e-4, the weights to 1e-5, and every step is accounted for in the same way."""
    alone, together = numbers_of(one), numbers_of(two)
    assert len(alone) == len(together) == updates
    for ours, theirs in zip(alone, together, strict=True):
        for name in LOSSES:
            if name in ours:
                assert theirs[name] == pytest.approx(ours[name], abs=1e-4), (name, ours["update"])
        for name in ("rollout", "ledger", "learning_rate", "staleness"):
            assert theirs[name] == ours[name]
    assert sum("policy_loss" in line for line in alone) == updates - 1
    mine, other = learned(one), learned(two)
    for name, tensor in mine.tensors.items():
        if name.startswith("network."):
            torch.testing.assert_close(other.tensors[name], tensor, rtol=0, atol=1e-5)
    assert torch.equal(mine.tensors["generator"], other.tensors["generator"])
    assert mine.state.feed == other.state.feed


def test_two_ranks_learn_what_one_learns(journal: Journal, begin: Begin, tmp_path: Path, port: int) -> None:
    pair = Pair(begin, journal.profile, tmp_path / "journal-0", tmp_path / "two", port)
    learn_alone(journal, tmp_path / "one")
    assert [pair.last_words(rank) for rank in range(2)] == ["ended", "ended"]
    assert_equal_learning(tmp_path / "one", tmp_path / "two", 10)


def test_ranks_without_a_step_of_a_small_update_take_part(
    journal: Journal, begin: Begin, tmp_path: Path, port: int
) -> None:
    settings = msgspec.structs.replace(SETTINGS, update_interval=8, total_updates=6)
    pair = Pair(begin, journal.profile, tmp_path / "journal-0", tmp_path / "two", port, settings)
    learn_alone(journal, tmp_path / "one", settings)
    assert [pair.last_words(rank) for rank in range(2)] == ["ended", "ended"]
    assert_equal_learning(tmp_path / "one", tmp_path / "two", 6)


def test_two_ranks_learn_the_same_while_steps_arrive(
    journal: Journal, begin: Begin, drive: Drive, tmp_path: Path, port: int
) -> None:
    """Rank 0 holds the gateway; the other one sees the steps in the journal's directory."""
    profile, steps = journal.profile, list(recording(drive))
    arriving = Journal(tmp_path / "arriving", profile, writable=True)
    for step in steps[:300]:
        arriving.append(encode_step(step, profile))
    arriving.close()
    later = [encode_step(step, profile) for step in steps[300:]]
    settings = msgspec.structs.replace(SETTINGS, demonstrations=0)  # a clone is made of what is there at the time
    pair = Pair(begin, profile, tmp_path / "arriving", tmp_path / "two", port, settings, later=later)
    learn_alone(journal, tmp_path / "one", settings)
    assert [pair.last_words(rank) for rank in range(2)] == ["ended", "ended"]
    assert_equal_learning(tmp_path / "one", tmp_path / "two", 10)


def test_a_rank_that_is_killed_ends_the_other_and_a_resumed_pair_goes_on_bit_for_bit(
    journal: Journal, begin: Begin, tmp_path: Path, port: int
) -> None:
    steady, broken = tmp_path / "steady", tmp_path / "broken"
    assert Pair(begin, journal.profile, tmp_path / "journal-0", steady, port).last_words(0) == "ended"
    pair = Pair(begin, journal.profile, tmp_path / "journal-0", broken, port)
    pair.wait_for(("updating", 4))
    pair.kill(1)
    assert "rank 0 of 2 has lost another one" in (said := pair.last_words(0))
    assert "--resume" in said
    assert learned(broken).state.update in (3, 6)
    again = Pair(begin, journal.profile, tmp_path / "journal-0", broken, port, resume=True)
    assert [again.last_words(rank) for rank in range(2)] == ["ended", "ended"]
    ours, theirs = learned(broken), learned(steady)
    assert ours.state.tensors_sha256 == theirs.state.tensors_sha256
    assert (ours.state.update, ours.state.feed) == (theirs.state.update, theirs.state.feed)


@pytest.mark.parametrize(("number", "timeout_s"), [(signal.SIGKILL, 60.0), (signal.SIGSTOP, 10.0)])
def test_a_follower_whose_leader_is_killed_or_silent_ends(
    number: signal.Signals, timeout_s: float, journal: Journal, begin: Begin, tmp_path: Path, port: int
) -> None:
    pair = Pair(begin, journal.profile, tmp_path / "journal-0", tmp_path / "two", port, timeout_s=timeout_s)
    pair.wait_for(("updating", 2))
    pair.kill(0, number)
    assert "rank 1 of 2 has lost another one" in pair.last_words(1)
    pair.ranks[0][0].kill()
    pair.ranks[0][0].join()


# -- who reads what ---------------------------------------------------------------------------


def test_two_feeds_read_together_what_one_reads(journal: Journal) -> None:
    normalizer = journal.profile.nominal_normalizer
    whole, *parts = (
        Feed(journal, normalizer, max_staleness=1000, ranks=ranks) for ranks in (Ranks(), Ranks(0, 2), Ranks(1, 2))
    )
    for wanted in (1, 50, 200, 10_000):
        for feed in (whole, *parts):
            feed.advance(1, wanted)
        assert parts[0].ready == parts[1].ready == whole.ready
        rewards = np.full(whole.ready, np.nan, np.float32)
        for feed in parts:
            mine = np.concatenate([np.zeros(0, np.float32), *(trace.reward for trace in feed.take())])
            assert np.isnan(rewards[feed.rows]).all()
            rewards[feed.rows] = mine
        assert rewards.tolist() == np.concatenate([trace.reward for trace in whole.take()]).tolist()
        assert parts[0].state == parts[1].state == whole.state
        assert parts[0].staleness == whole.staleness
        assert parts[1].demonstrations == whole.demonstrations
    assert whole.scores.take() == parts[0].scores.take()


def test_consecutive_episodes_of_a_robot_go_to_the_ranks_in_turn(drive: Drive) -> None:
    owners = [owner(drive(0, episode=episode).record, 3) for episode in range(6)]
    assert sorted(owners[:3]) == [0, 1, 2]
    assert owners[3:] == owners[:3]


def test_a_share_finds_its_own_rows_in_a_minibatch() -> None:
    share = Share(Ranks(), torch.tensor([1, 3, 4]), 6)
    assert share.own(torch.tensor([4, 0, 1, 5])).tolist() == [2, 0]
    assert share.own(torch.tensor([0, 2, 5])).tolist() == []


def test_mean_and_variance_of_all_rows_by_hand() -> None:
    mean, variance = Share.whole(4).mean_and_variance(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert mean.item() == 3.0
    assert variance.item() == pytest.approx((4 + 1 + 0 + 9) / 3)
    assert Share.whole(1).mean_and_variance(torch.tensor([5.0]))[1].item() == 0.0


@pytest.mark.parametrize("learner", ["rlpd", "dagger", "bc"])
def test_learners_of_few_data_are_not_shared(learner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=f"2 ranks can share --learner ppo from a journal, not {learner}") as caught:
        Ranks.join(learner, "cpu")
    assert "without torchrun" in caught.value.remedy


LEAVING = """
import os
import torch
from policyloop.learn.ranks import Ranks
ranks = Ranks.join("ppo", "cpu")
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports the rest of torch
ranks.sum(torch.ones(1))
joined = len(os.listdir("/proc/self/task"))
ranks.close()
print(joined, len(os.listdir("/proc/self/task")))
"""


def test_no_thread_of_the_ranks_outlives_them(port: int) -> None:
    """One that did would abort the interpreter now and then, as it ends."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", LEAVING],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **meeting, "RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        joined, left = map(int, process.communicate(timeout=120)[0].split())
        assert process.returncode == 0
        assert joined > left == 1


def test_a_process_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks.join("rlpd", "cpu")
    assert (ranks.rank, ranks.count, ranks.leads) == (0, 1, True)
