"""What a journal holds, counted by hand, and a ledger whose bins add up to all that was received."""

import msgspec
import pytest

from policyloop.core.step import Stamps
from policyloop.errors import StorageError
from policyloop.link.journal import Received
from policyloop.link.summary import summarise
from policyloop.wire.codec import encode_step


@pytest.fixture
def journal(house):
    return house.journal()


def test_an_empty_journal_sums_up_to_nothing(journal, mini):
    summary = summarise(journal)
    assert summary.profile == mini.name
    assert summary.profile_digest == mini.digest
    assert (summary.steps, summary.damaged, summary.episodes, summary.bytes_per_step, summary.reward_mean) == (0,) * 5
    assert summary.robots == summary.ledger == summary.events == {}


def test_steps_are_counted(journal, mini, make_step):
    def policy(sequence, version, **changes):
        step = make_step(mini, sequence, **changes)
        behaviour = msgspec.structs.replace(step.record.action.behaviour, policy_version=version)
        action = msgspec.structs.replace(step.record.action, behaviour=behaviour)
        return msgspec.structs.replace(step, record=msgspec.structs.replace(step.record, action=action))

    steps = [
        policy(0, 2, reward_terms={"forward": 0.5}),
        policy(1, 10, reward_terms={"forward": 2.0}, terminated=True),
        policy(4, 10, episode=1, reward_terms={}, gap=True),  # 2 and 3 are missing
        make_step(mini, 5, 1, source="human", intervention="start", reward_terms={"forward": -1.0}),
        make_step(mini, 6, 1, source="human", intervention="hold", reward_terms={}, truncated=True),
        make_step(mini, 0, boot="b1", source="scripted", reward_terms={}),
        make_step(mini, 3, robot="r1", source="random", reward_terms={}, gap=True),  # 0, 1 and 2 never arrived
        make_step(mini, 4, robot="r1", source="human", intervention="start", reward_terms={"x": 2.5}, truncated=True),
    ]
    for step in steps:
        journal.append(encode_step(step, mini))
    summary = summarise(journal)
    assert (summary.steps, summary.episodes) == (8, 4)
    assert (summary.terminated, summary.truncated, summary.interventions) == (1, 2, 2)
    assert summary.sources == {"policy": 3, "human": 3, "scripted": 1, "random": 1}
    assert list(summary.policy_versions.items()) == [("2", 1), ("10", 2)]
    assert summary.reward_mean == pytest.approx((0.5 + 2.0 - 1.0 + 2.5) / 8)
    assert summary.bytes == journal.size_bytes > 0
    assert summary.bytes_per_step == summary.bytes / 8
    first, second = summary.robots["r0"], summary.robots["r1"]
    assert (first.steps, first.starts, first.episodes, first.gaps, first.missing) == (6, 2, 3, 1, 2)
    assert (second.steps, second.starts, second.episodes, second.gaps, second.missing) == (2, 1, 1, 1, 3)


def test_the_rate_is_that_of_most_captures(journal, mini, make_step):
    for i, captured_ms in enumerate((0, 100, 200, 300, 900)):
        step = make_step(mini, i)
        stamps = Stamps(captured_ms * 10**6, captured_ms * 10**6, captured_ms * 10**6)
        journal.append(
            encode_step(msgspec.structs.replace(step, record=msgspec.structs.replace(step.record, stamps=stamps)), mini)
        )
    assert summarise(journal).robots["r0"].rate_hz == pytest.approx(10.0)


def test_bytes_are_those_of_each_stream(journal, mini, make_step):
    ended = make_step(mini, 0, truncated=True)  # with a final observation: each picture twice
    frames = encode_step(ended, mini)
    journal.append(frames)
    (robot,) = summarise(journal).robots.values()
    names = list(mini.observation_specs)
    expected = {name: len(frames[1 + i]) + len(frames[1 + len(names) + i]) for i, name in enumerate(names)}
    assert robot.bytes_per_step == {"header": len(frames[0]), **expected}


def test_every_received_step_is_in_exactly_one_bin(journal, mini, make_step):
    for i, source in enumerate(("policy", "policy", "human")):
        journal.append(encode_step(make_step(mini, i, source=source), mini))
    journal.append([b"\xc1"])
    journal.save_received(Received(steps={"duplicate": 4, "bad-rgb": 2}, events={"lost": 7}))
    summary = summarise(journal)
    assert summary.ledger == {
        "stored: human": 1,
        "stored: policy": 2,
        "stored: damaged since": 1,
        "not stored: bad-rgb": 2,
        "not stored: duplicate": 4,
    }
    assert sum(summary.ledger.values()) == 4 + 6
    assert summary.events == {"lost": 7}


def test_a_gateway_adds_to_what_its_predecessors_counted(house, mini, make_step):
    journal = house.journal()
    for _ in range(2):
        gateway = house.gateway(journal)
        bare = house.socket(5, gateway.address)  # DEALER
        bare.send(b"rubbish")
        house.until(lambda gateway=gateway: gateway.counts["bad-header"] == 1)
        gateway.close()
    assert journal.received == Received(steps={"bad-header": 2})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"steps": 3}'])
def test_damaged_counts_are_no_counts(journal, tmp_path, text):
    (tmp_path / "journal" / "received.json").write_text(text)
    assert journal.received == Received()


def test_with_the_learners_checkpoint_bins_say_what_it_made_of_each_step(journal, mini, make_step, tmp_path):
    for i, source in enumerate(("policy", "policy", "policy", "human")):
        journal.append(encode_step(make_step(mini, i, source=source), mini))
    journal.save_received(Received(steps={"bad-rgb": 2}))
    for update, ledger in ((5, {"trained": 1}), (10, {"trained": 2, "demonstration": 1, "gap": 0})):
        (tmp_path / f"{update:06d}").mkdir()
        (tmp_path / f"{update:06d}" / "state.json").write_bytes(msgspec.json.encode({"feed": {"ledger": ledger}}))
    (tmp_path / "000015").mkdir()
    (tmp_path / "000015" / "state.json").write_text("torn")
    assert summarise(journal, tmp_path).ledger == {
        "learner: demonstration": 1,
        "learner: trained": 2,
        "learner: not read yet": 1,
        "not stored: bad-rgb": 2,
    }


def test_a_learner_without_a_checkpoint_is_said(journal, tmp_path):
    with pytest.raises(StorageError, match="no checkpoint in"):
        summarise(journal, tmp_path / "nowhere")
