"""Journal -> traces: where they begin and end, what they hold, and where every step ends up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.learn.demonstrations import Demonstrations, load_demonstrations, newest_demonstrations
from policyloop.learn.feed import Feed, FeedState
from policyloop.learn.inputs import learner_inputs, scan
from policyloop.learn.networks import SCAN_COLUMNS, make_network
from policyloop.learn.rollout import Rollout, Trace, vtrace
from policyloop.link.journal import Journal
from policyloop.link.segment_log import SegmentLog
from policyloop.wire.codec import encode_step, join_frames

Record = Step | list[bytes]
Drive = Callable[..., Step]
FeedOf = Callable[..., Feed]
Write = Callable[..., Journal]

NO_STEP = [b"this is no step"]
FINAL = 4000
"""Tag of a final observation."""


@pytest.fixture
def feed_of(blind: RobotProfile, write_journal: Write) -> FeedOf:
    def build(records: Sequence[Record], *, max_staleness: int = 2) -> Feed:
        return Feed(write_journal(blind, records), blind.nominal_normalizer, max_staleness=max_staleness)

    return build


@pytest.fixture
def growing(blind: RobotProfile, tmp_path: Path) -> Iterator[Journal]:
    """A journal that is still written to."""
    journal = Journal(tmp_path / "growing", blind, writable=True)
    yield journal
    journal.close()


def append(journal: Journal, *records: Record) -> None:
    for record in records:
        journal.append(encode_step(record, journal.profile) if isinstance(record, Step) else record)


def tags(trace: Trace) -> list[int]:
    """Return the tags of a trace's states, the last being the state behind its last step."""
    return [round(1000 * float(row[3])) for row in trace.features["proprio"]]


def read_all(feed: Feed, version: int = 1) -> list[Trace]:
    assert not feed.advance(version, 1_000_000)
    return feed.take()


# -- what a trace is --------------------------------------------------------------------------


def test_an_episode_that_terminated_is_one_trace(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1), drive(2, end="terminated")])
    (trace,) = read_all(feed)
    assert trace.terminated
    assert len(trace) == 3
    assert tags(trace) == [0, 1, 2, FINAL]
    assert feed.ledger == {"trained": 3}


def test_an_episode_that_was_truncated_ends_in_its_final_observation(feed_of: FeedOf, drive: Drive) -> None:
    (trace,) = read_all(feed_of([drive(0), drive(1, end="truncated", final=(0.1, 0.2, 1.0, 3.5))]))
    assert not trace.terminated
    assert trace.features["proprio"][-1].tolist() == pytest.approx([0.1, 0.2, 1.0, 3.5])


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_only_a_truncated_episode_has_a_future(end: str, feed_of: FeedOf, drive: Drive, blind: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network("mlp", blind)
    final = (0.3, -0.1, 1.5, 4.0)
    (trace,) = read_all(feed_of([drive(0), drive(1, end=end, final=final)]))
    rollout = Rollout.build(
        [trace], network, gamma=0.9, lam=0.8, reward_scale=1.0, device=torch.device("cpu"), correct_lag=False
    )
    with torch.no_grad():
        value = network.value({"proprio": torch.tensor([[0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 2.0, 0.001], final])}).numpy()
    assert abs(value[2]) > 1e-3
    last = 0.0 if end == "terminated" else float(value[2])
    expected, _ = vtrace(trace.reward, value[:2], last, np.ones(2, np.float32), gamma=0.9, lam=0.8)
    assert rollout.advantage.numpy() == pytest.approx(expected, abs=1e-6)


def test_rewards_are_recomputed_from_the_observation_that_followed(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of(
        [
            drive(0, seen=(0.9, 0.9, 2.0, 0.0), proposed=(0.5, 0.5), done=(0.1, 0.5)),
            drive(1, seen=(0.4, -0.2, 2.0, 0.0), proposed=(0.5, 0.5), done=(0.5, -0.5)),
            drive(2, seen=(0.1, 0.6, 2.0, 0.0), end="terminated", final=(0.0, 0.2, 0.1, 0.0)),
        ]
    )
    (trace,) = read_all(feed)
    # 2 v - |w| / 2 - share taken away - 0.01, and -10 for the collision; the ranges are 2 m/s and 4 rad/s wide
    assert trace.reward.tolist() == pytest.approx(
        [
            2 * 0.4 - 0.5 * 0.2 - 0.4 / 2 - 0.01,
            2 * 0.1 - 0.5 * 0.6 - 1.0 / 4 - 0.01,
            2 * 0.0 - 0.5 * 0.2 - 10.0 - 0.01,
        ]
    )


def test_the_settings_replace_weights_of_the_profile_term_by_term(
    blind: RobotProfile, drive: Drive, write_journal: Write
) -> None:
    journal = write_journal(blind, [drive(0, end="terminated", final=(1.0, 0.0, 0.1, 0.0))])
    feed = Feed(journal, blind.nominal_normalizer, max_staleness=2, reward={"collision": -50.0})
    # forward 2 x 1, collision -50 instead of -10, time -0.01
    assert read_all(feed)[0].reward.tolist() == pytest.approx([2.0 - 50.0 - 0.01])


def test_a_real_rovers_training_reward_by_hand(
    mini: RobotProfile, make_step: Callable[..., Step], write_journal: Write
) -> None:
    first, second = make_step(mini, 0), make_step(mini, 1)
    proprio = second.observation["proprio"].copy()
    for name, value in (("linear_vel", 0.4), ("angular_vel", -0.2), ("min_forward_dist", 0.45)):
        proprio[mini.proprio_index(name)] = value
    second.observation["proprio"] = proprio
    feed = Feed(write_journal(mini, [first, second]), mini.nominal_normalizer, max_staleness=0)
    (trace,) = read_all(feed)
    # forward 2 * .4, spin -.5 * .2, closeness -1.5 * (.6 - .45) / .6, near -.5, time -.01
    assert trace.reward.tolist() == pytest.approx([0.8 - 0.1 - 0.375 - 0.5 - 0.01])


def test_only_the_last_step_of_a_terminated_trace_pays_for_the_collision(feed_of: FeedOf, drive: Drive) -> None:
    for end, paid in (("terminated", [False, False, True]), ("truncated", [False, False, False])):
        (trace,) = read_all(feed_of([drive(0), drive(1), drive(2, end=end)]))
        assert (trace.reward < -9).tolist() == paid


def test_a_trace_holds_what_the_robot_recorded(feed_of: FeedOf, drive: Drive) -> None:
    steps = [drive(0, proposed=(0.1, -0.4)), drive(1, proposed=(0.8, 0.4)), drive(2, end="terminated")]
    (trace,) = read_all(feed_of(steps))
    behaviours = [step.record.action.behaviour for step in steps]
    assert all(behaviour is not None for behaviour in behaviours)
    for name in ("sample", "log_prob", "mean", "log_std"):
        recorded = np.array([getattr(behaviour, name) for behaviour in behaviours])
        assert getattr(trace, name) == pytest.approx(recorded, abs=1e-6)


def test_pictures_and_scan_reach_the_trace(
    mini: RobotProfile, make_step: Callable[..., Step], write_journal: Write
) -> None:
    journal = write_journal(mini, [make_step(mini, 0), make_step(mini, 1, terminated=True)])
    (trace,) = read_all(Feed(journal, mini.nominal_normalizer, max_staleness=0))
    shapes = {name: (array.shape, array.dtype.name) for name, array in trace.features.items()}
    assert shapes == {
        "rgb": ((3, 3, 36, 64), "uint8"),
        "depth": ((3, 1, 36, 64), "uint8"),
        "proprio": ((3, 6), "float32"),
        "scan": ((3, SCAN_COLUMNS), "float32"),
    }
    stored = journal.read(1)
    assert stored.final_observation is not None
    for row, arrays in ((1, stored.observation), (2, stored.final_observation)):
        for name, array in learner_inputs(mini, mini.nominal_normalizer, arrays).items():
            assert np.array_equal(trace.features[name][row], array)


def test_the_scan_is_near_over_nearest_per_sector(mini: RobotProfile) -> None:
    depth = np.zeros((36, 64), np.uint16)
    depth[:, 0:2] = 500  # one sector is two columns
    depth[:, 2] = 1000
    depth[:, 3] = 2000
    depth[:, 4:6] = 100  # nearer than near
    assert scan(depth, mini)[:4].tolist() == pytest.approx([0.25 / 0.5, 0.25 / 1.0, 1.0, 0.0])
    assert scan(depth, mini).shape == (SCAN_COLUMNS,)


# -- where a trace ends -----------------------------------------------------------------------


def test_a_gap_never_joins_two_traces(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1), drive(2), drive(5, gap=True), drive(6, end="terminated")])
    before, after = read_all(feed)
    # nobody saw what followed step 2: it is no step to learn from, but its state ends the trace
    assert tags(before) == [0, 1, 2]
    assert not before.terminated
    assert tags(after) == [5, 6, FINAL]
    assert feed.ledger == {"trained": 4, "gap": 1}


def test_steps_that_are_missing_without_notice_never_join_two_traces(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1), drive(3), drive(4, end="truncated")])
    assert [tags(trace) for trace in read_all(feed)] == [[0, 1], [3, 4, FINAL]]
    assert feed.ledger == {"trained": 3, "gap": 1}


def test_a_gap_mark_alone_separates(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1), drive(2, gap=True), drive(3, end="terminated")])
    assert [tags(trace) for trace in read_all(feed)] == [[0, 1], [2, 3, FINAL]]


def test_an_episode_that_broke_off_is_not_joined_to_the_next(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1), drive(2, episode=1, index=0), drive(3, episode=1, index=1, end="terminated")])
    assert [tags(trace) for trace in read_all(feed)] == [[0, 1], [2, 3, FINAL]]


def test_a_restarted_robot_is_another_stream(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1), drive(0, boot="b1"), drive(1, boot="b1", end="terminated")])
    traces = read_all(feed)
    assert sorted(tags(trace) for trace in traces) == [[0, 1], [0, 1, FINAL]]
    assert feed.ledger == {"trained": 3}  # the last step of the first boot may still get a successor


def test_a_take_over_cuts_the_trace_at_the_state_that_the_human_took_over(feed_of: FeedOf, drive: Drive) -> None:
    human = [drive(2, source="human"), drive(3, source="human")]
    feed = feed_of([drive(0), drive(1), *human, drive(4), drive(5, end="terminated")])
    before, after = read_all(feed)
    assert tags(before) == [0, 1, 2]
    assert not before.terminated
    assert tags(after) == [4, 5, FINAL]
    assert feed.ledger == {"trained": 4, "demonstration": 2}


def test_the_reward_of_the_last_step_before_a_take_over_is_what_the_human_found(feed_of: FeedOf, drive: Drive) -> None:
    (trace,) = read_all(feed_of([drive(0), drive(1, source="human", seen=(0.7, 0.0, 2.0, 0.0))]))
    assert trace.reward.tolist() == pytest.approx([2 * 0.7 - 0.01])


def test_random_driving_is_not_learned_from(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0, source="random"), drive(1, source="random", end="terminated")])
    assert read_all(feed) == []
    assert feed.ledger == {"other": 2}


def test_a_step_that_was_not_drawn_has_no_density_and_cuts_the_trace(feed_of: FeedOf, drive: Drive) -> None:
    step = drive(1)
    assert step.record.action.behaviour is not None
    bare = msgspec.structs.replace(step.record.action.behaviour, drawn=False)
    action = msgspec.structs.replace(step.record.action, behaviour=bare)
    step = msgspec.structs.replace(step, record=msgspec.structs.replace(step.record, action=action))
    feed = feed_of([drive(0), step, drive(2), drive(3, end="terminated")])
    assert [tags(trace)[:-1] for trace in read_all(feed)] == [[0], [2, 3]]
    assert feed.ledger == {"trained": 3, "undrawn": 1}


def test_demonstrations_are_named_once_each_also_after_a_restart(
    blind: RobotProfile, drive: Drive, write_journal: Write
) -> None:
    sources = ("scripted", "policy", "human", "policy", "human")
    journal = write_journal(blind, [drive(i, source=source) for i, source in enumerate(sources)])
    feed = Feed(journal, blind.nominal_normalizer, max_staleness=2)
    assert feed.advance(1, 1)
    assert feed.demonstrations == [0, 2]
    again = Feed(journal, blind.nominal_normalizer, max_staleness=2, state=feed.state)
    read_all(again)
    assert again.demonstrations == [4]


def test_steps_of_an_old_policy_never_enter(feed_of: FeedOf, drive: Drive) -> None:
    steps = [drive(0, version=3), drive(1, version=4), drive(2, version=5), drive(3, version=3), drive(4, version=7)]
    feed = feed_of(steps, max_staleness=2)
    traces = read_all(feed, version=6)
    # lags 3, 2, 1, 3, -1: the fourth step cuts the trace at its own state
    assert [tags(trace) for trace in traces] == [[1, 2, 3]]
    assert feed.ledger == {"trained": 2, "too-old": 2}


def test_without_tolerance_only_the_newest_policy_enters(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0, version=1), drive(1, version=2), drive(2, version=2, end="terminated")], max_staleness=0)
    assert [tags(trace) for trace in read_all(feed, version=2)] == [[1, 2, FINAL]]
    assert feed.ledger == {"too-old": 1, "trained": 2}


def test_a_step_that_grew_too_old_while_it_waited_does_not_enter(growing: Journal, drive: Drive) -> None:
    feed = Feed(growing, growing.profile.nominal_normalizer, max_staleness=0)
    append(growing, drive(0), drive(1))
    assert [tags(trace) for trace in read_all(feed, version=1)] == [[0, 1]]
    append(growing, drive(2, version=2), drive(3, version=2, end="terminated"))
    assert [tags(trace) for trace in read_all(feed, version=2)] == [[2, 3, FINAL]]


def test_an_ended_step_without_final_observation_cannot_be_valued(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1), drive(2, end="terminated", final=None), drive(3, episode=1, index=0)])
    (trace,) = read_all(feed)
    assert tags(trace) == [0, 1, 2]
    assert not trace.terminated
    assert feed.ledger == {"trained": 2, "gap": 1}


def test_interleaved_robots_are_kept_apart(feed_of: FeedOf, drive: Drive) -> None:
    steps = []
    for i in range(4):
        end = "terminated" if i == 3 else ""
        steps.append(drive(i, robot="a", end=end))
        steps.append(drive(10 + i, robot="b", index=i, episode=7, end=end))
    feed = feed_of(steps)
    assert [tags(trace) for trace in read_all(feed)] == [[0, 1, 2, 3, FINAL], [10, 11, 12, 13, FINAL]]
    assert feed.ledger == {"trained": 8}


def test_one_robots_gap_does_not_cut_anothers_trace(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of(
        [
            drive(0, robot="a"),
            drive(10, robot="b", index=0),
            drive(3, robot="a", gap=True),
            drive(11, robot="b", index=1),
            drive(4, robot="a", end="terminated"),
            drive(12, robot="b", index=2, end="terminated"),
        ]
    )
    assert sorted(tags(trace) for trace in read_all(feed)) == [[3, 4, FINAL], [10, 11, 12, FINAL]]


# -- rollouts ---------------------------------------------------------------------------------


def test_advance_reads_no_further_than_it_must(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(i, end="truncated" if i % 5 == 4 else "") for i in range(20)])
    assert feed.advance(1, 5)
    assert feed.ready == 5
    assert feed.advance(1, 5)
    assert [tags(trace) for trace in feed.take()] == [[0, 1, 2, 3, 4, FINAL]]
    assert feed.ledger == {"trained": 5}
    assert feed.state.position == 5


def test_advance_tells_whether_there_is_enough(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1, end="terminated")])
    assert feed.advance(1, 2)
    assert not feed.advance(1, 3)
    assert len(feed.take()) == 1
    assert not feed.advance(1, 1)
    assert feed.take() == []


def test_take_keeps_the_last_step_of_an_open_trace_for_the_next_rollout(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([*(drive(i) for i in range(11)), drive(11, end="terminated")])
    taken = []
    while feed.advance(1, 4):
        taken += [tags(trace) for trace in feed.take()]
    taken += [tags(trace) for trace in feed.take()]
    assert len(taken) >= 3
    assert [trace[-1] for trace in taken] == [*(trace[0] for trace in taken[1:]), FINAL]
    assert [tag for trace in taken for tag in trace[:-1]] == list(range(12))
    assert feed.ledger == {"trained": 12}


def test_a_human_after_a_rollout_ends_what_was_kept(growing: Journal, drive: Drive) -> None:
    feed = Feed(growing, growing.profile.nominal_normalizer, max_staleness=0)
    append(growing, drive(0), drive(1))
    assert [tags(trace) for trace in read_all(feed)] == [[0, 1]]
    append(growing, drive(2, source="human"))
    assert [tags(trace) for trace in read_all(feed)] == [[1, 2]]
    assert feed.ledger == {"trained": 2, "demonstration": 1}


def test_what_is_ready_can_be_taken(feed_of: FeedOf, drive: Drive) -> None:
    robots = [drive(i, robot=f"r{robot}") for i in range(3) for robot in range(4)]
    feed = feed_of(robots)
    assert feed.advance(1, 4)
    assert sum(len(trace) for trace in feed.take()) >= 4


# -- damage -----------------------------------------------------------------------------------


def test_a_damaged_record_is_counted_and_separates(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of([drive(0), drive(1), NO_STEP, drive(3), drive(4, end="terminated")])
    assert [tags(trace) for trace in read_all(feed)] == [[0, 1], [3, 4, FINAL]]
    assert feed.ledger == {"trained": 3, "gap": 1, "damaged": 1}


def test_a_step_of_another_profile_is_damage(
    feed_of: FeedOf, drive: Drive, mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    foreign = encode_step(make_step(mini), mini)
    feed = feed_of([foreign, drive(0), drive(1, end="terminated")])
    assert [tags(trace) for trace in read_all(feed)] == [[0, 1, FINAL]]
    assert feed.ledger == {"damaged": 1, "trained": 2}


def test_records_that_rotted_on_disk_are_counted_and_the_rest_is_read(
    blind: RobotProfile, drive: Drive, tmp_path: Path
) -> None:
    Journal(tmp_path, blind, writable=True).close()
    log = SegmentLog(tmp_path, writable=True, segment_bytes=1)  # a segment for every record
    for i in range(6):
        log.append(join_frames(encode_step(drive(i, end="terminated" if i == 5 else ""), blind)))
    log.close()
    rotten = sorted(tmp_path.glob("*.seg"))[2]
    rotten.write_bytes(rotten.read_bytes()[:-1] + b"\xff")
    journal = Journal(tmp_path)
    try:
        feed = Feed(journal, blind.nominal_normalizer, max_staleness=0)
        assert [tags(trace) for trace in read_all(feed)] == [[0, 1], [3, 4, 5, FINAL]]
        assert feed.ledger == {"trained": 4, "gap": 1, "damaged": 1}
    finally:
        journal.close()


# -- the ledger -------------------------------------------------------------------------------


def random_records(drive: Drive, seed: int, robots: int, length: int) -> Iterator[Record]:
    """Yield steps with everything that may happen to them; each step's tag is its position."""
    rng = np.random.default_rng(seed)
    state = {f"r{i}": [0, 0, 0] for i in range(robots)}  # sequence, episode, index
    for position in range(length):
        if rng.random() < 0.03:
            yield NO_STEP
            continue
        robot = f"r{rng.integers(robots)}"
        sequence, episode, index = state[robot]
        lost = int(rng.integers(1, 3)) if rng.random() < 0.06 else 0
        sequence, index = sequence + lost, index + lost
        ended = rng.choice(["", "terminated", "truncated"], p=[0.88, 0.06, 0.06])
        yield drive(
            sequence,
            robot=robot,
            episode=episode,
            index=index,
            source=rng.choice(["policy", "human", "scripted", "random"], p=[0.85, 0.07, 0.05, 0.03]).item(),
            version=1 + position // 100 - int(rng.integers(0, 4)),
            seen=(0.0, 0.0, 2.0, position / 1000),
            end=str(ended),
            final=None if rng.random() < 0.2 else (0.0, 0.0, 2.0, FINAL / 1000),
            gap=lost > 0 and bool(rng.random() < 0.5),
        )
        broke_off = rng.random() < 0.03
        state[robot] = [sequence + 1, episode + 1, 0] if ended or broke_off else [sequence + 1, episode, index + 1]


def check_trace(trace: Trace, records: list[Record], version: int, max_staleness: int) -> list[int]:
    """Assert that a trace is what it claims to be; returns the positions of its steps."""
    *positions, last = tags(trace)
    steps = [records[position] for position in positions]
    assert len(steps) == len(trace) > 0
    kept = [step.record for step in steps if isinstance(step, Step)]
    assert len(kept) == len(steps)
    for record in kept:
        assert record.action.source == "policy"
        assert record.action.behaviour is not None
    for record in kept[1:]:
        assert not record.gap
        assert record.action.behaviour is not None
        assert version - record.action.behaviour.policy_version <= max_staleness
    keys = {(record.robot, record.boot, record.episode) for record in kept}
    assert len(keys) == 1
    assert [record.index for record in kept] == list(range(kept[0].index, kept[0].index + len(kept)))
    if last == FINAL:
        assert kept[-1].ended
        assert trace.terminated == kept[-1].terminated
    else:
        assert not trace.terminated
        behind = records[last]
        assert isinstance(behind, Step)
        record = behind.record
        assert (record.robot, record.boot, record.episode, record.index, record.gap) == (
            *keys.pop(),
            kept[-1].index + 1,
            False,
        )
    return positions


@pytest.mark.parametrize("seed", range(8))
def test_every_step_that_is_read_is_in_exactly_one_bin(seed: int, growing: Journal, drive: Drive) -> None:
    records = list(random_records(drive, seed, robots=3, length=500))
    feed = Feed(growing, growing.profile.nominal_normalizer, max_staleness=2)
    trained: list[int] = []
    for version in range(1, 6):
        append(growing, *records[100 * version - 100 : 100 * version])
        for trace in read_all(feed, version):
            trained += check_trace(trace, records, version, max_staleness=2)
        waiting = growing.next - sum(feed.ledger.values())
        assert 0 <= waiting <= 3  # at most one step of each robot
    append(growing, *(drive(9999, robot=f"r{i}", source="human") for i in range(3)))  # nothing is waited for any more
    for trace in read_all(feed, 5):
        trained += check_trace(trace, records, 5, max_staleness=2)
    assert sum(feed.ledger.values()) == growing.next == 503
    assert len(trained) == len(set(trained)) == feed.ledger["trained"] > 100
    sources = [record.record.action.source for record in records if isinstance(record, Step)]
    assert feed.ledger["demonstration"] == 3 + sources.count("human") + sources.count("scripted")
    assert feed.ledger["other"] == sources.count("random")
    assert feed.ledger["damaged"] == sum(record is NO_STEP for record in records) > 0
    assert min(feed.ledger["gap"], feed.ledger["too-old"]) > 0


# -- going on after a restart -----------------------------------------------------------------


def described(traces: Sequence[Trace]) -> list[tuple[list[int], bool, list[float]]]:
    return [(tags(trace), trace.terminated, trace.reward.tolist()) for trace in traces]


def rollouts_without_and_with_restarts(
    journal: Journal, *, wanted: int, rounds: int, version_step: int = 0, max_staleness: int = 100
) -> tuple[Feed, Feed]:
    """Take the same rollouts from one feed and from one that is begun anew after each; assert they are equal."""
    normalizer = journal.profile.nominal_normalizer
    steady = Feed(journal, normalizer, max_staleness=max_staleness)
    state = FeedState()
    for number in range(rounds):
        restarted = Feed(journal, normalizer, max_staleness=max_staleness, state=state)
        version = 1 + version_step * number
        assert steady.advance(version, wanted) == restarted.advance(version, wanted)
        assert described(steady.take()) == described(restarted.take())
        assert steady.ledger == restarted.ledger
        state = restarted.state
    return steady, restarted


def test_a_restart_changes_nothing_for_one_robot(blind: RobotProfile, drive: Drive, write_journal: Write) -> None:
    records = list(random_records(drive, 3, robots=1, length=500))
    feed, _ = rollouts_without_and_with_restarts(write_journal(blind, records), wanted=40, rounds=8)
    assert feed.ledger["trained"] > 250


@pytest.mark.parametrize("seed", range(8))
def test_a_restart_changes_nothing_whatever_happened_to_the_steps(
    seed: int, blind: RobotProfile, drive: Drive, write_journal: Write
) -> None:
    records = list(random_records(drive, seed, robots=3, length=500))
    feed, _ = rollouts_without_and_with_restarts(
        write_journal(blind, records), wanted=17 + seed, rounds=20, version_step=1, max_staleness=12
    )
    assert feed.ledger["trained"] > 100


def test_a_restart_changes_nothing_for_two_robots(blind: RobotProfile, drive: Drive, write_journal: Write) -> None:
    steps = [drive(i, robot=robot) for i in range(40) for robot in ("a", "b")]
    rollouts_without_and_with_restarts(write_journal(blind, steps), wanted=15, rounds=4)


def test_a_restart_does_not_count_damage_twice(blind: RobotProfile, drive: Drive, write_journal: Write) -> None:
    other = [drive(i, robot="b") for i in range(12)]
    records: list[Record] = [drive(0, robot="a"), NO_STEP, *other]
    rollouts_without_and_with_restarts(write_journal(blind, records), wanted=5, rounds=3)


def test_a_restart_does_not_count_a_dropped_step_twice(blind: RobotProfile, drive: Drive, write_journal: Write) -> None:
    records = [
        drive(0, robot="a"),  # waits for its successor all the time
        *(drive(i, robot="b", end="terminated" if i == 2 else "", final=None) for i in range(3)),
    ]
    rollouts_without_and_with_restarts(write_journal(blind, records), wanted=10, rounds=2)


def test_a_restart_does_not_change_what_is_too_old(blind: RobotProfile, drive: Drive, write_journal: Write) -> None:
    steps = [drive(i, version=1 + i // 10) for i in range(40)]
    rollouts_without_and_with_restarts(
        write_journal(blind, steps), wanted=10, rounds=3, version_step=1, max_staleness=0
    )


def test_the_state_survives_json(blind: RobotProfile, drive: Drive, feed_of: FeedOf) -> None:
    feed = feed_of([drive(0), drive(1), drive(2)])
    read_all(feed)
    state = feed.state
    assert state.position == 2
    assert state.consumed == {"r0/b0": 1}
    assert state.ledger == {"trained": 2}
    assert msgspec.json.decode(msgspec.json.encode(state), type=FeedState) == state


# -- scores -----------------------------------------------------------------------------------


def test_episodes_that_the_policy_drove_alone_are_scored_by_the_robots_reward(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of(
        [
            drive(0, terms={"forward": 1.0, "time": -0.25}),
            drive(1, terms={"forward": 2.0, "time": -0.25}, end="terminated"),
            drive(2, episode=1, index=0, terms={"forward": 4.0}, end="truncated"),
        ]
    )
    read_all(feed)
    first, second = feed.scores.finished
    assert (first.score, first.steps, first.collided) == (2.5, 2, True)
    assert first.terms == {"forward": 3.0, "time": -0.5}
    assert (second.score, second.steps, second.collided) == (4.0, 1, False)


def test_an_episode_with_a_take_over_or_a_gap_is_not_scored(feed_of: FeedOf, drive: Drive) -> None:
    feed = feed_of(
        [
            drive(0),
            drive(1, source="human"),
            drive(2, end="terminated"),
            drive(3, episode=1, index=0),
            drive(5, episode=1, index=2, gap=True, end="terminated"),
        ]
    )
    read_all(feed)
    assert feed.scores.finished == []


# -- demonstrations ---------------------------------------------------------------------------


def load_all(journal: Journal) -> Demonstrations:
    positions = newest_demonstrations(journal, stop=journal.next)
    return load_demonstrations(journal, journal.profile.nominal_normalizer, positions)


def test_the_label_is_what_the_teacher_proposed_not_what_a_disturbance_made_of_it(
    blind: RobotProfile, drive: Drive, write_journal: Write
) -> None:
    journal = write_journal(
        blind,
        [
            drive(0, source="scripted", proposed=(0.5, 0.25), done=(-0.9, 1.5)),
            drive(1, source="human", proposed=(-0.25, 0.75), done=(0.0, 0.0)),
        ],
    )
    demonstrations = load_all(journal)
    assert demonstrations.actions.tolist() == [[0.5, 0.25], [-0.25, 0.75]]
    assert demonstrations.features["proprio"][:, 3].tolist() == pytest.approx([0.0, 0.001])


def test_only_teachers_are_demonstrators(blind: RobotProfile, drive: Drive, write_journal: Write) -> None:
    sources = ("policy", "human", "random", "scripted", "policy")
    journal = write_journal(blind, [drive(i, source=source) for i, source in enumerate(sources)])
    demonstrations = load_all(journal)
    assert demonstrations.features["proprio"][:, 3].tolist() == pytest.approx([0.001, 0.003])


def test_the_newest_demonstrations_before_a_position_are_taken_in_order(
    blind: RobotProfile, drive: Drive, write_journal: Write
) -> None:
    journal = write_journal(blind, [drive(i, source="human") for i in range(10)])
    newest = newest_demonstrations(journal, stop=8, limit=3)
    demonstrations = load_demonstrations(journal, blind.nominal_normalizer, newest)
    assert demonstrations.features["proprio"][:, 3].tolist() == pytest.approx([0.005, 0.006, 0.007])


def test_a_journal_without_demonstrations_gives_none(blind: RobotProfile, drive: Drive, write_journal: Write) -> None:
    demonstrations = load_all(write_journal(blind, [drive(0)]))
    assert len(demonstrations) == 0
    assert demonstrations.actions.shape == (0, 2)


def test_a_damaged_record_does_not_keep_demonstrations_from_being_read(
    blind: RobotProfile, drive: Drive, write_journal: Write
) -> None:
    journal = write_journal(blind, [drive(0, source="human"), NO_STEP, drive(2, source="human")])
    assert len(load_all(journal)) == 2
