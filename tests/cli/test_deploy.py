"""The whole way, as its user goes it: a checkpoint here, a robot that drives behind a real sshd."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Sshd
from tests.runtime.broken import network

from policyloop.bundle.build import Bundle, build_bundle
from policyloop.bundle.manifest import NETWORK_NAME, RKNN_NAME
from policyloop.bundle.signing import KeyRing, create_signer, sign_bundle
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.convert.export import make_golden, probe_features
from policyloop.convert.toolkit import Toolkit
from policyloop.core.features import feature_specs
from policyloop.core.files import write_directory
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step

Call = Callable[..., tuple[int, str, str]]


class Place:
    """An operator's keys, a robot's store and keys, and the arguments that every deployment needs."""

    def __init__(self, sshd: Sshd, root: Path) -> None:
        self.store, self.keys, self.trusted = Store(root / "models"), root / "operator", root / "trusted"
        self.signer = create_signer(self.keys, "ada")
        KeyRing(self.trusted).allow("ada", self.signer.public)
        self._sshd = sshd
        self.receive()
        self.how = ["robot", "--keys", self.keys, "--ssh-config", sshd.config]

    def receive(self, *options: str) -> None:
        """Tie the key to `policyloop receive` with these options."""
        program = f"env POLICYLOOP_TOOLKIT={Toolkit().directory} {shlex.quote(sys.executable)} -m policyloop"
        command = f"{program} receive {self.store.directory} --profile rover-mini --keys {self.trusted}"
        text = " ".join([command, *options])
        self._sshd.authorized.write_text(f'command="{text}",restrict {self._sshd.public}')


@pytest.fixture
def place(sshd: Sshd, tmp_path: Path) -> Iterator[Place]:
    yield Place(sshd, tmp_path)
    sshd.authorized.write_text(sshd.public)


@pytest.fixture
def bundle_at(cloned: Path, mini: RobotProfile, tmp_path: Path) -> Callable[..., Path]:
    """Return `bundle_at(version, network=None)`: a bundle on this machine, like the clone's."""

    def make(version: int, broken: bytes | None = None) -> Path:
        opened = open_bundle(cloned / "checkpoints" / "000000" / "bundle", mini)
        bundle = Bundle(opened.manifest, opened.files).revised(version=version)
        if broken is not None:
            golden = make_golden(broken, list(feature_specs(mini)), probe_features(mini, 2)).encode()
            bundle = build_bundle(bundle.manifest, {NETWORK_NAME: broken, "golden.npz": golden})
        write_directory(tmp_path / f"bundle-{version}", bundle.contents)
        return tmp_path / f"bundle-{version}"

    return make


@pytest.fixture
def drive(place: Place, spawn: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Return `drive()`: the robot's program, in a process of its own, quick to believe in a version."""

    def start() -> subprocess.Popen[str]:
        return spawn(
            "-v", "run", "--profile", "rover-mini", "--policy", place.store.directory, "--trusted", place.trusted,
            "--shadow-ticks", 5, "--probation", 2, "--json", "--arm",
        )  # fmt: skip

    return start


def test_a_checkpoint_goes_to_a_driving_robot_a_broken_one_comes_back_and_a_roll_back_needs_nobody(
    policyloop: Call,
    place: Place,
    cloned: Path,
    bundle_at: Callable[..., Path],
    drive: Callable[..., subprocess.Popen[str]],
    mini: RobotProfile,
    until: Callable[..., None],
) -> None:
    checkpoint = cloned / "checkpoints" / "000000"
    code, out, err = policyloop("deploy", checkpoint, *place.how, "--dry-run")
    assert (code, "checked" in out, place.store.versions()) == (0, True, []), err
    code, out, err = policyloop("deploy", checkpoint, *place.how, "--wait", 0)
    assert code == 0, err
    first = place.store.current
    assert first is not None
    robot = drive()
    until(lambda: place.store.state_of(first) == "good")
    code, out, err = policyloop("deploy", bundle_at(2), *place.how, "--json")
    assert code == 0, err
    second = place.store.current
    assert second is not None
    assert json.loads(out)["state"] == place.store.state_of(second) == "good"
    assert "shadow ticks: divergence mean" in json.loads(out)["note"]
    # NaN wherever a robot can be: found out before it drives; the robot goes back by itself.
    code, out, err = policyloop("deploy", bundle_at(3, network(mini, "nan", above=-0.9)), *place.how)
    assert code == 6, err
    assert "robot has rolled back: version 000003" in err
    assert place.store.current == second
    code, _, err = policyloop("deploy", bundle_at(3, network(mini, "nan", above=-0.9)), *place.how)
    assert (code, "is marked bad" in err) == (6, True)
    # The trainer is unplugged; the robot's operator has a shell there.
    code, out, err = policyloop("store", "rollback", place.store.directory)
    assert (code, out.strip()) == (0, f"{first.name} is current"), err
    time.sleep(1.0)
    robot.send_signal(signal.SIGINT)
    out, err = robot.communicate(timeout=30)
    assert robot.returncode == 0, err
    report = json.loads(out)
    assert report["ticks"] > 40
    assert report["missed"] == 0
    assert err.count("drives now") == 2


def test_a_robot_that_is_killed_on_probation_starts_with_the_version_before(
    policyloop: Call,
    place: Place,
    bundle_at: Callable[..., Path],
    drive: Callable[..., subprocess.Popen[str]],
    until: Callable[..., None],
) -> None:
    assert policyloop("deploy", bundle_at(1), *place.how, "--wait", 0)[0] == 0
    first = place.store.current
    assert first is not None
    place.store.mark(first, "good")
    robot = drive()
    assert policyloop("deploy", bundle_at(2), *place.how, "--wait", 0)[0] == 0
    second = place.store.find(2)
    until(lambda: place.store.about(second).attempts == 1)
    robot.kill()
    robot.wait()
    again = drive()
    until(lambda: place.store.current == first)
    assert place.store.state_of(second) == "bad"
    assert "died" in place.store.about(second).note
    again.send_signal(signal.SIGINT)
    assert again.wait(30) == 0


def test_a_version_that_nobody_drives_is_said_to_be_unproven(
    policyloop: Call, place: Place, bundle_at: Callable[..., Path]
) -> None:
    code, out, err = policyloop("deploy", bundle_at(1), *place.how, "--wait", 0.5)
    assert (code, "has not proved itself in time" in err) == (1, True)
    assert ": active" in out
    assert err.count("has to prove itself\n") == 1


def test_a_deployment_shows_on_a_terminal_how_long_it_may_still_take(
    on_a_terminal: Callable[..., bytes], place: Place, bundle_at: Callable[..., Path]
) -> None:
    how = {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    shown = on_a_terminal("deploy", bundle_at(1), *place.how, "--wait", 2.5, **how)
    assert re.search(rb"sending [^\r\n]*/1000", shown)
    assert re.search(rb"has to prove itself [^\r\n]*[1-9]\d\d/1000 0:00:0\d", shown)


def test_without_a_key_nothing_leaves(
    policyloop: Call, place: Place, bundle_at: Callable[..., Path], tmp_path: Path
) -> None:
    code, _, err = policyloop("deploy", bundle_at(1), *place.how, "--keys", tmp_path / "none")
    assert (code, "keys new NAME --signing" in err) == (3, True)
    code, _, err = policyloop("deploy", tmp_path / "nowhere", *place.how)
    assert (code, "no policy at" in err) == (1, True)


def test_a_bundle_that_was_signed_elsewhere_needs_no_key_here(
    policyloop: Call, place: Place, bundle_at: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = bundle_at(1)
    assert policyloop("bundle", "sign", bundle, "--keys", place.keys)[0] == 0
    how = [*place.how, "--keys", tmp_path / "none", "--wait", 0]
    code, _, err = policyloop("deploy", bundle, *how, "--expires", 3)
    assert (code, "nobody has signed" in err) == (3, True)  # with a date it is another manifest
    code, _, err = policyloop("deploy", bundle, *how)
    assert code == 0, err


def test_what_expires_says_when(
    policyloop: Call, place: Place, bundle_at: Callable[..., Path], mini: RobotProfile
) -> None:
    assert policyloop("deploy", bundle_at(1), *place.how, "--wait", 0, "--expires", 30)[0] == 0
    manifest = open_bundle(place.store.find(1), mini).manifest
    assert manifest.created < manifest.expires


@pytest.fixture
def samples(make_step: Callable[..., Step], mini: RobotProfile, tmp_path: Path) -> Path:
    """A folder of forty calibration samples."""
    folder = tmp_path / "samples"
    folder.mkdir()
    for number in range(40):
        seen = make_step(mini, number).observation
        arrays = {**seen, "depth": (seen["depth"] / 1000).astype(np.float32)}
        np.savez(folder / f"calibration_{number:04d}.npz", allow_pickle=False, **arrays)
    return folder


def test_a_robot_converts_for_its_operator_who_signs_what_comes_back(
    policyloop: Call, place: Place, cloned: Path, samples: Path, mini: RobotProfile, toolkit: Toolkit
) -> None:
    arguments = [
        "deploy", cloned / "checkpoints" / "000000", *place.how, "--wait", 0,
        "--calibration", samples, "--precision", "int8", "--convert-on-robot",
    ]  # fmt: skip
    code, _, err = policyloop(*arguments)
    assert (code, "does not convert for others" in err) == (6, True)
    place.receive("--convert")
    code, _, err = policyloop(*arguments)
    if code == 6:  # INT8 of a network that has learned next to nothing may be refused by the gate, with its numbers
        assert "int8 is refused" in err
        arguments[arguments.index("int8")] = "float16"
        code, _, err = policyloop(*arguments)
    assert code == 0, err
    opened = open_bundle(place.store.find(1), mini, KeyRing(place.trusted))
    assert opened.files[RKNN_NAME][:4] == b"RKNN"
    assert opened.signer == "ada"


def test_converting_there_needs_samples_and_a_network_that_is_one(policyloop: Call, place: Place, cloned: Path) -> None:
    code, _, err = policyloop("deploy", cloned / "checkpoints" / "000000", *place.how, "--convert-on-robot")
    assert (code, "needs samples" in err) == (2, True)


def test_a_deployment_converts_for_the_npu_when_it_is_given_samples(
    policyloop: Call,
    place: Place,
    cloned: Path,
    samples: Path,
    mini: RobotProfile,
    toolkit: Toolkit,
) -> None:
    code, _, err = policyloop(
        "deploy", cloned / "checkpoints" / "000000", *place.how, "--wait", 0,
        "--calibration", samples, "--precision", "float16", "--episodes", 0,
    )  # fmt: skip
    assert code == 0, err
    current = place.store.current
    assert current is not None
    opened = open_bundle(current, mini, KeyRing(place.trusted))
    assert opened.files[RKNN_NAME][:4] == b"RKNN"
    assert opened.manifest.conversion is not None
    assert opened.manifest.conversion.precision == "float16"
    assert json.loads(opened.files["model_version.json"])["target"] == "rk3588"


def test_a_driving_robot_pulls_what_its_trainer_offers(
    place: Place,
    bundle_at: Callable[..., Path],
    spawn: Callable[..., subprocess.Popen[str]],
    mini: RobotProfile,
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    def ship(store: Store, version: int) -> Path:
        opened = open_bundle(bundle_at(version), mini)
        bundle = Bundle(opened.manifest, opened.files)
        path = store.add(bundle)
        sign_bundle(path, bundle.manifest.encode(), place.signer)
        store.activate(path)
        return path

    place.store.mark(ship(place.store, 1), "good")
    offered = Store(tmp_path / "offered")
    newer = ship(offered, 2)
    gateway = spawn(
        "gateway", "--journal", "journal", "--profile", "rover-mini", "--port", 0, "--offer", offered.directory
    )
    assert gateway.stderr is not None
    address = gateway.stderr.readline().split()[2].rstrip(",")
    robot = spawn(
        "run", "--profile", "rover-mini", "--policy", place.store.directory, "--trusted", place.trusted,
        "--connect", address, "--pull", "activate", "--shadow-ticks", 3, "--probation", 1, "--json", "--arm",
    )  # fmt: skip
    until(lambda: any(path.name == newer.name for path in place.store.versions()))
    until(lambda: place.store.state_of(place.store.find(2)) == "good")
    robot.send_signal(signal.SIGINT)
    out, err = robot.communicate(timeout=30)
    assert robot.returncode == 0, err
    assert json.loads(out)["missed"] == 0
