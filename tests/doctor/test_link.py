"""Real ports, a real gateway, real keys."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from policyloop.core.profile import RobotProfile
from policyloop.doctor import link
from policyloop.doctor.scope import Scope
from policyloop.errors import ConnectionFailed, IncompatibleError, SafetyRefusal, UsageError
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.link.keys import AllowList, create_identity


@pytest.fixture
def gateway(mini: RobotProfile, tmp_path: Path) -> Iterator[Gateway]:
    journal = Journal(tmp_path / "journal", mini, writable=True)
    opened = Gateway(journal, mini, "tcp://127.0.0.1:*")
    opened.start()
    yield opened
    opened.close()
    journal.close()


def test_a_free_port_is_fine_and_stays_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    assert link.port("port", number).found == f"{number} is free"
    assert link.port("port", number).state == "fine"


def test_a_port_that_another_program_has_is_refused_and_the_program_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(0.1)
        number = other.getsockname()[1]
        with pytest.raises(ConnectionFailed, match=rf"{number} is in use by another program, .+ \(process \d+\)"):
            link.port("port", number)


def test_a_gateway_at_its_port_is_fine() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    number = router.bind_to_random_port("tcp://127.0.0.1")
    try:
        assert "ZeroMQ program" in link.port("port", number).found
    finally:
        router.close()
        context.term()


def test_the_clocks_of_one_machine_agree_and_nothing_is_stored(gateway: Gateway) -> None:
    reached, clocks = link.gateway(Scope(profile="rover-mini", gateway=gateway.address))
    assert (reached.state, clocks.state) == ("fine", "fine")
    gateway.check()
    assert not gateway.counts


def test_another_profile_is_refused_by_name(gateway: Gateway) -> None:
    with pytest.raises(IncompatibleError, match="profile"):
        link.gateway(Scope(profile="rover", gateway=gateway.address))


def test_nobody_at_the_address_is_an_error_with_what_to_start() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{number}"):
        link.gateway(Scope(gateway=f"tcp://127.0.0.1:{number}"))


@pytest.mark.parametrize("address", ["trainer", "tcp://trainer", "ipc:///tmp/x", "tcp://:5555"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        link.gateway(Scope(gateway=address))


def test_across_a_network_nothing_is_sent_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_reach", lambda host, number: None)
    with pytest.raises(SafetyRefusal):
        link.gateway(Scope(profile="rover-mini", gateway="tcp://192.0.2.1:5555"))


def test_a_machine_that_is_not_allowed_hears_nothing(
    mini: RobotProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_ECHO_S", 0.5)
    trainer = create_identity(tmp_path / "trainer", "trainer")
    robot = create_identity(tmp_path / "robot", "rover-7")
    allowed = AllowList(tmp_path / "trainer")
    journal = Journal(tmp_path / "journal", mini, writable=True)
    opened = Gateway(journal, mini, "tcp://127.0.0.1:*", identity=trainer, allowed=allowed)
    opened.start()
    scope = Scope(
        profile="rover-mini", gateway=opened.address, gateway_key=trainer.public, keys=str(tmp_path / "robot")
    )
    try:
        with pytest.raises(ConnectionFailed, match="no gateway answers"):
            link.gateway(scope)
        allowed.allow("rover-7", robot.public)
        monkeypatch.setattr(link, "_ECHO_S", 30.0)
        assert link.gateway(scope)[0].state == "fine"
    finally:
        opened.close()
        journal.close()


@pytest.mark.parametrize(
    ("skew_s", "state"), [(0.4, "fine"), (-1.05, "fine"), (1.2, "doubtful"), (-3600.0, "doubtful")]
)
def test_clocks_that_disagree_are_doubtful(skew_s: float, state: str) -> None:
    found = link.clocks(skew_s, 0.1)
    assert found.state == state
    assert ("behind" if skew_s < 0 else "ahead of") in found.found
