"""Deployments through a real sshd: who gets in, what is refused, and connections that are cut anywhere."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Sshd

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import SIGNATURE_NAME, KeyRing, Signer, create_signer, sign_manifest
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.core.profile import RobotProfile
from policyloop.deploy.push import Destination, push
from policyloop.deploy.session import Done, Request
from policyloop.errors import (
    ConfigError,
    ConnectionFailed,
    IncompatibleError,
    PolicyloopError,
    SafetyRefusal,
    UsageError,
    VerificationError,
)

INSTALL = Request(verb="install")
POLICYLOOP = f"{sys.executable} -m policyloop"


class Robot:
    """The far side: a store, keys, and how to get there."""

    def __init__(self, sshd: Sshd, directory: Path, signer: Signer) -> None:
        self.sshd, self.directory, self.signer = sshd, directory, signer
        self.store, self.ring = Store(directory / "store"), KeyRing(directory / "keys")
        self.ring.allow("operator", signer.public)

    @property
    def receive(self) -> str:
        """What sshd runs, whatever is asked for."""
        return f"{POLICYLOOP} receive {self.store.directory} --profile rover-mini --keys {self.ring.directory}"

    def tie(self, command: str = "") -> None:
        """Let the key do nothing but receive."""
        self.sshd.authorized.write_text(f'command="{command or self.receive}",restrict {self.sshd.public}')

    def to(self, config: Path | None = None, host: str = "robot") -> Destination:
        return Destination(host=host, ssh_config=config or self.sshd.config)

    def signed(self, bundle: Bundle) -> dict[str, bytes]:
        return {**bundle.contents, SIGNATURE_NAME: sign_manifest(bundle.manifest.encode(), self.signer)}

    def push(self, bundle: Bundle, request: Request = INSTALL, config: Path | None = None) -> Done:
        return push(self.signed(bundle), self.to(config), request)


@pytest.fixture
def robot(sshd: Sshd, tmp_path: Path) -> Iterator[Robot]:
    robot = Robot(sshd, tmp_path / "robot", create_signer(tmp_path / "operator", "operator"))
    robot.tie()
    yield robot
    sshd.authorized.write_text(sshd.public)


def refused(robot: Robot, bundle: Bundle, kind: type[PolicyloopError], words: str, **how: Path) -> PolicyloopError:
    """Check that a deployment fails with this error and leaves the robot's store as it was."""
    before = (robot.store.current, robot.store.versions())
    with pytest.raises(kind, match=words) as caught:
        robot.push(bundle, **how)
    assert (robot.store.current, robot.store.versions()) == before
    return caught.value


def test_a_bundle_arrives_is_verified_and_becomes_current(robot: Robot, exported: Bundle, mini: RobotProfile) -> None:
    said: list[str] = []
    shares: list[float] = []

    def tell(what: str, share: float | None) -> None:
        if share is None:
            said.append(what)
        else:
            assert what == "sending"
            shares.append(share)

    done = push(robot.signed(exported), robot.to(), INSTALL, tell)
    current = robot.store.current
    assert current is not None
    assert (done.version, done.state) == (current.name, "active")
    assert open_bundle(current, mini, robot.ring).signer == "operator"
    assert "robot is a rover-mini" in said[0]
    assert ["is in the store, verified" in said[1], "is current" in said[2]] == [True, True]
    assert shares == sorted(shares)
    assert len(shares) > 1
    assert shares[-1] == 1.0


def test_a_check_changes_nothing(robot: Robot, exported: Bundle) -> None:
    done = robot.push(exported, Request(verb="check"))
    assert (done.state, done.version) == ("checked", f"000007-{exported.digest[:12]}")
    assert not robot.store.directory.exists()


def test_it_can_be_sent_without_being_activated(robot: Robot, exported: Bundle) -> None:
    done = robot.push(exported, Request(verb="install", activate=False))
    assert (done.state, robot.store.current) == ("candidate", None)


def test_only_the_newest_versions_stay(robot: Robot, exported: Bundle) -> None:
    robot.tie(f"{robot.receive} --keep 2")
    for version in range(1, 6):
        robot.push(exported.revised(version=version))
    assert [path.name[:6] for path in robot.store.versions()] == ["000004", "000005"]


def test_a_free_key_is_told_what_to_run(robot: Robot, exported: Bundle) -> None:
    robot.sshd.authorized.write_text(robot.sshd.public)
    destination = Destination(
        host="robot",
        store=str(robot.store.directory),
        profile="rover-mini",
        program=f"env HOME={shlex.quote(str(robot.directory))} {POLICYLOOP}",
        ssh_config=robot.sshd.config,
    )
    with pytest.raises(VerificationError, match="nobody who is trusted"):
        push(robot.signed(exported), destination, INSTALL)
    KeyRing(robot.directory / ".config" / "policyloop" / "keys").allow("operator", robot.signer.public)
    assert push(robot.signed(exported), destination, INSTALL).state == "active"


def test_a_key_that_is_tied_to_receiving_can_do_nothing_else(robot: Robot) -> None:
    command = ["ssh", "-F", robot.sshd.config, "robot", f"touch {robot.directory}/owned"]
    done = subprocess.run(command, input=b"rubbish\n", capture_output=True, check=False)
    assert not (robot.directory / "owned").exists()
    assert b'"type":"refused"' in done.stdout
    assert done.returncode == 5


# -- ssh says no ------------------------------------------------------------------------------


def test_an_unknown_host_is_not_trusted(robot: Robot, exported: Bundle, tmp_path: Path) -> None:
    config = robot.sshd.configured("stranger", f"  UserKnownHostsFile {tmp_path}/nobody")
    error = refused(robot, exported, VerificationError, "ssh does not know robot", config=config)
    assert (error.exit_code, "fingerprint" in error.remedy) == (5, True)


def test_a_host_that_is_another_than_it_was_is_not_trusted(robot: Robot, exported: Bundle, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{robot.sshd.port} {(tmp_path / 'other.pub').read_text()}")
    config = robot.sshd.configured("changed", f"  UserKnownHostsFile {known}")
    assert refused(robot, exported, VerificationError, "ssh does not know", config=config).exit_code == 5


def test_a_key_that_the_robot_does_not_know_gets_nowhere(robot: Robot, exported: Bundle, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    config = robot.sshd.configured("key", f"  IdentityFile {tmp_path}/other", "  IdentitiesOnly yes")
    config.write_text(config.read_text().replace(f"  IdentityFile {robot.sshd.config.parent}/user\n", ""))
    assert refused(robot, exported, ConnectionFailed, "Permission denied", config=config).exit_code == 4


def test_a_robot_that_is_switched_off_cannot_be_reached(robot: Robot, exported: Bundle) -> None:
    config = robot.sshd.configured("off", "  Port 1")
    error = refused(robot, exported, ConnectionFailed, "refused", config=config)
    assert "ssh robot" in error.remedy


def test_a_robot_without_policyloop_is_told_apart(robot: Robot, exported: Bundle) -> None:
    robot.tie("no-such-program")
    error = refused(robot, exported, ConfigError, "not found")
    assert "--remote" in error.remedy
    robot.tie("echo welcome")
    refused(robot, exported, VerificationError, "the other side says 'welcome'")
    robot.tie("true")
    refused(robot, exported, ConnectionFailed, "the connection ended")


@pytest.mark.parametrize("host", ["-oProxyCommand=touch owned", ""])
def test_a_host_is_never_taken_for_an_option(robot: Robot, exported: Bundle, host: str) -> None:
    with pytest.raises(UsageError, match="is no host"):
        push(robot.signed(exported), robot.to(host=host), INSTALL)


# -- the robot says no ------------------------------------------------------------------------


def test_what_nobody_signed_does_not_leave_this_machine(robot: Robot, exported: Bundle) -> None:
    with pytest.raises(ConfigError, match="not signed"):
        push(exported.contents, robot.to(), INSTALL)


def test_what_the_robot_refuses_is_refused_here_with_its_own_exit_code(
    robot: Robot, exported: Bundle, tmp_path: Path
) -> None:
    robot.push(exported)
    stranger = create_signer(tmp_path / "stranger", "stranger")
    contents = {**exported.revised(version=8).contents}
    contents[SIGNATURE_NAME] = sign_manifest(contents["manifest.json"], stranger)
    with pytest.raises(VerificationError, match="robot: the bundle is signed by nobody who is trusted"):
        push(contents, robot.to(), INSTALL)
    refused(robot, exported.revised(version=6), VerificationError, "older than 7")
    refused(robot, exported.revised(version=8, profile_digest="0" * 64), IncompatibleError, "is for profile")
    refused(robot, exported.revised(version=8, minimum_runtime="9.0.0"), IncompatibleError, "needs policyloop 9")
    robot.push(exported.revised(version=8))
    bad = robot.store.rollback("it turned in circles")
    assert bad.name.startswith("000007")
    error = refused(robot, exported.revised(version=8), SafetyRefusal, "turned in circles")
    assert error.exit_code == 6


def test_of_two_deployments_at_once_the_second_is_told_to_wait(robot: Robot, exported: Bundle) -> None:
    with robot.store.receiving(1):
        error = refused(robot, exported, SafetyRefusal, "somebody else is sending")
    assert error.exit_code == 6
    robot.push(exported)


def test_a_full_disk_on_the_robot_is_reported_here(robot: Robot, exported: Bundle) -> None:
    robot.tie(f"ulimit -f 100; {robot.receive}")
    assert refused(robot, exported, PolicyloopError, "cannot write").exit_code == 1


def test_a_version_that_fails_while_it_is_watched_is_reported_with_its_reason(robot: Robot, exported: Bundle) -> None:
    robot.push(exported)
    newer = exported.revised(version=8)

    def drive() -> None:
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            current = robot.store.current
            if current is not None and current.name.startswith("000008"):
                robot.store.rollback("it saw ghosts")
                return
            time.sleep(0.01)

    driver = threading.Thread(target=drive)
    driver.start()
    done = robot.push(newer, Request(verb="install", wait_s=60))
    driver.join()
    assert (done.state, done.note) == ("bad", "it saw ghosts")


# -- cut connections --------------------------------------------------------------------------

PROXY = """
import os, socket, sys, threading
host, port, budget = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
link = socket.create_connection((host, port))
def down():
    while data := link.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=down, daemon=True).start()
while data := os.read(0, 65536):
    link.sendall(data[:budget])
    budget -= len(data)
    if budget <= 0:
        os._exit(1)  # the cable is out
"""


def whole(robot: Robot, profile: RobotProfile) -> int:
    """Check that everything in the robot's store is whole; returns the number of the current version."""
    for path in robot.store.versions():
        open_bundle(path, profile, robot.ring)
    current = robot.store.current
    assert current is not None
    return open_bundle(current, profile, robot.ring).manifest.version


def cut(times: int, robot: Robot, exported: Bundle, profile: RobotProfile, tmp_path: Path) -> dict[str, int]:
    """Deploy so many times over a connection that ends after some number of bytes; count how it went."""
    (tmp_path / "proxy.py").write_text(PROXY)
    robot.push(exported)
    size = sum(map(len, exported.contents.values())) + 12_000
    counts = {"cut": 0, "through": 0}
    rng = np.random.default_rng(0)
    for version in range(8, 8 + times):
        budget = int(rng.integers(0, size) if version % 2 else rng.integers(size - 30_000, size + 6000))
        proxy = f"  ProxyCommand {sys.executable} {tmp_path}/proxy.py 127.0.0.1 {robot.sshd.port} {budget}"
        try:
            robot.push(exported.revised(version=version), config=robot.sshd.configured("cut", proxy))
            counts["through"] += 1
            assert whole(robot, profile) == version
        except ConnectionFailed:
            counts["cut"] += 1
            assert whole(robot, profile) <= version
    robot.push(exported.revised(version=8 + times))
    assert whole(robot, profile) == 8 + times
    return counts


def test_a_connection_that_is_cut_anywhere_leaves_the_robot_whole(
    robot: Robot, exported: Bundle, mini: RobotProfile, tmp_path: Path
) -> None:
    assert cut(12, robot, exported, mini, tmp_path)["cut"] >= 6


@pytest.mark.long
def test_two_hundred_cut_connections(robot: Robot, exported: Bundle, mini: RobotProfile, tmp_path: Path) -> None:
    assert cut(200, robot, exported, mini, tmp_path)["cut"] >= 100


def receivers(robot: Robot) -> list[int]:
    """Return the processes that receive into the robot's store."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"receive\0{robot.store.directory}" in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def send(robot: Robot, bundle: Bundle, outcome: list[PolicyloopError]) -> None:
    """Deploy; note what went wrong."""
    try:
        robot.push(bundle)
    except PolicyloopError as error:
        outcome.append(error)


def test_a_receiver_that_is_killed_leaves_the_robot_whole(
    robot: Robot, exported: Bundle, mini: RobotProfile, until: Callable[..., None]
) -> None:
    robot.push(exported)
    rng = np.random.default_rng(0)
    for version in range(8, 18):
        outcome: list[PolicyloopError] = []
        sender = threading.Thread(target=send, args=(robot, exported.revised(version=version), outcome))
        sender.start()
        until(lambda: receivers(robot))
        time.sleep(float(rng.uniform(0, 0.6)))
        for pid in receivers(robot):
            os.kill(pid, signal.SIGKILL)
        sender.join()
        assert whole(robot, mini) <= version
        assert all(isinstance(error, ConnectionFailed) for error in outcome), outcome
    robot.push(exported.revised(version=18))
    assert whole(robot, mini) == 18
