import json

import msgspec
import numpy as np
import pytest

from policyloop.errors import IncompatibleError, StorageError, WireError
from policyloop.link.journal import Journal, appending
from policyloop.link.segment_log import SegmentLog
from policyloop.wire.codec import encode, encode_step, join_frames
from policyloop.wire.messages import PROTOCOL, Hello


@pytest.fixture
def journal(house):
    return house.journal()


def reopen(directory, profile=None):
    return Journal(directory / "journal", profile)


@pytest.fixture
def other(mini):
    return msgspec.structs.replace(mini, rates=msgspec.structs.replace(mini.rates, control_hz=20.0))


# Writing and reading


def test_steps_come_back_as_they_were(tmp_path, mini, make_step, journal):
    steps = [make_step(mini, i, terminated=i == 2) for i in range(3)]
    assert [journal.append(encode_step(step, mini)) for step in steps] == [0, 1, 2]
    assert journal.next == 3
    reader = reopen(tmp_path, mini)
    for i, step in enumerate(steps):
        copy = reader.read(i)
        assert copy.record == reader.header(i) == step.record
        for name, array in step.observation.items():
            np.testing.assert_array_equal(copy.observation[name], array)
        assert (copy.final_observation is None) == (i != 2)
    np.testing.assert_array_equal(reader.read(2).final_observation["depth"], steps[2].final_observation["depth"])
    assert list(reader.headers()) == [step.record for step in steps]
    reader.close()


def test_a_reader_needs_no_profile(tmp_path, mini, make_step, journal):
    journal.append(encode_step(make_step(mini), mini))
    reader = reopen(tmp_path)
    assert reader.profile == mini
    assert reader.profile.digest == mini.digest
    assert reader.read(0).record.profile_digest == mini.digest
    reader.close()


def test_a_reader_sees_new_steps_after_refresh(tmp_path, mini, make_step, journal):
    reader = reopen(tmp_path, mini)
    assert reader.next == 0
    journal.append(encode_step(make_step(mini), mini))
    journal.sync()
    reader.refresh()
    assert (reader.next, reader.header(0).sequence) == (1, 0)
    reader.close()


def test_a_reopened_journal_goes_on_behind_the_last_step(house, mini, make_step, journal):
    journal.append(encode_step(make_step(mini, 0), mini))
    journal.close()
    again = house.journal()
    assert again.append(encode_step(make_step(mini, 1), mini)) == 1
    assert [record.sequence for record in again.headers()] == [0, 1]


def test_another_weighting_of_the_reward_is_still_the_same_journal(tmp_path, mini, make_step, journal):
    journal.append(encode_step(make_step(mini), mini))
    reweighted = msgspec.structs.replace(mini, reward={"forward": 1.0})
    reader = reopen(tmp_path, reweighted)
    assert reader.profile.reward == {"forward": 1.0}
    assert reader.read(0).record.sequence == 0
    reader.close()


# What is refused


@pytest.mark.parametrize("writable", [False, True])
def test_a_journal_of_another_profile_is_refused(tmp_path, mini, other, make_step, journal, writable):
    journal.append(encode_step(make_step(mini), mini))
    journal.close()
    with pytest.raises(IncompatibleError, match="belongs to profile 'rover-mini'") as caught:
        Journal(tmp_path / "journal", other, writable=writable)
    assert caught.value.exit_code == 7
    assert mini.digest[:12] in caught.value.message and other.digest[:12] in caught.value.message


def test_a_refused_writer_leaves_the_journal_free(house, other, journal):
    journal.close()
    with pytest.raises(IncompatibleError):
        house.journal(profile=other)
    assert house.journal().next == 0


def test_a_journal_that_is_not_there_is_named(tmp_path, mini):
    for profile in (mini, None):
        with pytest.raises(StorageError, match="no journal at"):
            Journal(tmp_path / "nowhere", profile)
    assert not (tmp_path / "nowhere").exists()


def test_a_new_journal_needs_a_profile(tmp_path):
    with pytest.raises(StorageError, match="no journal at"):
        Journal(tmp_path / "new", writable=True)


def test_a_second_writer_is_refused(house, journal):
    with pytest.raises(StorageError, match="being written by another process"):
        house.journal()


def test_a_journal_of_a_newer_format_is_refused(tmp_path, journal):
    path = tmp_path / "journal" / "journal.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(IncompatibleError, match="format 2") as caught:
        reopen(tmp_path)
    assert "upgrade" in caught.value.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "one"}', '{"format": 1}'])
def test_a_journal_whose_description_is_broken_is_refused(tmp_path, journal, text):
    (tmp_path / "journal" / "journal.json").write_text(text)
    with pytest.raises(IncompatibleError, match=r"journal\.json"):
        reopen(tmp_path)


def test_a_journal_whose_description_is_no_text_is_refused(tmp_path, journal):
    path = tmp_path / "journal" / "journal.json"
    path.write_bytes(path.read_bytes().replace(b"rover-mini", b"rover\xffmini"))
    with pytest.raises(IncompatibleError):
        reopen(tmp_path)


def test_a_journal_that_cannot_be_begun_is_a_storage_error(house, full_disk):
    with full_disk(0), pytest.raises(StorageError):
        house.journal("new")


@pytest.mark.parametrize(
    "record",
    [b"\0", b"no frames", join_frames([]), join_frames([b"\xc1"])],
    ids=["one byte", "garbage", "no header", "bad header"],
)
def test_a_record_that_is_no_step_is_a_wire_error(tmp_path, journal, record):
    journal.close()
    log = SegmentLog(tmp_path / "journal", writable=True)
    log.append(record)
    log.close()
    reader = reopen(tmp_path)
    for read in (reader.header, reader.read):
        with pytest.raises(WireError):
            read(0)
    reader.close()


def test_a_journal_with_a_record_that_is_no_step_still_serves_all_the_others(journal, mini, make_step):
    for sequence in range(2):
        journal.append(encode_step(make_step(mini, sequence, robot="r", boot="b"), mini))
        journal.append([b"\xc1"])
    assert journal.last_sequences() == {("r", "b"): 1}
    assert [record.sequence for record in journal.headers()] == [0, 1]


def test_a_greeting_is_no_step(journal, mini):
    journal.append([encode(Hello(protocol=PROTOCOL, robot="r", boot="b", profile_digest=mini.digest))])
    with pytest.raises(WireError, match="journal record 0 is not a step"):
        journal.header(0)


def test_a_new_journal_in_which_nothing_was_written_leaves_nothing_behind(tmp_path, mini, make_step):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").touch()
    for directory in (tmp_path / "new" / "deep", tmp_path / "there"):
        with pytest.raises(KeyboardInterrupt), appending(directory, mini):
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "notes.txt"]
    with appending(tmp_path / "there", mini) as journal:
        journal.append(encode_step(make_step(mini, 0), mini))
    with appending(tmp_path / "there", mini) as journal:  # no longer new
        assert journal.next == 1
    assert Journal(tmp_path / "there").next == 1


def test_an_empty_journal_that_was_there_stays(tmp_path, mini, journal):
    journal.close()
    with appending(tmp_path / "journal", mini):
        pass
    assert reopen(tmp_path, mini).next == 0


# What is in it


def test_last_sequences_are_kept_for_each_start_of_each_robot(journal, mini, make_step):
    for robot, boot, sequence in [
        ("r0", "a", 0),
        ("r1", "a", 0),
        ("r0", "a", 1),
        ("r0", "b", 0),
        ("r1", "a", 1),
        ("r1", "a", 7),
    ]:
        journal.append(encode_step(make_step(mini, sequence, robot=robot, boot=boot), mini))
    assert journal.last_sequences() == {("r0", "a"): 1, ("r0", "b"): 0, ("r1", "a"): 7}


def test_sequences_that_were_saved_are_not_read_again_but_those_after_them_are(journal, mini, make_step, monkeypatch):
    for sequence in range(4):
        journal.append(encode_step(make_step(mini, sequence, robot="r0", boot="a"), mini))
    journal.save_sequences(journal.last_sequences())
    journal.append(encode_step(make_step(mini, 4, robot="r0", boot="a"), mini))
    journal.append(encode_step(make_step(mini, 0, robot="r1", boot="a"), mini))
    read = []
    real = journal.header
    monkeypatch.setattr(journal, "header", lambda position: read.append(position) or real(position))
    assert journal.last_sequences() == {("r0", "a"): 4, ("r1", "a"): 0}
    assert read == [4, 5]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"next": 99, "sequences": [["r0", "a", 98]]}', '{"next": -1, "sequences": []}'],
)
def test_saved_sequences_of_another_log_or_damaged_ones_are_not_believed(journal, mini, make_step, tmp_path, text):
    journal.append(encode_step(make_step(mini, 7, robot="r0", boot="a"), mini))
    (tmp_path / "journal" / "sequences.json").write_text(text)
    assert journal.last_sequences() == {("r0", "a"): 7}
