"""Try a bundle in a process of its own: one that crashes, hangs or eats the memory does it there.

python -m policyloop.runtime.trial    job on standard input, report on standard output, both JSON
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from policyloop.bundle.signing import KeyRing
from policyloop.core.parent import end_with_parent
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.errors import IncompatibleError, PolicyloopError, VerificationError, error_of
from policyloop.runtime.health import SwapSettings
from policyloop.runtime.policy import Policy

__all__ = ["load_warm", "try_bundle"]

_WARM_UP_CALLS = 3
_GOLDEN_SHARE = 1e-3
_GOLDEN_SHARE_NPU = 0.05
"""Of an action's range: what a backend may differ from the golden answers. An NPU's network was accepted with
a p99 below this (docs/conversion.md)."""


class _Job(msgspec.Struct, frozen=True):
    bundle: str
    profile: RobotProfile
    backend: str
    keys: str | None
    calls: int


class _Report(msgspec.Struct, frozen=True):
    digest: str = ""
    latency_s: float = 0.0
    """Median: the trial shares its core with the policy that drives."""
    error: str = ""
    remedy: str = ""
    exit_code: int = 0


def load_warm(path: Path, profile: RobotProfile, backend: str, ring: KeyRing | None = None) -> Policy:
    """Load a bundle, run it a few times on an empty observation, and compare it with its golden vectors.

    Raises:
        VerificationError: Its output is not finite, or not the golden one; and whatever `Policy.load` raises.
    """
    policy = Policy.load(path, profile, backend, ring)
    try:
        for _ in range(_WARM_UP_CALLS):
            if not np.isfinite(policy.mean(_empty(profile))).all():
                raise VerificationError(f"bundle {path} answers with numbers that are not finite", "do not deploy it")
        _check_golden(policy, profile, path)
    except BaseException:
        policy.close()
        raise
    return policy


def _empty(profile: RobotProfile) -> Observation:
    return Observation({name: np.zeros(spec.shape, spec.dtype) for name, spec in profile.observation_specs.items()}, 0)


def _check_golden(policy: Policy, profile: RobotProfile, path: Path) -> None:
    golden = policy.golden
    if golden is None:
        return
    try:
        for name, spec in policy.inputs.items():
            for array in golden.inputs[name]:
                spec.validate(array)
    except (KeyError, IncompatibleError) as error:
        raise VerificationError(f"bundle {path}: its golden vectors do not fit its network: {error}") from error
    allowed = _GOLDEN_SHARE_NPU if policy.backend_name == "rknn" else _GOLDEN_SHARE
    span = 2 * profile.action_half_range
    for row in range(len(golden)):
        mean = policy.infer({name: array[row] for name, array in golden.inputs.items()})
        apart = np.abs(profile.actions_of(mean) - profile.actions_of(golden.mean[row])) / span
        if not (apart <= allowed).all():
            raise VerificationError(
                f"bundle {path} does not give its golden answers here: an action is {np.max(apart):.1%} of its range "
                f"off, at most {allowed:.1%} is allowed",
                "check the backend's version; do not deploy it",
            )


def try_bundle(
    path: Path, digest: str, profile: RobotProfile, backend: str, ring: KeyRing | None, settings: SwapSettings
) -> None:
    """Open, warm up, compare and time a bundle in a child process.

    Args:
        path: The bundle.
        digest: What its manifest's hash must be.
        profile: The robot's.
        backend: Which backend opens it.
        ring: Whose signatures count.
        settings: Numbers.

    Raises:
        VerificationError: It crashes, hangs, is slow, or answers wrongly.
        PolicyloopError: Whatever else is wrong with it, or with this machine.
    """
    job = _Job(str(path), profile, backend, None if ring is None else str(ring.directory), settings.trial_calls)
    command = [sys.executable, "-m", "policyloop.runtime.trial"]
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(job), capture_output=True, timeout=settings.trial_time_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise VerificationError(f"it hangs: no end of the trial within {settings.trial_time_s:g} s") from None
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise VerificationError(f"it crashes: the trial ended with {_ending(done.returncode)} {' '.join(last)}".strip())
    try:
        report = msgspec.json.decode(done.stdout, type=_Report)
    except msgspec.DecodeError as error:
        raise VerificationError(f"the trial gave no report: {error}") from error
    if report.error:
        raise error_of(report.exit_code, report.error, report.remedy, otherwise=VerificationError)
    if report.digest != digest:
        raise VerificationError("the bundle was changed during its trial")
    allowed_s = settings.latency_share / profile.rates.control_hz
    if report.latency_s > allowed_s:
        raise VerificationError(
            f"it is slow: {1e3 * report.latency_s:.1f} ms of a tick, at most {1e3 * allowed_s:.1f} are allowed"
        )


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def main() -> None:
    """Do the job on standard input."""
    end_with_parent()
    os.nice(10)  # the policy that drives comes first
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=_Job)
    try:
        report = _try(job)
    except PolicyloopError as error:
        report = _Report(error=error.message, remedy=error.remedy, exit_code=error.exit_code)
    sys.stdout.buffer.write(msgspec.json.encode(report))


def _try(job: _Job) -> _Report:
    ring = None if job.keys is None else KeyRing(Path(job.keys))
    policy = load_warm(Path(job.bundle), job.profile, job.backend, ring)
    latencies_s = []
    for _ in range(job.calls):
        started_s = time.perf_counter()
        policy.mean(_empty(job.profile))
        latencies_s.append(time.perf_counter() - started_s)
    return _Report(policy.digest, float(np.median(latencies_s)))


if __name__ == "__main__":
    main()
