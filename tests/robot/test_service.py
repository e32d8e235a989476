from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import IncompatibleError, StorageError
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.link.uplink import Uplink
from policyloop.robot import service
from policyloop.robot.service import UplinkThread

DEADLINE_S = 30.0
MakeStep = Callable[..., Step]


def wait_until(reached: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline_s, "not reached in time"
        time.sleep(0.002)


@pytest.fixture
def gateway(mini: RobotProfile, tmp_path: Path) -> Iterator[Gateway]:
    journal = Journal(tmp_path / "journal", mini, writable=True)
    gateway = Gateway(journal, mini, "tcp://127.0.0.1:0")
    gateway.start()
    yield gateway
    gateway.close()
    journal.close()


def start(gateway: Gateway, profile: RobotProfile, spool: Path) -> tuple[UplinkThread, str]:
    uplink = Uplink(gateway.address, profile, "r0", spool)
    return UplinkThread(uplink), uplink.boot


def stored(tmp_path: Path) -> list[int]:
    """Return the sequence numbers in the journal, in order."""
    journal = Journal(tmp_path / "journal")
    sequences = [record.sequence for record in journal.headers()]
    journal.close()
    return sequences


def test_steps_arrive_in_the_journal_in_order_and_are_acknowledged(
    gateway: Gateway, mini: RobotProfile, make_step: MakeStep, tmp_path: Path
) -> None:
    link, boot = start(gateway, mini, tmp_path / "spool")
    for sequence in range(150):  # more than may be under way at once
        link.append(make_step(mini, sequence, boot=boot))
    wait_until(lambda: gateway.counts["stored"] == 150)
    wait_until(lambda: link.pending == 0)
    link.close()
    assert link.failure is None
    assert stored(tmp_path) == list(range(150))


def test_closing_hands_over_what_is_left(
    gateway: Gateway, mini: RobotProfile, make_step: MakeStep, tmp_path: Path
) -> None:
    link, boot = start(gateway, mini, tmp_path / "spool")
    for sequence in range(40):
        link.append(make_step(mini, sequence, boot=boot))
    link.close()
    assert stored(tmp_path) == list(range(40))


def test_steps_wait_in_the_spool_while_nobody_listens_and_arrive_after_a_restart(
    gateway: Gateway, mini: RobotProfile, make_step: MakeStep, tmp_path: Path
) -> None:
    uplink = Uplink(f"ipc://{tmp_path}/nobody", mini, "r0", tmp_path / "spool")
    link = UplinkThread(uplink)
    for sequence in range(30):
        link.append(make_step(mini, sequence, boot=uplink.boot))
    wait_until(lambda: link.pending == 30)
    link.close()
    assert link.failure is None
    again, boot = start(gateway, mini, tmp_path / "spool")
    again.append(make_step(mini, 0, boot=boot))
    wait_until(lambda: gateway.counts["stored"] == 31 and again.pending == 0)
    again.close()
    assert stored(tmp_path) == [*range(30), 0]


def test_a_gateway_of_another_profile_is_a_failure_that_the_robot_survives(
    gateway: Gateway, mini: RobotProfile, make_step: MakeStep, tmp_path: Path
) -> None:
    other = msgspec.structs.replace(mini, rates=msgspec.structs.replace(mini.rates, control_hz=20.0))
    link, boot = start(gateway, other, tmp_path / "spool")
    wait_until(lambda: link.failure is not None)
    assert isinstance(link.failure, IncompatibleError)
    link.append(make_step(other, 0, boot=boot))
    assert link.pending == 1
    link.close()
    assert stored(tmp_path) == []


def test_one_bad_step_does_not_keep_the_later_ones_from_arriving(
    gateway: Gateway, mini: RobotProfile, make_step: MakeStep, tmp_path: Path
) -> None:
    link, boot = start(gateway, mini, tmp_path / "spool")
    broken = make_step(mini, 0, boot=boot)
    broken.observation["proprio"][0] = np.nan
    for step in (broken, make_step(mini, 1, boot=boot, gap=True), make_step(mini, 2, boot=boot)):
        link.append(step)
    wait_until(lambda: gateway.counts["stored"] == 2 or link.failure is not None)
    link.close()
    assert link.failure is None
    assert stored(tmp_path) == [1, 2]


def test_a_disk_that_refuses_costs_steps_but_neither_memory_nor_the_thread(
    mini: RobotProfile, make_step: MakeStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uplink = Uplink(f"ipc://{tmp_path}/nobody", mini, "r0", tmp_path / "spool")
    real, broken = uplink.append, threading.Event()
    broken.set()

    def append(step: Step) -> None:
        if broken.is_set():
            raise StorageError("no space left on device")
        real(step)

    monkeypatch.setattr(uplink, "append", append)
    link = UplinkThread(uplink)
    for sequence in range(20):
        link.append(make_step(mini, sequence, boot=uplink.boot))
    wait_until(lambda: not link._queue)
    broken.clear()
    link.append(make_step(mini, 20, boot=uplink.boot))
    wait_until(lambda: link.pending == 1 and not link._queue)
    assert link.failure is None
    link.close()


def test_a_slow_disk_fills_a_bounded_queue_and_never_holds_up_the_robot(
    mini: RobotProfile, make_step: MakeStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_QUEUE_STEPS", 10)
    uplink = Uplink(f"ipc://{tmp_path}/nobody", mini, "r0", tmp_path / "spool")
    held, real = threading.Event(), uplink.append

    def append(step: Step) -> None:
        held.wait(DEADLINE_S)
        real(step)

    monkeypatch.setattr(uplink, "append", append)
    link = UplinkThread(uplink)
    started_s = time.monotonic()
    for sequence in range(100):
        link.append(make_step(mini, sequence, boot=uplink.boot))
    assert time.monotonic() - started_s < 5.0
    assert len(link._queue) <= 10
    assert 85 <= link.lost <= 90  # one or two are in the hands of the thread
    held.set()
    link.close()
