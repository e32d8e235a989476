"""Promises R1, R2, R4, R7, R8 of the data plane: bad networks, killed processes, long silences, malformed messages."""

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from policyloop.errors import WireError
from policyloop.link.journal import Journal
from policyloop.link.uplink import UplinkSettings
from policyloop.wire.codec import decode_from_robot, decode_step, encode, encode_step, join_frames, split_frames
from policyloop.wire.messages import PROTOCOL, Hello

QUICK = UplinkSettings(resend_after_s=0.3, heartbeat_s=0.2, sync_every_s=0.1)


def sequences(journal):
    return [record.sequence for record in journal.headers()]


@pytest.fixture
def steps(mini, make_step):
    def append(uplink, first, last):
        for i in range(first, last):
            uplink.append(make_step(mini, i, robot=uplink.robot, boot=uplink.boot))

    return append


# R7: exactly once through a bad network


@pytest.mark.parametrize(
    "network",
    [
        {"delay_s": 0.05, "jitter_s": 0.15},
        {"slice_bytes": 7},
        {"bytes_per_s": 1e6 / 8, "slice_bytes": 1000},
    ],
    ids=["latency", "slices", "1 Mbit/s"],
)
def test_steps_arrive_exactly_once_through_a_slow_network(house, steps, proxy, network):
    journal = house.journal()
    gateway = house.gateway(journal)
    between = proxy(gateway.address)
    for name, value in network.items():
        setattr(between, name, value)
    uplink = house.uplink(between.address, settings=UplinkSettings(heartbeat_s=0.2))
    count = 40 if "bytes_per_s" not in network else 15
    steps(uplink, 0, count)
    assert uplink.drain(30.0)
    assert sequences(journal) == list(range(count))


def test_steps_arrive_exactly_once_while_connections_are_reset(house, steps, proxy):
    journal = house.journal()
    gateway = house.gateway(journal)
    between = proxy(gateway.address)
    uplink = house.uplink(between.address, settings=QUICK)
    for i in range(0, 100, 10):
        steps(uplink, i, i + 10)
        uplink.drain(0.15)
        between.reset()
    assert uplink.drain(15.0)
    assert sequences(journal) == list(range(100))


@pytest.mark.parametrize("direction", ["deaf", "mute"])
def test_a_network_that_is_silent_one_way_is_noticed_and_healed_within_three_seconds(house, steps, proxy, direction):
    journal = house.journal()
    gateway = house.gateway(journal)
    between = proxy(gateway.address)
    uplink = house.uplink(between.address, settings=QUICK)
    steps(uplink, 0, 5)
    assert uplink.drain(10.0)
    setattr(between, direction, True)
    steps(uplink, 5, 25)
    house.until(lambda: not uplink.connected, uplink, timeout_s=6.0)
    assert uplink.pending > 0
    setattr(between, direction, False)
    healed_s = time.monotonic()
    house.until(lambda: uplink.connected, uplink)
    assert time.monotonic() - healed_s < 3.0
    assert uplink.drain(15.0)
    assert sequences(journal) == list(range(25))


# R1: what was acknowledged survives a gateway that is killed at any moment

GATEWAY = """
import sys
from pathlib import Path
from policyloop.core.profile import load_profile
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
profile = load_profile("rover-mini")
journal = Journal(Path(sys.argv[1]), profile, writable=True)
gateway = Gateway(journal, profile, sys.argv[2])
gateway.start()
print("ready", flush=True)
sys.stdin.read()
"""


def killed_again_and_again(house, mini, make_step, *, count, kills):
    """Stream `count` steps into a gateway that is killed `kills` times; returns journal and acknowledged steps."""
    address, place = house.lasting_address(), house.directory / "killed"
    chance = random.Random(1)
    uplink = house.uplink(address, settings=QUICK)
    appended = 0
    acknowledged = 0

    def start():
        child = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, place, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        child.stdout.readline()
        return child

    for kill in range(kills):
        child = start()
        target = count * (kill + 1) // kills
        until_s = time.monotonic() + chance.uniform(0.02, 0.3)
        first_ack_s = None
        started_s, before = time.monotonic(), appended - uplink.pending
        while time.monotonic() < until_s or appended < target or first_ack_s is None:
            for _ in range(min(8, target - appended)):
                uplink.append(make_step(mini, appended, robot="r0", boot=uplink.boot, index=appended % 300))
                appended += 1
            uplink.pump(0.001)
            if first_ack_s is None and (appended - uplink.pending > before or not uplink.pending):
                first_ack_s = time.monotonic()
        assert first_ack_s - started_s < 5.0
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        acknowledged = max(acknowledged, appended - uplink.pending)
    journal = Journal(place)
    stored = sequences(journal)
    journal.close()
    assert stored == list(range(len(stored)))  # none lost, none twice, in order
    assert len(stored) >= acknowledged
    journal = Journal(place, mini, writable=True)
    house.gateway(journal, address)
    house._closers.insert(0, journal.close)
    assert uplink.drain(30.0)
    assert sequences(journal) == list(range(count))


def test_r1_a_gateway_that_is_killed_again_and_again_loses_and_repeats_nothing(house, mini, make_step):
    killed_again_and_again(house, mini, make_step, count=400, kills=6)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_r1_two_hundred_kills_in_twenty_thousand_steps(house, mini, make_step):
    killed_again_and_again(house, mini, make_step, count=20_000, kills=200)


# R2: a link that is down for ten minutes at 30 Hz


def test_r2_ten_minutes_without_a_link_lose_nothing(house, mini, make_step):
    address, count = house.lasting_address(), 18_000
    uplink = house.uplink(address, settings=QUICK)
    step = make_step(mini, robot="r0", boot=uplink.boot)
    for i in range(count):  # as fast as the disk takes them: nobody waits ten minutes
        record = msgspec.structs.replace(step.record, sequence=i, episode=i // 300, index=i % 300)
        uplink.append(msgspec.structs.replace(step, record=record))
    assert uplink.pending == count
    journal = house.journal()
    house.gateway(journal, address)
    assert uplink.drain(120.0)
    records = list(journal.headers())
    assert [record.sequence for record in records] == list(range(count))
    assert [(record.episode, record.index) for record in records] == [(i // 300, i % 300) for i in range(count)]
    assert uplink.lost == 0


# R8: malformed messages


def mutations(frames, rng, count):
    """Yield `count` messages that are almost right: bytes changed, cut, doubled; frames swapped, dropped, absurd."""
    header = msgspec.msgpack.decode(frames[0])
    for i in range(count):
        mutated = [bytearray(frame) for frame in frames]
        kind = i % 8
        which = int(rng.integers(len(mutated)))
        if kind < 3:
            for _ in range(int(rng.integers(1, 6))):
                mutated[which][rng.integers(len(mutated[which]))] = rng.integers(256)
        elif kind == 3:
            del mutated[which][rng.integers(len(mutated[which])) :]
        elif kind == 4:
            mutated[which] = mutated[which] * int(rng.integers(2, 4))
        elif kind == 5:
            mutated[which], mutated[-1] = mutated[-1], mutated[which]
        elif kind == 6:
            mutated = mutated[: int(rng.integers(len(mutated)))] or [bytearray()]
        else:
            mutated[0] = bytearray(msgspec.msgpack.encode(structural_lie(header, rng)))
        yield [bytes(frame) for frame in mutated]


_LIES = (None, True, -1, 2**63 - 1, 1e308, float("nan"), float("inf"), "", "x" * 300, [], [[[]]], {}, b"\xff" * 20)


def structural_lie(header, rng):
    """Return the header with one value, anywhere in it, replaced by something absurd."""
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(header))
    place = copy
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[rng.integers(len(keys))]
        if isinstance(place[key], (dict, list)) and len(place[key]) and rng.random() < 0.8:
            place = place[key]
            continue
        place[key] = _LIES[rng.integers(len(_LIES))]
        return copy


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_process(mini, make_step, count):
    rng = np.random.default_rng(0)
    frames = encode_step(make_step(mini, truncated=True), mini)
    outcomes = {"refused": 0, "taken": 0}
    gc.collect()
    before = resident_bytes()
    for message in mutations(frames, rng, count):
        try:
            header = decode_from_robot(message[0])
            decode_step(header, message[1:], mini)
            outcomes["taken"] += 1
        except WireError:
            outcomes["refused"] += 1
        except AttributeError:
            assert isinstance(header, Hello)  # a mutation made a greeting of it
    gc.collect()
    assert outcomes["refused"] > 0.5 * count
    assert resident_bytes() - before < 50 << 20


def test_r8_mutated_messages_raise_nothing_but_wire_errors(mini, make_step):
    in_process(mini, make_step, 100_000)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_r8_a_million_mutated_messages_raise_nothing_but_wire_errors(mini, make_step):
    in_process(mini, make_step, 1_000_000)


def test_r8_mutated_messages_over_a_socket_leave_an_honest_robot_alone(house, mini, make_step, steps):
    journal = house.journal()
    gateway = house.gateway(journal)
    honest = house.uplink(gateway.address, "honest")
    bare = house.socket(zmq.DEALER, gateway.address)
    bare.send(encode(Hello(protocol=PROTOCOL, robot="r0", boot="b0", profile_digest=mini.digest)))
    frames = encode_step(make_step(mini, robot="r0", boot="b0"), mini)
    before = resident_bytes()
    for i, message in enumerate(mutations(frames, np.random.default_rng(1), 10_000)):
        bare.send_multipart(message)
        if i % 100 == 0:
            steps(honest, i // 100, i // 100 + 1)
            honest.pump()
            with contextlib.suppress(zmq.Again):
                while True:
                    bare.recv_multipart(zmq.DONTWAIT)
    assert honest.drain(30.0)
    assert gateway.failure is None
    assert [record.sequence for record in journal.headers() if record.robot == "honest"] == list(range(100))
    assert resident_bytes() - before < 50 << 20
    handled = sum(gateway.counts.values())
    assert handled > 5000


def test_r8_a_record_cut_anywhere_is_refused(mini, make_step):
    record = join_frames(encode_step(make_step(mini), mini))
    for cut in [*range(200), *range(200, len(record), 97)]:
        with pytest.raises(WireError):
            frames = split_frames(record[:cut])
            decode_step(decode_from_robot(frames[0]), frames[1:], mini)
