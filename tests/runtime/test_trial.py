"""Every kind of bundle that must not get as far as a control loop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.broken import Defect, network

from policyloop.bundle.build import Bundle, build_bundle
from policyloop.bundle.golden import Golden
from policyloop.bundle.manifest import GOLDEN_NAME, NETWORK_NAME
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.errors import IncompatibleError, VerificationError
from policyloop.runtime.health import SwapSettings
from policyloop.runtime.trial import load_warm, try_bundle

QUICK = SwapSettings(trial_time_s=60, trial_calls=10)


@pytest.fixture
def made(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Callable[[bytes | None], tuple[Path, str]]:
    """Return `made(network)`: where a bundle of it is, and its digest; without golden vectors."""

    def make(data: bytes | None) -> tuple[Path, str]:
        bundle = make_bundle()
        if data is not None:
            bundle = build_bundle(bundle.manifest, {NETWORK_NAME: data})
        return Store(tmp_path).add(bundle), bundle.digest

    return make


def tried(where: tuple[Path, str], profile: RobotProfile, settings: SwapSettings = QUICK) -> None:
    try_bundle(*where, profile, "onnx", None, settings)


def test_a_whole_bundle_passes(made: Callable[..., tuple[Path, str]], mini: RobotProfile) -> None:
    tried(made(None), mini)


@pytest.mark.parametrize(
    ("defect", "words"),
    [("nan", "not finite"), ("shape", "expected"), ("raise", "crashes|indices")],
)
def test_a_broken_network_is_refused(
    made: Callable[..., tuple[Path, str]], mini: RobotProfile, defect: Defect, words: str
) -> None:
    with pytest.raises(VerificationError, match=words):
        tried(made(network(mini, defect)), mini)


def test_a_network_that_hangs_is_ended_with_its_process(
    made: Callable[..., tuple[Path, str]], mini: RobotProfile
) -> None:
    where = made(network(mini, "loop", iterations=10**12))
    with pytest.raises(VerificationError, match="it hangs: no end of the trial within 3 s"):
        tried(where, mini, SwapSettings(trial_time_s=3))
    listed = subprocess.run(["pgrep", "-f", "policyloop.runtime.trial"], capture_output=True, text=True, check=False)
    assert str(where[0]) not in listed.stdout


def test_a_network_that_is_slow_is_refused_with_its_time(
    made: Callable[..., tuple[Path, str]], mini: RobotProfile
) -> None:
    where = made(network(mini, "loop", iterations=300))
    with pytest.raises(VerificationError, match=r"it is slow: .* at most 0\.0 are allowed"):
        tried(where, mini, SwapSettings(trial_time_s=60, trial_calls=10, latency_share=1e-6))


def test_a_trial_that_crashes_takes_nobody_with_it(made: Callable[..., tuple[Path, str]], mini: RobotProfile) -> None:
    where = made(network(mini, "loop", iterations=10**12))
    children = Path(f"/proc/{os.getpid()}/task")

    def crash() -> None:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            found = {int(pid) for task in children.iterdir() for pid in (task / "children").read_text().split()}
            trials = [pid for pid in found if b"policyloop.runtime.trial" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            for pid in trials:
                os.kill(pid, signal.SIGSEGV)
            if trials:
                return
            time.sleep(0.01)

    thread = threading.Thread(target=crash)
    thread.start()
    with pytest.raises(VerificationError, match="it crashes: the trial ended with signal SIGSEGV"):
        tried(where, mini, SwapSettings(trial_time_s=30))
    thread.join()


def test_a_bundle_for_another_robot_or_changed_since_is_refused(
    made: Callable[..., tuple[Path, str]], mini: RobotProfile, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    path, digest = made(None)
    with pytest.raises(VerificationError, match="changed during its trial"):
        tried((path, "0" * 64), mini)
    other = Store(tmp_path / "other").add(make_bundle(profile_digest="0" * 64))
    with pytest.raises(IncompatibleError, match="is for profile"):
        tried((other, digest), mini)
    with pytest.raises(IncompatibleError):
        load_warm(other, mini, "onnx")


def test_a_backend_that_gives_other_answers_than_the_golden_ones_is_refused(
    tmp_path: Path, mini: RobotProfile, make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle()
    golden = Golden.decode(bundle.files[GOLDEN_NAME])
    for name, shift, refused in (("near", 1e-4, False), ("far", 0.1, True), ("nan", float("nan"), True)):
        moved = Golden(golden.inputs, (golden.mean + np.float32(shift)).astype(np.float32))
        path = Store(tmp_path / name).add(build_bundle(bundle.manifest, {**bundle.files, GOLDEN_NAME: moved.encode()}))
        if refused:
            with pytest.raises(VerificationError, match="does not give its golden answers"):
                load_warm(path, mini, "onnx")
        else:
            load_warm(path, mini, "onnx").close()


def test_golden_vectors_of_another_network_are_refused(
    tmp_path: Path, mini: RobotProfile, make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle()
    other = Golden({"proprio": np.zeros((1, 3), np.float32)}, np.zeros((1, 2), np.float32))
    path = Store(tmp_path).add(build_bundle(bundle.manifest, {**bundle.files, GOLDEN_NAME: other.encode()}))
    with pytest.raises(VerificationError, match="golden"):
        load_warm(path, mini, "onnx")
