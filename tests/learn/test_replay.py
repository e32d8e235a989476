"""What becomes a transition, what it holds, and what a full replay forgets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.spec import ArraySpec
from policyloop.core.step import Step
from policyloop.learn.inputs import input_specs, learner_inputs
from policyloop.learn.replay import Replay, ReplayFeed, Transitions, state_bytes
from policyloop.link.journal import Journal

Drive = Callable[..., Step]
Write = Callable[..., Journal]


def everything(replay: Replay) -> list[tuple[float, float, tuple[float, ...], float, float]]:
    """Return (tag, next tag, shares, reward, future) of every transition, in the order of their tags."""
    drawn = replay.draw(100 * len(replay), torch.Generator().manual_seed(0))
    return sorted({row(drawn, index) for index in range(len(drawn.reward))})


def row(batch: Transitions, index: int) -> tuple[float, float, tuple[float, ...], float, float]:
    return (
        round(float(batch.features["proprio"][index, 3]), 4),
        round(float(batch.next_features["proprio"][index, 3]), 4),
        tuple(round(share, 4) for share in batch.shares[index].tolist()),
        round(float(batch.reward[index]), 4),
        float(batch.future[index]),
    )


@pytest.fixture
def feed_of(blind: RobotProfile, write_journal: Write) -> Callable[..., ReplayFeed]:
    def make(steps: list[Step], *, online_from: int = 0, penalty: float = 0.0, capacity: int = 1000) -> ReplayFeed:
        feed = ReplayFeed(
            write_journal(blind, steps),
            blind.nominal_normalizer,
            capacity=capacity,
            online_from=online_from,
            reward={"override": 0.0},
            takeover_penalty=penalty,
        )
        feed.advance(until_fresh=10_000)
        return feed

    return make


def test_a_step_and_its_successor_make_a_transition(feed_of: Callable[..., ReplayFeed], drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1, seen=(0.4, -0.2, 2.0, 0.001)), drive(2, seen=(0.1, 0.0, 2.0, 0.002))])
    # 2 v - |w| / 2 - 0.01 of what followed; the last step waits for its successor
    assert everything(feed.online) == [
        (0.0, 0.001, (0.5, 0.125), round(0.8 - 0.1 - 0.01, 4), 1.0),
        (0.001, 0.002, (0.5, 0.125), round(0.2 - 0.01, 4), 1.0),
    ]
    assert len(feed.demonstrations) == 0
    assert feed.ledger == {"trained": 3}


def test_what_was_executed_is_learned_from_not_what_was_proposed(
    feed_of: Callable[..., ReplayFeed], drive: Drive
) -> None:
    feed = feed_of([drive(0, proposed=(0.5, 0.5), done=(0.1, -1.0)), drive(1)])
    assert everything(feed.online)[0][2] == (0.1, -0.5)


def test_a_collision_has_no_future_and_a_time_limit_has_one(feed_of: Callable[..., ReplayFeed], drive: Drive) -> None:
    feed = feed_of(
        [
            drive(0, end="terminated", final=(0.0, 0.0, 0.1, 0.5)),
            drive(1, episode=1, index=0, end="truncated", final=(0.0, 0.0, 2.0, 0.6)),
        ]
    )
    assert [(tag, following, reward, future) for tag, following, _, reward, future in everything(feed.online)] == [
        (0.0, 0.5, -10.01, 0.0),
        (0.001, 0.6, -0.01, 1.0),
    ]


def test_nothing_is_carried_across_a_gap_an_episode_or_another_robot(
    feed_of: Callable[..., ReplayFeed], drive: Drive
) -> None:
    feed = feed_of(
        [
            drive(0),
            drive(2, gap=True),  # 1 never came
            drive(3, episode=1, index=0),
            drive(4, robot="other", episode=1, index=1),
        ]
    )
    assert len(feed.online) == 0
    assert feed.ledger == {"trained": 2, "gap": 2}


def test_an_end_of_which_no_final_observation_is_known(feed_of: Callable[..., ReplayFeed], drive: Drive) -> None:
    feed = feed_of([drive(0, end="terminated", final=None), drive(1, episode=1, index=0, end="truncated", final=None)])
    # the collision is worth -10 whatever was seen; nothing is known of what the time limit cut off
    ((tag, _, _, reward, future),) = everything(feed.online)
    assert (tag, reward, future) == (0.0, -10.01, 0.0)
    assert feed.ledger == {"trained": 1, "gap": 1}


def test_demonstrations_stand_apart_and_interventions_in_both(feed_of: Callable[..., ReplayFeed], drive: Drive) -> None:
    steps = [
        drive(0, source="scripted"),
        drive(1, source="scripted", end="truncated", final=(0, 0, 2, 0.9)),
        drive(2, episode=1, index=0),
        drive(3, episode=1, index=1, source="human"),
        drive(4, episode=1, index=2),
        drive(5, episode=1, index=3),
    ]
    feed = feed_of(steps, online_from=2)
    tags = [tag for tag, *_ in everything(feed.demonstrations)]
    assert tags == [0.0, 0.001, 0.003]
    assert [(tag, following) for tag, following, *_ in everything(feed.online)] == [
        (0.002, 0.003),
        (0.003, 0.004),
        (0.004, 0.005),
    ]
    assert feed.ledger == {"demonstration": 3, "trained": 3}
    assert feed.interventions == 1
    assert feed.fresh == 4


def test_being_taken_over_costs_the_step_before(feed_of: Callable[..., ReplayFeed], drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1, source="human"), drive(2, source="human"), drive(3)], penalty=1.0)
    rewards = {tag: reward for tag, _, _, reward, _ in everything(feed.online)}
    assert rewards == {0.0: -1.01, 0.001: -0.01, 0.002: -0.01}


SPECS = {"proprio": ArraySpec(name="proprio", shape=(4,), dtype="float32")}


def test_a_full_replay_forgets_the_oldest_and_what_waited_too_long() -> None:
    replay = Replay(4, SPECS, actions=2)

    def state(tag: float) -> dict[str, np.ndarray]:
        return {"proprio": np.array([0, 0, 0, tag], np.float32)}

    shares = np.zeros(2, np.float32)
    slow = replay.store(state(0.0))
    numbers = [replay.store(state(tag)) for tag in (1.0, 2.0, 3.0, 4.0, 5.0)]
    for first, second in pairwise(numbers):
        replay.connect(first, shares, 1.0, second, final=False)
    replay.connect(slow, shares, 99.0, numbers[-1], final=False)  # it had to give way: must not overwrite another
    assert [(tag, following) for tag, following, *_ in everything(replay)] == [(2.0, 3.0), (3.0, 4.0), (4.0, 5.0)]
    assert all(reward == 1.0 for *_, reward, _ in everything(replay))


def test_a_replay_of_many_states_loses_none() -> None:
    replay, shares = Replay(5000, SPECS, actions=2), np.ones(2, np.float32)
    last = replay.store({"proprio": np.array([0, 0, 0, 0], np.float32)})
    for index in range(1, 3000):
        now = replay.store({"proprio": np.array([0, 0, 0, index], np.float32)})
        replay.connect(last, shares, float(index), now, final=False)
        last = now
    assert len(replay) == 2999
    drawn = replay.draw(500, torch.Generator().manual_seed(1))
    assert torch.equal(drawn.features["proprio"][:, 3] + 1, drawn.next_features["proprio"][:, 3])
    assert torch.equal(drawn.reward, drawn.next_features["proprio"][:, 3])


def test_damage_is_counted_and_breaks_the_chain(blind: RobotProfile, drive: Drive, write_journal: Write) -> None:
    journal = write_journal(blind, [drive(0), [b"nonsense"], drive(2, index=2)])
    feed = ReplayFeed(journal, blind.nominal_normalizer, capacity=10, online_from=0)
    assert not feed.advance(until_fresh=10)
    assert feed.ledger == {"trained": 1, "gap": 1, "damaged": 1}
    assert feed.read == 3


def test_reading_stops_when_enough_is_fresh(blind: RobotProfile, drive: Drive, write_journal: Write) -> None:
    feed = ReplayFeed(
        write_journal(blind, [drive(i) for i in range(9)]), blind.nominal_normalizer, capacity=10, online_from=0
    )
    assert feed.advance(until_fresh=4)
    assert (feed.read, feed.fresh) == (4, 4)
    feed.fresh = 0
    assert not feed.advance(until_fresh=6)
    assert feed.fresh == 5


def test_the_size_of_a_state_by_hand(blind: RobotProfile) -> None:
    # four numbers seen, two of an action, reward, future, and where the next state is
    assert state_bytes(input_specs(blind), 2) == 4 * 4 + 2 * 4 + 4 + 4 + 8
    # 424 x 240 pixels in three colours and depth, 32 distances, six numbers
    rover = load_profile("rover")
    assert state_bytes(input_specs(rover), 2) == 4 * 424 * 240 + 32 * 4 + 6 * 4 + 24 == 407_216


def test_states_are_what_the_specs_say(
    blind: RobotProfile, mini: RobotProfile, drive: Drive, make_step: Callable[..., Step]
) -> None:
    for profile, step in ((blind, drive(0)), (mini, make_step(mini, 0))):
        inputs, specs = learner_inputs(profile, profile.nominal_normalizer, step.observation), input_specs(profile)
        assert [(name, array.shape, str(array.dtype)) for name, array in inputs.items()] == [
            (name, spec.shape, spec.dtype) for name, spec in specs.items()
        ]
