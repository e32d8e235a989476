"""Nobody uninvited gets in: CURVE on real sockets, an allow-list, and names bound to keys."""

import socket
import threading

import pytest
import zmq

from policyloop.errors import SafetyRefusal, UsageError
from policyloop.link import gateway as gateway_module
from policyloop.link.gateway import Gateway
from policyloop.link.keys import AllowList, create_identity
from policyloop.link.uplink import Uplink, UplinkSettings
from policyloop.wire.codec import encode
from policyloop.wire.messages import PROTOCOL, Hello

QUICK = UplinkSettings(resend_after_s=0.1, heartbeat_s=0.1, sync_every_s=0.1)


class Site:
    """A trainer with keys, and robots that have keys of their own."""

    def __init__(self, house, tmp_path):
        self.house, self.root = house, tmp_path
        self.trainer = create_identity(tmp_path / "trainer", "trainer")
        self.allowed = AllowList(tmp_path / "trainer")
        self.journal = house.journal()
        self.gateway = self.listen()

    def listen(self, address="tcp://127.0.0.1:*"):
        gateway = Gateway(self.journal, self.house.profile, address, identity=self.trainer, allowed=self.allowed)
        self.house._closers.append(gateway.close)
        gateway.start()
        return gateway

    def identity(self, name):
        return create_identity(self.root / f"keys-{name}", name)

    def uplink(self, identity, robot=None, address=None, gateway_key=None):
        uplink = Uplink(
            address or self.gateway.address,
            self.house.profile,
            robot or identity.name,
            self.root / f"spool-{robot or identity.name}",
            QUICK,
            identity=identity,
            gateway_key=gateway_key or self.trainer.public,
            context=self.house._context,
        )
        self.house._closers.append(uplink.close)
        return uplink


@pytest.fixture
def site(house, tmp_path):
    return Site(house, tmp_path)


@pytest.fixture
def steps(mini, make_step):
    def append(uplink, count=3, **changes):
        for i in range(count):
            uplink.append(make_step(mini, i, **{"robot": uplink.robot, "boot": uplink.boot, **changes}))

    return append


@pytest.fixture
def decoded(monkeypatch):
    """Return the bytes that reached the decoder."""
    seen = []
    real = gateway_module.decode_from_robot

    def spy(header):
        seen.append(header)
        return real(header)

    monkeypatch.setattr(gateway_module, "decode_from_robot", spy)
    return seen


def test_an_allowed_robot_streams(site, steps):
    robot = site.identity("r0")
    site.allowed.allow("r0", robot.public)
    uplink = site.uplink(robot)
    steps(uplink)
    assert uplink.drain(15.0)
    assert site.gateway.counts["stored"] == 3
    assert [record.robot for record in site.journal.headers()] == ["r0"] * 3


def test_a_key_covers_a_fleet_of_that_name(site, steps):
    robot = site.identity("r0")
    site.allowed.allow("r0", robot.public)
    uplink = site.uplink(robot, "r0-17")
    steps(uplink)
    assert uplink.drain(15.0)


def test_a_stranger_does_not_get_as_far_as_the_decoder(site, steps, decoded):
    uplink = site.uplink(site.identity("stranger"))
    steps(uplink)
    assert not uplink.drain(1.0)
    assert uplink.pending == 3
    assert decoded == []


def test_whoever_has_no_key_does_not_get_as_far_as_the_decoder(site, mini, decoded):
    hello = encode(Hello(protocol=PROTOCOL, robot="r0", boot="b", profile_digest=mini.digest))
    bare = site.house.socket(zmq.DEALER, site.gateway.address)
    bare.send(hello)
    port = int(site.gateway.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n" + hello * 100)
        assert not bare.poll(1000)
    assert decoded == []


def test_a_robot_talks_to_nobody_but_its_gateway(site, steps):
    """Somebody else listens at the address, with keys of his own."""
    robot = site.identity("r0")
    site.allowed.allow("r0", robot.public)
    uplink = site.uplink(robot, gateway_key=site.identity("impostor").public)
    steps(uplink)
    assert not uplink.drain(1.0)
    assert site.gateway.counts == {}


def test_a_key_does_not_speak_for_another_robot(site, steps):
    robot = site.identity("r0")
    site.allowed.allow("r0", robot.public)
    uplink = site.uplink(robot, "r1")
    steps(uplink)
    with pytest.raises(Exception, match="its key was allowed for 'r0'"):
        uplink.drain(15.0)
    assert site.journal.next == 0


def test_a_step_in_another_robots_name_is_refused_and_does_not_block(site, steps):
    robot = site.identity("r0")
    site.allowed.allow("r0", robot.public)
    uplink = site.uplink(robot)
    steps(uplink, robot="r1")
    assert uplink.drain(15.0)
    assert uplink.rejected == 3
    assert site.journal.next == 0
    assert site.gateway.counts["foreign-step"] == 3


def test_a_robot_that_is_allowed_later_gets_in(site, steps):
    robot = site.identity("r0")
    uplink = site.uplink(robot)
    steps(uplink)
    assert not uplink.drain(0.5)
    site.allowed.allow("r0", robot.public)
    assert uplink.drain(10.0)


def test_a_revoked_key_is_cut_off_within_two_seconds(site, steps, mini, make_step):
    robot = site.identity("r0")
    site.allowed.allow("r0", robot.public)
    uplink = site.uplink(robot)
    steps(uplink)
    assert uplink.drain(15.0)
    site.allowed.revoke("r0")
    site.house.until(lambda: not site.gateway._peers, timeout_s=2.5)
    uplink.append(make_step(mini, 3, robot="r0", boot=uplink.boot))
    with pytest.raises(Exception, match="not allowed any more"):
        uplink.drain(5.0)
    assert site.journal.next == 3


def test_what_was_captured_on_the_wire_and_is_sent_again_adds_nothing(site, steps):
    """A proxy records a whole conversation and plays it back: CURVE nonces make it worthless."""
    robot = site.identity("r0")
    site.allowed.allow("r0", robot.public)
    port = int(site.gateway.address.rpartition(":")[2])
    captured = bytearray()
    listener = socket.create_server(("127.0.0.1", 0))

    def relay(source, target, keep):
        try:
            while data := source.recv(65536):
                if keep:
                    captured.extend(data)
                target.sendall(data)
        except OSError:
            pass

    def serve():
        inward, _ = listener.accept()
        outward = socket.create_connection(("127.0.0.1", port))
        threads = [
            threading.Thread(target=relay, args=pair, daemon=True)
            for pair in ((inward, outward, True), (outward, inward, False))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        inward.close()
        outward.close()

    proxy = threading.Thread(target=serve, daemon=True)
    proxy.start()
    uplink = site.uplink(robot, address=f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    steps(uplink)
    assert uplink.drain(15.0)
    listener.close()
    before = dict(site.gateway.counts)
    assert len(captured) > 20_000
    with socket.create_connection(("127.0.0.1", port)) as replay:
        replay.sendall(bytes(captured))
        replay.settimeout(1.0)
        try:
            while replay.recv(65536):
                pass
        except OSError:
            pass
    assert dict(site.gateway.counts) == before
    assert site.journal.next == 3


@pytest.mark.parametrize("address", ["tcp://*:0", "tcp://0.0.0.0:0"])
def test_with_keys_a_gateway_may_listen_to_the_network(site, steps, address):
    gateway = site.listen(address)
    robot = site.identity("r0")
    site.allowed.allow("r0", robot.public)
    uplink = site.uplink(robot, address=gateway.address.replace("0.0.0.0", "127.0.0.1"))
    steps(uplink)
    assert uplink.drain(15.0)


def test_a_robot_does_not_leave_its_machine_without_keys(house, mini, tmp_path):
    with pytest.raises(SafetyRefusal, match="no keys") as caught:
        Uplink("tcp://192.0.2.1:5555", mini, "r0", tmp_path / "spool")
    assert caught.value.exit_code == 6
    assert not (tmp_path / "spool").exists()


def test_a_robot_with_keys_must_know_its_gateway(site):
    with pytest.raises(UsageError, match="gateway's public key is missing"):
        Uplink("tcp://127.0.0.1:1", site.house.profile, "r0", site.root / "spool", identity=site.identity("r0"))
