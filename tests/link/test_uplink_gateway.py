import math
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import ConnectionFailed, IncompatibleError, PolicyloopError, SafetyRefusal, StorageError
from policyloop.link import gateway as gateway_module
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.link.uplink import Uplink, UplinkSettings
from policyloop.wire.codec import decode_from_gateway, encode, encode_step
from policyloop.wire.messages import PROTOCOL, Ack, FromGateway, Hello, Refusal, Welcome

Bare = zmq.Socket[bytes]
QUICK = UplinkSettings(resend_after_s=0.1, heartbeat_s=0.1, sync_every_s=0.1)


def sequences(journal: Journal, robot: str | None = None) -> list[int]:
    return [record.sequence for record in journal.headers() if robot in (None, record.robot)]


def receive(bare: Bare, timeout_s: float = 15.0) -> FromGateway:
    assert bare.poll(round(timeout_s * 1000)), "no answer"
    (frame,) = bare.recv_multipart()
    return decode_from_gateway(frame)


def receive_until(bare: Bare, kind: type, **fields: Any) -> Any:
    """Return the first message of this kind whose fields are these."""
    while True:
        message = receive(bare)
        if isinstance(message, kind) and all(getattr(message, name) == value for name, value in fields.items()):
            return message


def hello(profile: RobotProfile, boot: str = "b0", **changes: Any) -> list[bytes]:
    fields = {"protocol": PROTOCOL, "robot": "r0", "boot": boot, "profile_digest": profile.digest, **changes}
    return [encode(Hello(**fields))]


def greeted(house: Any, gateway: Gateway) -> Bare:
    """Return a bare socket that has introduced itself as a robot."""
    bare = house.socket(zmq.DEALER, gateway.address)
    bare.send_multipart(hello(house.profile))
    receive_until(bare, Ack)
    return bare


def settle(bare: Bare, profile: RobotProfile) -> None:
    """Return once the gateway has dealt with everything sent before."""
    bare.send_multipart(hello(profile, "settled", robot="somebody"))
    receive_until(bare, Ack, boot="settled")


@pytest.fixture
def other(mini):
    return msgspec.structs.replace(mini, limits=msgspec.structs.replace(mini.limits, max_acceleration_mps2=0.9))


@pytest.fixture
def steps(mini, make_step):
    """Return `steps(uplink, first, last)`: spools the steps of one start of a robot."""

    def append(uplink: Uplink, first: int, last: int, **changes: Any) -> list[Step]:
        made = [make_step(mini, i, robot=uplink.robot, boot=uplink.boot, **changes) for i in range(first, last)]
        for step in made:
            uplink.append(step)
        return made

    return append


# Every step arrives once and in order


def test_steps_arrive_once_in_order_and_as_they_were(house, mini, steps):
    journal = house.journal()
    gateway = house.gateway(journal)
    uplink = house.uplink(gateway.address)
    sent = steps(uplink, 0, 150) + steps(uplink, 150, 151, terminated=True)
    assert uplink.drain(15.0)
    assert (uplink.pending, uplink.rejected) == (0, 0)
    assert [journal.header(i) for i in range(151)] == [step.record for step in sent]
    for i in (0, 77, 150):
        np.testing.assert_array_equal(journal.read(i).observation["depth"], sent[i].observation["depth"])
    assert journal.read(150).final_observation is not None
    assert gateway.counts["stored"] == 151
    assert set(gateway.counts) <= {"stored", "duplicate"}
    gateway.check()


def test_several_robots_share_a_gateway(house, steps):
    journal = house.journal()
    gateway = house.gateway(journal)
    uplinks = [house.uplink(gateway.address, f"r{i}") for i in range(3)]
    for i in range(60):
        for uplink in uplinks:
            steps(uplink, i, i + 1)
            uplink.pump()
    house.until(lambda: not any(uplink.pending for uplink in uplinks), *uplinks)
    for uplink in uplinks:
        assert sequences(journal, uplink.robot) == list(range(60))
    assert gateway.robots == 3


def test_steps_wait_in_the_spool_until_there_is_a_gateway(house, steps):
    address = house.lasting_address()
    uplink = house.uplink(address)
    steps(uplink, 0, 20)
    assert not uplink.drain(0.05)
    assert uplink.pending == 20
    journal = house.journal()
    house.gateway(journal, address)
    assert uplink.drain(15.0)
    assert sequences(journal) == list(range(20))


def test_no_more_than_a_window_is_under_way(house, mini, make_step):
    gateway = house.gateway(house.journal(), start=False)
    uplink = house.uplink(gateway.address, settings=UplinkSettings(window=8))
    for i in range(20):
        assert uplink.window_full == (i >= 8)
        uplink.append(make_step(mini, i, boot=uplink.boot))
    gateway.start()
    assert uplink.drain(15.0)
    assert not uplink.window_full


def test_acknowledged_steps_leave_the_spool(house, mini, steps):
    gateway = house.gateway(house.journal())
    uplink = house.uplink(gateway.address, settings=UplinkSettings(resend_after_s=0.1, spool_segment_bytes=30_000))
    spool = house.directory / "spool-r0"
    steps(uplink, 0, 40)
    full = len(list(spool.glob("*.seg")))
    assert full >= 5
    assert uplink.drain(15.0)
    assert len(list(spool.glob("*.seg"))) == 1


def test_what_the_spool_held_is_delivered_after_a_restart_of_the_robot(house, mini, make_step, steps):
    address = house.lasting_address()
    first = house.uplink(address)
    steps(first, 0, 30)
    first.close()
    journal = house.journal()
    house.gateway(journal, address)
    second = house.uplink(address)
    assert second.boot != first.boot
    assert second.pending == 30
    assert second.drain(15.0)
    steps(second, 0, 5)
    assert second.drain(15.0)
    expected = [(first.boot, i) for i in range(30)] + [(second.boot, i) for i in range(5)]
    assert [(record.boot, record.sequence) for record in journal.headers()] == expected


def test_a_robot_that_was_killed_sends_nothing_twice(house, steps):
    journal = house.journal()
    gateway = house.gateway(journal)
    first = house.uplink(gateway.address)
    steps(first, 0, 25)
    house.until(lambda: journal.next >= 5, first)
    first.close()
    second = house.uplink(gateway.address)
    assert second.drain(15.0)
    assert sequences(journal) == list(range(25))


def test_a_restart_of_the_gateway_loses_and_repeats_nothing(house, mini, steps):
    address = house.lasting_address()
    journal = house.journal()
    gateway = house.gateway(journal, address)
    uplink = house.uplink(address)
    for i in range(300):
        steps(uplink, i, i + 1)
        uplink.pump()
        if i in (60, 130, 131, 220):
            house.until(lambda journal=journal, enough=i - 20: journal.next >= enough, uplink)
            gateway.close()
            journal.close()
            journal = house.journal()
            gateway = house.gateway(journal, address)
    assert uplink.drain(15.0)
    assert sequences(journal) == list(range(300))


GATEWAY = """
import sys
from pathlib import Path
from policyloop.core.profile import load_profile
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal

profile = load_profile("rover-mini")
gateway = Gateway(Journal(Path(sys.argv[1]), profile, writable=True), profile, sys.argv[2])
gateway.start()
print("listening", flush=True)
sys.stdin.read()
"""


def test_a_gateway_killed_outright_loses_and_repeats_nothing(house, steps):
    address = house.lasting_address()
    directory = house.directory / "journal"
    uplink = house.uplink(address)
    sent = 0
    for kill_at in (40, 110, 180):
        command = [sys.executable, "-c", GATEWAY, str(directory), address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "listening\n"
            while sent - uplink.pending < kill_at:
                steps(uplink, sent, sent + 1)
                sent += 1
                house.until(lambda: not uplink.window_full, uplink)
                uplink.pump()
            process.send_signal(signal.SIGKILL)
        acknowledged = sent - uplink.pending
        journal = Journal(directory)
        assert sequences(journal) == list(range(journal.next))
        assert journal.next >= acknowledged
        journal.close()
    journal = house.journal()
    house.gateway(journal, address)
    assert uplink.drain(15.0)
    assert sequences(journal) == list(range(sent))


# What the gateway does with single messages


def test_a_step_sent_twice_is_stored_once(house, mini, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    bare = greeted(house, gateway)
    for sequence in (0, 0, 1, 0, 1, 1):
        bare.send_multipart(encode_step(make_step(mini, sequence), mini))
    settle(bare, mini)
    assert sequences(journal) == [0, 1]
    assert gateway.counts == {"stored": 2, "duplicate": 4}


def test_a_step_that_skips_is_not_stored_until_the_missing_one_came(house, mini, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    bare = greeted(house, gateway)
    for sequence in (0, 2, 3):
        bare.send_multipart(encode_step(make_step(mini, sequence), mini))
    settle(bare, mini)
    assert sequences(journal) == [0]
    assert gateway.counts == {"stored": 1, "out-of-order": 2}
    for sequence in (1, 2, 3):
        bare.send_multipart(encode_step(make_step(mini, sequence), mini))
    assert receive_until(bare, Ack, boot="b0", sequence=3)
    assert sequences(journal) == [0, 1, 2, 3]


def test_a_step_that_declares_its_gap_may_skip(house, mini, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    bare = greeted(house, gateway)
    bare.send_multipart(encode_step(make_step(mini, 0), mini))
    bare.send_multipart(encode_step(make_step(mini, 7, gap=True), mini))
    bare.send_multipart(encode_step(make_step(mini, 8), mini))
    assert receive_until(bare, Ack, boot="b0", sequence=8)
    assert sequences(journal) == [0, 7, 8]


def test_an_acknowledged_step_is_in_the_journal(house, mini, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    bare = greeted(house, gateway)
    reader = Journal(house.directory / "journal", mini)
    for sequence in range(5):
        bare.send_multipart(encode_step(make_step(mini, sequence), mini))
        receive_until(bare, Ack, boot="b0", sequence=sequence)
        reader.refresh()
        assert reader.next == sequence + 1
    reader.close()


def test_a_greeting_is_answered_with_what_is_already_stored(house, mini, make_step):
    gateway = house.gateway(house.journal())
    bare = house.socket(zmq.DEALER, gateway.address)
    bare.send_multipart(hello(mini, "b0"))
    receive_until(bare, Welcome, protocol=PROTOCOL)
    assert receive(bare) == Ack(boot="b0", sequence=-1)
    for sequence in (0, 1):
        bare.send_multipart(encode_step(make_step(mini, sequence), mini))
    receive_until(bare, Ack, sequence=1)
    again = house.socket(zmq.DEALER, gateway.address)
    again.send_multipart(hello(mini, "b0"))
    receive_until(again, Welcome, protocol=PROTOCOL)
    assert receive(again) == Ack(boot="b0", sequence=1)


def test_starts_and_robots_are_counted_apart(house, mini, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    bare = greeted(house, gateway)
    for robot, boot in (("r0", "b0"), ("r0", "b1"), ("r1", "b0")):
        for sequence in (0, 1):
            bare.send_multipart(encode_step(make_step(mini, sequence, robot=robot, boot=boot), mini))
    settle(bare, mini)
    assert gateway.counts == {"stored": 6}
    assert journal.last_sequences() == {("r0", "b0"): 1, ("r0", "b1"): 1, ("r1", "b0"): 1}


def test_hold_and_policy_version_reach_the_robot(house, steps):
    gateway = house.gateway(house.journal())
    uplink = house.uplink(gateway.address)
    steps(uplink, 0, 1)
    assert uplink.drain(15.0)
    assert (uplink.hold, uplink.policy_version) == (False, 0)
    gateway.announce(hold=True, policy_version=7)
    house.until(lambda: uplink.hold and uplink.policy_version == 7, uplink)
    gateway.announce(hold=False)
    house.until(lambda: not uplink.hold, uplink)
    assert uplink.policy_version == 7


def test_a_robot_that_comes_later_learns_what_was_announced(house):
    gateway = house.gateway(house.journal())
    gateway.announce(hold=True, policy_version=3)
    uplink = house.uplink(gateway.address)
    house.until(lambda: (uplink.hold, uplink.policy_version) == (True, 3), uplink)


# Who and what is refused


def test_a_robot_of_another_profile_is_refused_and_loses_nothing(house, mini, other, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    uplink = house.uplink(gateway.address, profile=other)
    uplink.append(make_step(other, 0, boot=uplink.boot))
    with pytest.raises(IncompatibleError, match="refuses robot 'r0'") as caught:
        uplink.drain(15.0)
    assert caught.value.exit_code == 7
    assert mini.digest[:12] in caught.value.message and other.digest[:12] in caught.value.message
    assert uplink.pending == 1
    assert (journal.next, gateway.counts) == (0, {"robot-refused": 1})


@pytest.mark.parametrize(("protocol", "side"), [(PROTOCOL - 1, "robot"), (PROTOCOL + 1, "trainer")])
def test_a_robot_of_another_protocol_is_told_which_side_to_upgrade(house, mini, protocol, side):
    gateway = house.gateway(house.journal())
    bare = house.socket(zmq.DEALER, gateway.address)
    bare.send_multipart(hello(mini, protocol=protocol))
    answer = receive(bare)
    assert (answer.reason, answer.sequence) == ("robot-refused", -1)
    assert f"upgrade the {side}" in answer.detail


def test_a_step_of_another_profile_is_refused_without_a_greeting_too(house, mini, other, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    bare = house.socket(zmq.DEALER, gateway.address)
    bare.send_multipart(encode_step(make_step(other), other))
    settle(bare, mini)
    assert (journal.next, gateway.counts["stored"]) == (0, 0)


def test_a_step_that_is_not_finite_is_refused_and_those_after_it_arrive(house, mini, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    uplink = house.uplink(gateway.address)
    for i in range(10):
        changes = {"reward_terms": {"forward": math.nan}} if i in (3, 7, 8) else {}
        uplink.append(make_step(mini, i, boot=uplink.boot, **changes))
    assert uplink.drain(15.0)
    assert sequences(journal) == [0, 1, 2, 4, 5, 6, 9]
    assert gateway.counts["bad-record"] == uplink.rejected == 3
    assert gateway.counts["stored"] == 7


def test_a_robot_does_not_spool_an_observation_that_is_not_finite(house, mini, make_step):
    uplink = house.uplink(house.lasting_address())
    step = make_step(mini)
    broken = Step(step.record, {**step.observation, "proprio": np.full(6, np.nan, np.float32)})
    with pytest.raises(IncompatibleError, match="proprio: not finite"):
        uplink.append(broken)
    assert uplink.pending == 0


def malformed(profile: RobotProfile, make_step: Any) -> dict[str, list[list[bytes]]]:
    """Return malformed messages by the reason under which they are counted."""
    good = encode_step(make_step(profile, robot="evil"), profile)
    return {
        "bad-header": [[b""], [b"\xc1"], [b"GET / HTTP/1.1"], [b"\x91" * 16_000], [bytes(20_000)], good[1:]],
        "bad-frames": [good[:3], [*good, b""], good[:1]],
        "bad-rgb": [[good[0], good[1][:-1], *good[2:]], [good[0], b"\xff\xd8\xff", *good[2:]]],
        "bad-depth": [[*good[:2], b"\x01zzz", good[3]], [*good[:2], b"", good[3]]],
        "bad-proprio": [[*good[:3], good[3][:-1]], [*good[:3], np.full(6, np.inf, np.float32).tobytes()]],
        "bad-record": [encode_step(make_step(profile, robot="evil", wall_clock_s=math.inf), profile)],
        "wrong-profile": [encode_step(make_step(profile, robot="evil", profile_digest="0"), profile)],
    }


def test_malformed_messages_are_counted_by_reason_and_leave_an_honest_robot_alone(house, mini, make_step, steps):
    journal = house.journal()
    gateway = house.gateway(journal)
    bare = greeted(house, gateway)
    uplink = house.uplink(gateway.address)
    messages = malformed(mini, make_step)
    sent = 0
    for reason, batch in messages.items():
        for frames in batch:
            if reason != "bad-header":  # a refused step uses up its number
                header = msgspec.msgpack.decode(frames[0])
                header["record"]["sequence"] = sent
                frames = [msgspec.msgpack.encode(header), *frames[1:]]
                sent += 1
            bare.send_multipart(frames)
            assert receive_until(bare, Refusal).reason == reason
            steps(uplink, gateway.counts["stored"], gateway.counts["stored"] + 1)
            assert uplink.drain(15.0)
    assert {reason: gateway.counts[reason] for reason in messages} == {r: len(batch) for r, batch in messages.items()}
    assert sequences(journal, "evil") == []
    assert sequences(journal, "r0") == list(range(sum(map(len, messages.values()))))
    assert uplink.rejected == 0
    gateway.check()


def test_strangers_on_the_port_do_not_disturb(house, steps):
    journal = house.journal()
    gateway = house.gateway(journal)
    host, port = gateway.address.removeprefix("tcp://").split(":")
    uplink = house.uplink(gateway.address)
    for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f" + bytes(53), b"\0" * 300):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(greeting)
            steps(uplink, journal.next, journal.next + 5)
            assert uplink.drain(15.0)
    pusher = house.socket(zmq.PUSH, gateway.address)
    with pytest.raises(zmq.Again):  # not a peer of a ROUTER: it never gets a connection to send to
        pusher.setsockopt(zmq.SNDHWM, 1)
        for _ in range(20_000):
            pusher.send(b"x" * 100, zmq.DONTWAIT)
    steps(uplink, journal.next, journal.next + 5)
    assert uplink.drain(15.0)
    assert sequences(journal) == list(range(25))


def test_a_frame_beyond_the_limit_costs_its_sender_the_connection_and_nobody_else(house, mini, steps):
    journal = house.journal()
    gateway = house.gateway(journal)
    uplink = house.uplink(gateway.address)
    bare = house.socket(zmq.DEALER, gateway.address)
    bare.send_multipart([b"\0" * (9 << 20)])
    settle(bare, mini)
    steps(uplink, 0, 10)
    assert uplink.drain(15.0)
    assert gateway.counts == {"stored": 10}


# Where the gateway listens


def test_a_port_in_use_is_a_failed_connection(house):
    gateway = house.gateway(house.journal())
    with pytest.raises(ConnectionFailed, match="cannot listen at") as caught:
        house.gateway(house.journal("other"), gateway.address)
    assert caught.value.exit_code == 4
    assert gateway.address in caught.value.message


def test_a_v1_port_in_use_releases_the_first_port(house):
    taken = house.gateway(house.journal()).address
    journal, address = house.journal("other"), house.lasting_address()
    with pytest.raises(ConnectionFailed):
        house.gateway(journal, address, taken)
    assert house.gateway(journal, address).address == address


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:*", "tcp://*:*", "tcp://10.0.0.1:5555", "tcp://eth0:5555", "tcp://[::]:*"]
)
@pytest.mark.parametrize("v1", [False, True])
def test_an_address_that_anybody_can_reach_is_refused(house, address, v1):
    addresses = ("tcp://127.0.0.1:*", address) if v1 else (address,)
    with pytest.raises(SafetyRefusal, match="everybody on the network") as caught:
        house.gateway(house.journal(), *addresses)
    assert caught.value.exit_code == 6


def test_an_address_with_two_parts_is_refused(house):
    with pytest.raises(SafetyRefusal):
        house.gateway(house.journal(), "tcp://127.0.0.1:0;0.0.0.0:*")


def speaks_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not speaks_ipv6(), reason="this machine has no IPv6 loopback")
def test_the_ipv6_loopback_will_do(house, steps):
    journal = house.journal()
    gateway = house.gateway(journal, "tcp://[::1]:*")
    uplink = house.uplink(gateway.address)
    steps(uplink, 0, 3)
    assert uplink.drain(15.0)
    assert sequences(journal) == [0, 1, 2]


def test_port_0_is_any_free_port(house):
    first = house.gateway(house.journal(), v1_address="tcp://127.0.0.1:*")
    second = house.gateway(house.journal("other"))
    assert len({first.address, first.v1_address, second.address}) == 3
    assert all(address.startswith("tcp://127.0.0.1:") for address in (first.address, first.v1_address, second.address))
    assert second.v1_address == ""


@pytest.mark.parametrize("started", [False, True])
def test_a_closed_gateway_frees_its_port_and_leaves_the_journal_open(house, mini, make_step, started):
    journal = house.journal()
    gateway = house.gateway(journal, house.lasting_address(), start=started)
    address = gateway.address
    gateway.close()
    assert journal.append(encode_step(make_step(mini), mini)) == 0
    assert house.gateway(journal, address).address == address


@pytest.mark.parametrize("address", ["localhost:5555", "tcp://127.0.0.1", "127.0.0.1"])
def test_an_address_that_is_none_is_refused_by_the_robot(house, address):
    with pytest.raises(PolicyloopError):
        house.uplink(address)
    assert house.uplink("tcp://127.0.0.1:5555").pending == 0


# v1 packets


def test_v1_packets_are_stored_as_human_steps_and_bad_ones_counted(house, mini, make_v1_packet, steps):
    journal = house.journal()
    gateway = house.gateway(journal, v1_address="tcp://127.0.0.1:*")
    pusher = house.socket(zmq.PUSH, gateway.v1_address)
    uplink = house.uplink(gateway.address)
    for i in range(4):
        pusher.send(make_v1_packet(mini, episode_step=i, done=i == 3, reward=float(i)))
    pusher.send(b"")
    pusher.send(make_v1_packet(mini)[:-1])
    pusher.send_multipart([make_v1_packet(mini), b"and more"])
    pusher.send(make_v1_packet(mini, episode_step=-1))
    pusher.send(make_v1_packet(mini, depth_shape=[1, 1]))
    pusher.send(b"\x02\0\0\0{}")
    pusher.send(make_v1_packet(mini, episode_step=0))
    steps(uplink, 0, 3)
    house.until(lambda: gateway.counts["stored"] == 8 and not uplink.pending, uplink)
    records = [record for record in journal.headers() if record.robot == "v1"]
    assert [(r.sequence, r.episode, r.index) for r in records] == [
        (0, 0, 0),
        (1, 0, 1),
        (2, 0, 2),
        (3, 0, 3),
        (4, 1, 0),
    ]
    assert {(r.action.source, r.action.behaviour, r.boot) for r in records} == {("human", None, records[0].boot)}
    assert [r.truncated for r in records] == [False, False, False, True, False]
    assert [r.reward for r in records] == [0.0, 1.0, 2.0, 3.0, 0.25]
    assert sequences(journal, "r0") == [0, 1, 2]
    assert gateway.counts == {
        "stored": 8, "v1-length": 2, "bad-rgb": 1, "v1-values": 1, "v1-shape": 1, "v1-metadata": 1
    }  # fmt: skip
    for position in range(8):
        journal.read(position)


def test_v1_packets_are_a_new_start_after_a_restart_of_the_gateway(house, mini, make_v1_packet):
    address, journal = house.lasting_address(), house.journal()
    for total in (2, 4):
        gateway = house.gateway(journal, v1_address=address)
        pusher = house.socket(zmq.PUSH, address)
        for i in range(2):
            pusher.send(make_v1_packet(mini, episode_step=i))
        house.until(lambda total=total: journal.next == total)
        pusher.close()
        gateway.close()
    boots = [record.boot for record in journal.headers()]
    assert sequences(journal) == [0, 1, 0, 1]
    assert boots[0] == boots[1] != boots[2] == boots[3]


# A full disk


def test_a_full_disk_stops_the_gateway_and_loses_nothing(house, mini, steps, full_disk):
    journal = house.journal()
    address = house.lasting_address()
    gateway = house.gateway(journal, address)
    uplink = house.uplink(address, settings=UplinkSettings(resend_after_s=0.1, spool_segment_bytes=20_000))
    with full_disk(100_000):
        steps(uplink, 0, 40)
        house.until(lambda: gateway.failure is not None, uplink)
        uplink.pump(0.05)
    assert isinstance(gateway.failure, StorageError)
    with pytest.raises(StorageError, match="no space left"):
        gateway.check()
    acknowledged = 40 - uplink.pending
    stored = sequences(journal)
    assert stored == list(range(len(stored)))
    assert acknowledged <= len(stored) < 40
    gateway.close()
    journal.close()
    journal = house.journal()
    house.gateway(journal, address)
    assert uplink.drain(15.0)
    assert sequences(journal) == list(range(40))


def test_a_robot_whose_disk_is_full_says_so_and_keeps_what_it_has(house, mini, make_step, steps, full_disk):
    address = house.lasting_address()
    uplink = house.uplink(address)
    steps(uplink, 0, 3)
    with full_disk(25_000), pytest.raises(StorageError):
        steps(uplink, 3, 40)
    kept = uplink.pending
    assert 3 <= kept < 40
    journal = house.journal()
    house.gateway(journal, address)
    steps(uplink, kept, kept + 2)
    assert uplink.drain(15.0)
    assert sequences(journal) == list(range(kept + 2))


class BrokenJournal(Journal):
    """A journal that cannot sync a step."""

    error: Exception = StorageError("the disk is gone")

    def sync(self) -> None:
        if self.next:
            raise self.error


def test_a_step_that_could_not_be_synced_is_not_acknowledged(house, mini, make_step):
    gateway = house.gateway(house.journal(kind=BrokenJournal))
    bare = greeted(house, gateway)
    bare.send_multipart(encode_step(make_step(mini), mini))
    house.until(lambda: gateway.failure is not None)
    assert not bare.poll(50)  # long enough for an acknowledgement to arrive, were there one


# Known faults


def inproc(house: Any, journal: Journal) -> tuple[Gateway, Bare]:
    """Return a gateway that has not started, and a socket whose messages it will find all at once."""
    gateway = house.gateway(journal, f"inproc://{id(journal)}", start=False)
    return gateway, house.socket(zmq.DEALER, gateway.address, gateway._context)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_header_that_is_not_utf8_does_not_end_the_gateway(house, mini, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    bare = greeted(house, gateway)
    bare.send_multipart([hello(mini, "boot")[0].replace(b"\xa4boot\xa4boot", b"\xa4boot\xa4b\xffot")])
    bare.send_multipart(encode_step(make_step(mini), mini))
    house.until(lambda: journal.next == 1, timeout_s=house.soon_s)
    assert gateway.counts["bad-header"] == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_ends_the_gateway_is_its_failure(house, mini, make_step, monkeypatch):
    monkeypatch.setattr(BrokenJournal, "error", RuntimeError("a fault"))
    gateway = house.gateway(house.journal(kind=BrokenJournal))
    greeted(house, gateway).send_multipart(encode_step(make_step(mini), mini))
    house.until(lambda: gateway.failure is not None, timeout_s=house.soon_s)
    with pytest.raises(Exception, match="a fault"):
        gateway.check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_v1_packets_do_not_end_the_gateway_of_a_robot_without_camera(house, mini, make_step, make_v1_packet):
    blind = msgspec.structs.replace(mini, camera=None)
    journal = house.journal(profile=blind)
    gateway = house.gateway(journal, v1_address="tcp://127.0.0.1:*")
    house.socket(zmq.PUSH, gateway.v1_address).send(make_v1_packet(mini))
    house.until(lambda: gateway.counts["v1-shape"] == 1, timeout_s=house.soon_s)
    uplink = house.uplink(gateway.address, profile=blind)
    uplink.append(make_step(blind, boot=uplink.boot))
    assert uplink.drain(house.soon_s)


def test_every_start_of_a_robot_in_one_batch_is_acknowledged(house, mini, make_step):
    gateway, bare = inproc(house, house.journal())
    bare.send_multipart(hello(mini, "new"))
    for boot in ("old", "new"):
        bare.send_multipart(encode_step(make_step(mini, boot=boot), mini))
    gateway.start()
    acknowledged: set[str] = set()
    while acknowledged != {"old", "new"}:
        message = receive(bare, house.soon_s)
        if isinstance(message, Ack) and message.sequence == 0:
            acknowledged.add(message.boot)


@pytest.mark.parametrize("after", ["refusal", "greeting"])
def test_no_answer_overtakes_the_sync_of_the_steps_before_it(house, mini, make_step, after):
    gateway, bare = inproc(house, house.journal(kind=BrokenJournal))
    bare.send_multipart(hello(mini))
    bare.send_multipart(encode_step(make_step(mini, 0), mini))
    bare.send_multipart(
        hello(mini) if after == "greeting" else encode_step(make_step(mini, 1, wall_clock_s=math.nan), mini)
    )
    gateway.start()
    house.until(lambda: gateway.failure is not None)
    while bare.poll(0):
        message = receive(bare)
        assert isinstance(message, Welcome) or message.sequence < 0


def test_a_refused_step_does_not_block_those_after_a_restart_of_the_gateway(house, mini, make_step, steps):
    address = house.lasting_address()
    journal = house.journal()
    gateway = house.gateway(journal, address)
    uplink = house.uplink(address)
    steps(uplink, 0, 3)
    steps(uplink, 3, 4, wall_clock_s=math.nan)
    assert uplink.drain(15.0)
    gateway.close()
    house.gateway(journal, address)
    steps(uplink, 4, 8)
    house.until(lambda: not uplink.pending, uplink, timeout_s=house.soon_s)
    assert sequences(journal) == [0, 1, 2, 4, 5, 6, 7]


def test_a_robot_goes_on_with_a_gateway_that_has_a_new_journal(house, steps):
    address = house.lasting_address()
    gateway = house.gateway(house.journal(), address)
    uplink = house.uplink(address)
    steps(uplink, 0, 10)
    assert uplink.drain(15.0)
    gateway.close()
    journal = house.journal("new")
    house.gateway(journal, address)
    steps(uplink, 10, 15)
    house.until(lambda: not uplink.pending, uplink, timeout_s=house.soon_s)
    assert sequences(journal) == list(range(10, 15))
    assert journal.header(0).gap


def test_steps_of_an_old_profile_in_the_spool_do_not_block_the_new_ones(house, mini, other, make_step, steps):
    address = house.lasting_address()
    old = house.uplink(address, profile=other)
    for i in range(5):
        old.append(make_step(other, i, boot=old.boot))
    old.close()
    journal = house.journal()
    house.gateway(journal, address)
    try:
        uplink = house.uplink(address)
        steps(uplink, 0, 3)
        house.until(lambda: not uplink.pending, uplink, timeout_s=house.soon_s)
    except IncompatibleError:
        return  # saying so is fine as well
    assert sequences(journal) == [0, 1, 2]


def test_a_robot_on_hold_learns_that_a_restarted_gateway_asks_for_none(house, steps):
    address = house.lasting_address()
    journal = house.journal()
    gateway = house.gateway(journal, address)
    gateway.announce(hold=True)
    uplink = house.uplink(address)
    steps(uplink, 0, 1)
    house.until(lambda: uplink.hold and not uplink.pending, uplink)
    gateway.close()
    house.gateway(journal, address)
    house.until(lambda: not uplink.hold, uplink, timeout_s=house.soon_s)


def test_a_pause_does_not_outlast_who_asked_for_it(house, steps):
    gateway = house.gateway(house.journal())
    gateway.announce(hold=True)
    uplink = house.uplink(gateway.address, settings=msgspec.structs.replace(QUICK, dead_after_s=0.5))
    steps(uplink, 0, 1)
    house.until(lambda: uplink.hold and not uplink.pending, uplink)
    gateway.close()
    house.until(lambda: not uplink.hold, uplink)


def test_announcements_of_a_restarted_gateway_reach_a_robot_that_sent_since(house, steps):
    address = house.lasting_address()
    journal = house.journal()
    gateway = house.gateway(journal, address)
    uplink = house.uplink(address)
    steps(uplink, 0, 1)
    assert uplink.drain(15.0)
    gateway.close()
    again = house.connections(uplink)
    gateway = house.gateway(journal, address)
    house.until(lambda: again.poll(0))
    steps(uplink, 1, 2)
    house.until(lambda: not uplink.pending, uplink)
    gateway.announce(policy_version=5)
    house.until(lambda: uplink.policy_version == 5, uplink, timeout_s=house.soon_s)


def test_a_gateway_of_another_profile_takes_no_steps_from_a_robot_that_knew_its_predecessor(house, other, steps):
    address = house.lasting_address()
    gateway = house.gateway(house.journal(), address)
    gateway.announce(policy_version=1)
    uplink = house.uplink(address)
    house.until(lambda: uplink.policy_version == 1, uplink)
    gateway.close()
    again = house.connections(uplink)
    house.gateway(house.journal("other", profile=other), address)
    house.until(lambda: again.poll(0))
    steps(uplink, 0, 3)
    with pytest.raises(IncompatibleError):
        uplink.drain(15.0)
    assert uplink.pending == 3


def test_a_robot_that_comes_back_is_counted_once(house):
    gateway = house.gateway(house.journal())
    for _ in range(3):
        uplink = house.uplink(gateway.address)
        house.until(lambda uplink=uplink: uplink._welcome, uplink)
        uplink.close()
    assert gateway.robots == 1


# Who is alive, and who is who


def test_a_second_robot_of_the_same_name_waits_until_the_first_is_gone(house, steps):
    journal = house.journal()
    gateway = house.gateway(journal)
    first = house.uplink(gateway.address)
    steps(first, 0, 3)
    assert first.drain(15.0)
    second = Uplink(gateway.address, house.profile, "r0", house.directory / "twin", QUICK, context=house._context)
    house._closers.append(second.close)
    steps(second, 0, 3)
    house.until(lambda: gateway.counts["twin-refused"] >= 2, first, second)
    assert sequences(journal) == [0, 1, 2]
    assert second.pending == 3
    first.close()  # says goodbye
    assert second.drain(2.0)
    assert sequences(journal) == [0, 1, 2, 0, 1, 2]


def test_a_robot_that_was_killed_can_come_back_after_three_seconds(house, mini, make_step):
    journal = house.journal()
    gateway = house.gateway(journal)
    killed = greeted(house, gateway)
    killed.close()  # no goodbye
    uplink = house.uplink(gateway.address)
    uplink.append(make_step(mini, robot="r0", boot=uplink.boot))
    assert not uplink.drain(1.0)
    assert uplink.drain(6.0)


def test_both_ends_notice_within_three_seconds_that_the_other_is_gone(house, steps):
    address = house.lasting_address()
    gateway = house.gateway(house.journal(), address)
    uplink, other = house.uplink(address, "r0"), house.uplink(address, "r1")
    house.until(lambda: gateway.alive == ["r0", "r1"] and uplink.connected and other.connected, uplink, other)
    started_s = time.monotonic()
    house.until(lambda: gateway.alive == ["r0"], uplink)  # nobody pumps the other: it might as well be dead
    assert time.monotonic() - started_s < 3.5
    gateway.close()
    started_s = time.monotonic()
    house.until(lambda: not uplink.connected, uplink)
    assert time.monotonic() - started_s < 3.5


def test_a_robot_learns_how_its_clock_relates_to_the_trainers(house, mini, make_step):
    gateway = house.gateway(house.journal())
    uplink = house.uplink(gateway.address)
    assert uplink.trainer_clock is None
    house.until(lambda: uplink.trainer_clock is not None, uplink)
    clock = uplink.trainer_clock
    true_ns = time.time_ns() - time.monotonic_ns()  # both ends are on one machine
    assert abs(clock.offset_ns - true_ns) <= clock.uncertainty_ns + 100_000  # and the two readings here take time
    assert clock.uncertainty_ns < 1_000_000_000
    uplink.append(make_step(mini, robot="r0", boot=uplink.boot))
    assert uplink.drain(15.0)
    (record,) = gateway._journal.headers()
    assert record.trainer_clock is not None


def test_an_answer_to_a_question_that_was_never_asked_sets_no_clock(house):
    uplink = house.uplink("tcp://127.0.0.1:1")
    for sent_ns, time_ns in ((0, 1), (time.monotonic_ns() + 10**12, 1), (5, 0)):
        uplink._learn_clock(Welcome(protocol=PROTOCOL, sent_ns=sent_ns, time_ns=time_ns))
    assert uplink.trainer_clock is None


def test_only_a_robot_that_left_without_a_word_is_reported_as_silent(house, caplog, monkeypatch):
    monkeypatch.setattr(gateway_module, "_DEAD_AFTER_S", 0.3)
    monkeypatch.setattr(gateway_module, "_LOOK_S", 0.05)
    gateway = house.gateway(house.journal())
    polite, killed = house.uplink(gateway.address, "polite"), house.uplink(gateway.address, "killed")
    house.until(lambda: gateway.alive == ["killed", "polite"], polite, killed)
    polite.close()
    house.until(lambda: "'killed' has been silent" in caplog.text)
    assert "'polite' has been silent" not in caplog.text


@pytest.mark.parametrize("changes", [{"robot": ""}, {"robot": "x" * 257}, {"boot": ""}, {"boot": "x" * 257}])
def test_a_robot_without_a_proper_name_is_refused(house, mini, changes):
    gateway = house.gateway(house.journal())
    bare = house.socket(zmq.DEALER, gateway.address)
    bare.send_multipart(hello(mini, **changes))
    assert "longer than 256" in receive_until(bare, Refusal, sequence=-1).detail
    assert gateway.alive == []


# A spool that is full


def test_steps_that_the_robot_gave_up_are_counted_on_both_ends_and_the_rest_arrives(house, mini, make_step):
    address = house.lasting_address()
    small = UplinkSettings(resend_after_s=0.1, heartbeat_s=0.1, spool_bytes=60_000, spool_segment_bytes=20_000)
    uplink = house.uplink(address, settings=small)
    for i in range(40):
        step = make_step(mini, i, robot="r0", boot=uplink.boot, episode=i // 4, index=i % 4)
        uplink.append(step)
    assert 0 < uplink.lost < 40
    assert uplink.lost % 4 == 0  # whole episodes
    journal = house.journal()
    gateway = house.gateway(journal, address)
    assert uplink.drain(15.0)
    assert sequences(journal) == list(range(uplink.lost, 40))
    assert [record.gap for record in journal.headers()] == [True] + [False] * (39 - uplink.lost)
    assert gateway.counts["lost"] == gateway.counts["lost-by-robot"] == uplink.lost


def test_a_damaged_step_in_the_spool_is_given_up_and_the_rest_arrives(house, mini, steps):
    address = house.lasting_address()
    uplink = house.uplink(address)
    steps(uplink, 0, 6)
    (path,) = (house.directory / "spool-r0").glob("*.seg")
    data = bytearray(path.read_bytes())
    data[8 + 3 * (len(data) - 8) // 6] ^= 0xFF
    path.write_bytes(data)
    journal = house.journal()
    house.gateway(journal, address)
    assert uplink.drain(15.0)
    assert uplink.lost == 1
    assert len(sequences(journal)) == 5
