"""The robot's spool keeps to its budget, gives up whole oldest episodes, and counts what it gave up."""

import pytest

from policyloop.errors import StorageError
from policyloop.link.spool import Spool
from policyloop.wire.codec import encode_step


@pytest.fixture
def frames(mini, make_step):
    """Return `frames(i, episode)`: a step message of about 10 kB."""

    def make(i, episode=0, **changes):
        return encode_step(make_step(mini, i, episode=episode, index=i, **changes), mini)

    return make


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool", budget_bytes=100_000, segment_bytes=20_000)
    yield spool
    spool.close()


def sequences(spool):
    return [spool.read(number)[0].record.sequence for number in range(spool.first, spool.next)]


def test_steps_wait_in_order(spool, frames):
    for i in range(4):
        spool.append(frames(i))
    assert sequences(spool) == [0, 1, 2, 3]
    header, parts = spool.read(2)
    assert header.record.sequence == 2
    assert parts == frames(2)
    assert spool.lost == 0


def test_what_is_delivered_is_forgotten(spool, frames):
    for i in range(6):
        spool.append(frames(i))
    before = spool.size_bytes
    spool.delivered(5)
    assert (spool.first, spool.next) == (5, 6)
    assert spool.size_bytes < before
    spool.delivered(3)  # an old acknowledgement
    assert spool.first == 5


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_when_the_budget_is_used_up_whole_oldest_episodes_go(spool, frames, length):
    for i in range(60):
        spool.append(frames(i, episode=i // length))
        assert spool.size_bytes <= 100_000
    kept = sequences(spool)
    assert kept == list(range(60 - len(kept), 60))
    assert spool.lost == 60 - len(kept)
    assert spool.lost % length == 0
    assert len(kept) >= 2


def test_an_episode_larger_than_the_budget_loses_its_beginning_only(spool, frames):
    for i in range(60):
        spool.append(frames(i))
    kept = sequences(spool)
    assert kept == list(range(60 - len(kept), 60))
    assert len(kept) >= 4
    assert spool.lost == 60 - len(kept)


def test_the_same_episode_number_of_another_start_is_another_episode(spool, frames):
    for boot in ("a", "b"):
        for i in range(8):
            spool.append(frames(i, boot=boot))
    assert spool.lost == 8


def test_a_full_disk_costs_the_oldest_episodes_not_the_newest_step(tmp_path, frames, full_disk):
    """RLIMIT_FSIZE stands in for a full disk: only deleting an old segment lets a new one grow."""
    spool = Spool(tmp_path / "spool", budget_bytes=1 << 30, segment_bytes=1 << 20)
    for i in range(3):
        spool.append(frames(i))
    with full_disk(10), pytest.raises(StorageError):
        spool.append(frames(3))  # one segment: there is nothing to give up
    assert spool.lost == 1
    assert sequences(spool) == [0, 1, 2]
    spool.append(frames(4))
    assert sequences(spool) == [0, 1, 2, 4]
    spool.close()


def test_a_reopened_spool_still_has_what_was_not_delivered(tmp_path, frames):
    spool = Spool(tmp_path / "spool", budget_bytes=1 << 20, segment_bytes=20_000)
    for i in range(6):
        spool.append(frames(i))
    spool.delivered(4)
    spool.close()
    again = Spool(tmp_path / "spool", budget_bytes=1 << 20, segment_bytes=20_000)
    assert set(sequences(again)) >= {4, 5}
    again.close()
