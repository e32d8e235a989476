"""Episodes to judge by: simulated ones, whoever drives them, and recorded ones, whoever may be judged by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyloop.core.profile import EpisodeRules, RobotProfile
from policyloop.core.step import Action, Behaviour, Command, Step
from policyloop.drives import PROMOTION_ARENAS, drive_arenas, recorded_drives
from policyloop.errors import StorageError
from policyloop.evaluate import EVALUATION_ARENAS, drive_episode
from policyloop.link.journal import Journal
from policyloop.promotion import Drive
from policyloop.sim.fleet import TRAINING_ARENAS
from policyloop.wire.codec import encode_step

OURS, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def short(mini: RobotProfile) -> RobotProfile:
    return msgspec.structs.replace(mini, episode=EpisodeRules(max_steps=25))


def test_promotion_is_judged_on_arenas_of_its_own() -> None:
    assert max(TRAINING_ARENAS) < EVALUATION_ARENAS < EVALUATION_ARENAS + 1_000_000 <= PROMOTION_ARENAS


def test_everybody_drives_the_same_arenas(short: RobotProfile) -> None:
    told: list[tuple[int, int]] = []
    drives = drive_arenas(
        short, ["scripted", "random"], range(70_000, 70_003), "limits", progress=lambda *done: told.append(done)
    )
    assert told == [(done, 6) for done in range(1, 7)]
    for policy, found in zip(("scripted", "random"), drives, strict=True):
        for seed, drive in zip(range(70_000, 70_003), found, strict=True):
            summary = drive_episode(short, policy, seed, "limits")
            assert (drive.score, drive.collided, drive.distance_m, drive.gated) == (
                summary.score,
                summary.collided,
                summary.distance_m,
                summary.gated,
            )


def test_processes_share_the_work_and_change_nothing(short: RobotProfile) -> None:
    alone, shared = (
        drive_arenas(short, ["random"], range(70_010, 70_014), "full", processes=processes) for processes in (1, 2)
    )
    assert alone == shared


def test_what_fails_in_another_process_is_said_here(short: RobotProfile, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no policy at") as caught:
        drive_arenas(short, [str(tmp_path / "none"), "random"], range(2), "full", processes=2)
    assert "give a bundle" in caught.value.remedy


# -- recorded -----------------------------------------------------------------------------------


class Recording:
    """Writes episodes of steps, one second per tick, into a journal."""

    def __init__(self, directory: Path, profile: RobotProfile, make_step: Callable[..., Step]) -> None:
        self._profile, self._make_step = profile, make_step
        self.journal = Journal(directory, profile, writable=True)
        self._sequence = self._episode = 0

    def episode(self, *drivers: str, lost: int | None = None, ended: str = "truncated", **changes: Any) -> None:
        """Write an episode: who drives each step, an action of `ACTIONS`; step `lost` is missing."""
        for index, driver in enumerate(drivers):
            last = index == len(drivers) - 1
            step = self._make_step(
                self._profile,
                self._sequence,
                self._episode,
                index,
                action=ACTIONS[driver],
                **{ended: last} if ended else {},
                **changes,
            )
            if index != lost:
                self.journal.append(encode_step(step, self._profile))
            self._sequence += 1
        self._episode += 1

    def drives(self) -> tuple[Drive, ...]:
        found = recorded_drives(self.journal, {OURS})
        assert set(found) == {OURS}
        return found[OURS]


def proposed(digest: str, *, drawn: bool) -> Action:
    behaviour = Behaviour(
        mean=(0.0, 0.0),
        log_std=(-1.0, -1.0),
        sample=(0.0, 0.0),
        log_prob=0.0,
        policy_version=3,
        policy_digest=digest,
        backend="onnx",
        drawn=drawn,
    )
    return Action((0.25, 0.0), "policy", behaviour)


ACTIONS = {
    "ours": proposed(OURS, drawn=False),
    "other": proposed(OTHER, drawn=False),
    "exploring": proposed(OURS, drawn=True),
    "human": Action((0.1, 0.0), "human"),
    "scripted": Action((0.1, 0.0), "scripted"),
}


@pytest.fixture
def recording(mini: RobotProfile, make_step: Callable[..., Step], tmp_path: Path) -> Iterator[Recording]:
    made = Recording(tmp_path / "journal", mini, make_step)
    yield made
    made.journal.close()


def test_a_recorded_episode_by_hand(recording: Recording, mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    observation = make_step(mini).observation
    observation["proprio"][mini.proprio_index("linear_vel")] = 0.4
    observation["proprio"][mini.proprio_index("min_forward_dist")] = 0.8
    recording.episode("ours", "ours", "ours", observation=observation, command=Command((0.0, 0.0), ("distance",)))
    (drive,) = recording.drives()
    steps = [recording.journal.read(position) for position in range(3)]
    assert drive.score == pytest.approx(sum(step.record.reward for step in steps))
    assert drive.distance_m == pytest.approx(3 * 0.4 / mini.rates.control_hz)
    assert drive.clearance_m == pytest.approx(0.8)
    assert (drive.gated, drive.collided, drive.taken_over) == (3, False, False)


def test_a_collision_is_the_policys_only_if_it_drove(recording: Recording) -> None:
    recording.episode("ours", "ours", ended="terminated")
    recording.episode("ours", "human", ended="terminated")
    assert [(drive.collided, drive.taken_over) for drive in recording.drives()] == [(True, False), (False, True)]


def test_what_a_human_earned_is_not_the_policys(recording: Recording) -> None:
    recording.episode("ours", "human", "human")
    (drive,) = recording.drives()
    assert drive.taken_over
    assert drive.score == pytest.approx(recording.journal.read(0).record.reward)


@pytest.mark.parametrize(
    ("drivers", "lost"),
    [
        pytest.param(("ours", "exploring", "ours"), None, id="it explored"),
        pytest.param(("ours", "other", "ours"), None, id="swapped in between"),
        pytest.param(("other", "other"), None, id="another policy"),
        pytest.param(("ours", "scripted"), None, id="a script helped"),
        pytest.param(("human", "human"), None, id="only a human drove"),
        pytest.param(("ours", "ours", "ours"), 0, id="the first step is missing"),
        pytest.param(("ours", "ours", "ours"), 1, id="a step is missing"),
        pytest.param(("ours", "ours", "ours"), 2, id="the last step is missing"),
    ],
)
def test_an_episode_that_says_nothing_about_the_policy_is_left_out(
    drivers: tuple[str, ...], lost: int | None, recording: Recording
) -> None:
    recording.episode("ours", "ours")
    recording.episode(*drivers, lost=lost)
    assert len(recording.drives()) == 1
    recording.episode("ours", "ours")
    assert len(recording.drives()) == 2


def test_an_episode_that_still_runs_is_left_out(recording: Recording) -> None:
    recording.episode("ours", "ours", ended="")
    assert recording.drives() == ()


def test_a_gap_that_robots_report_ends_an_episode(recording: Recording) -> None:
    recording.episode("ours", gap=True)  # before the episode: nothing of it is missing
    recording.episode("ours", "ours", gap=True)
    assert len(recording.drives()) == 1
