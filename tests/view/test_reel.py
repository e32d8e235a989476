"""Numbers of a step by hand, and bounds that hold however long an episode is."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Action, Behaviour, Command, Stamps, Step
from policyloop.link.journal import Journal
from policyloop.view.episodes import find_episode
from policyloop.view.pictures import Pictures
from policyloop.view.reel import Reel, load_reel

Record = Callable[[list[Step]], Journal]
MS = 1_000_000


def reel_of(journal: Journal, **bounds: int) -> Reel:
    return load_reel(journal, find_episode(journal)[1], **bounds)


def test_a_step_is_shown_as_it_was(record: Record, mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    behaviour = Behaviour(
        mean=(0.5, -1.0),
        log_std=(math.log(0.5), 0.0),
        sample=(0.6, -1.1),
        log_prob=-2.0,
        policy_version=7,
        policy_digest="ab" * 32,
        backend="rknn",
    )
    step = make_step(
        mini,
        3,
        action=Action((0.1, -0.2), "policy", behaviour),
        command=Command((0.05, -0.2), ("obstacle", "slew")),
        stamps=Stamps(1000 * MS, 1004 * MS, 1005 * MS),
        reward_terms={"forward": 0.25, "time": -0.01},
        intervention="start",
        gap=True,
    )
    (shot,) = reel_of(record([step])).shots
    assert (shot.index, shot.time_s, shot.source, shot.version, shot.backend) == (3, 0.0, "policy", 7, "rknn")
    assert (shot.proposed, shot.commanded, shot.reasons) == ([0.1, -0.2], [0.05, -0.2], ("obstacle", "slew"))
    assert (shot.inferred_ms, shot.acted_ms) == (4.0, 5.0)
    assert shot.reward == {"forward": 0.25, "time": -0.01}
    assert shot.events == ["gap", "intervention: start"]
    linear, angular = mini.action
    middle, half = (linear.low + linear.high) / 2, (linear.high - linear.low) / 2
    assert shot.mean[0] == pytest.approx(middle + half * math.tanh(0.5), abs=1e-5)
    assert shot.low[0] == pytest.approx(middle, abs=1e-5)  # one standard deviation of 0.5 below 0.5
    assert shot.high[0] == pytest.approx(middle + half * math.tanh(1.0), abs=1e-5)
    assert shot.high[1] == pytest.approx((angular.low + angular.high) / 2, abs=1e-5)


def test_a_humans_step_has_no_density(record: Record, mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    (shot,) = reel_of(record([make_step(mini, 0, source="human")])).shots
    assert (shot.mean, shot.low, shot.high, shot.version, shot.digest) == ([], [], [], 0, "")


def test_pictures_are_those_of_the_journal(record: Record, make_step: Callable[..., Step]) -> None:
    rover = load_profile("rover")
    journal = record([make_step(rover, 0)], rover)
    shown = simplejpeg.decode_jpeg(base64.b64decode(reel_of(journal).rgb[0]), fastdct=False)
    assert np.array_equal(shown, journal.read(0).observation["rgb"])


def test_raw_pictures_become_jpeg(record: Record, mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    journal = record([make_step(mini, 0)])
    shown = simplejpeg.decode_jpeg(base64.b64decode(reel_of(journal).rgb[0]))
    assert np.abs(shown.astype(int) - journal.read(0).observation["rgb"]).mean() < 8


def test_every_other_picture_goes_when_the_budget_is_used_up() -> None:
    pictures = Pictures(budget_bytes=10_000)
    rgb = depth = np.zeros((36, 64, 3), np.uint8)
    kept = []
    for index in range(100):
        if pictures.wants(index):
            kept.append(index)
            pictures.add(rgb, rgb.tobytes(), depth)
    assert pictures.size_bytes <= 10_000
    assert len(pictures.rgb) == len(pictures.depth) == -(-100 // pictures.stride)
    assert pictures.stride & (pictures.stride - 1) == 0
    none = Pictures(budget_bytes=10)
    none.add(rgb, rgb.tobytes(), depth)
    assert (none.rgb, none.depth, none.size_bytes) == ([], [], 0)


def test_a_long_episode_is_thinned_evenly(record: Record, mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    journal = record([make_step(mini, sequence) for sequence in range(50)])
    reel = reel_of(journal, most_shots=20, picture_bytes=20_000)
    assert (reel.steps, reel.stride) == (50, 3)
    assert [shot.index for shot in reel.shots] == list(range(0, 50, 3))
    assert sum(map(len, [*reel.rgb, *reel.depth])) <= 20_000
    assert reel.picture_stride > 1
    assert [shot.picture for shot in reel.shots] == [
        min(place // reel.picture_stride, len(reel.rgb) - 1) for place in range(len(reel.shots))
    ]


def test_damaged_steps_are_left_out_and_counted(
    record: Record, mini: RobotProfile, make_step: Callable[..., Step], tmp_path: Path
) -> None:
    journal = record([make_step(mini, sequence) for sequence in range(10)])
    episode = find_episode(journal)[1]
    (segment,) = (tmp_path / "journal").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    reel = load_reel(journal, episode)
    assert (reel.damaged, len(reel.shots), reel.steps) == (1, 9, 10)


def test_a_robot_without_a_camera_has_no_pictures(
    record: Record, walker: RobotProfile, make_step: Callable[..., Step]
) -> None:
    reel = reel_of(record([make_step(walker, 0)], walker))
    assert (reel.rgb, reel.shots[0].picture) == ([], -1)
    assert [name for name, _ in reel.quantities][:2] == ["joints 0", "joints 1"]
    assert len(reel.actions) == 3
