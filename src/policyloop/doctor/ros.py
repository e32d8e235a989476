"""The ROS 2 graph: topics without publishers, types and qualities that never match, rates, units.

rclpy is not imported here: our ROS package looks, where it is installed, and says what its nodes say on
`/diagnostics`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import msgspec

from policyloop.core.profile import load_profile
from policyloop.doctor.finding import Check, Finding, State
from policyloop.doctor.scope import Scope
from policyloop.errors import ConnectionFailed
from policyloop.robot.ros.diagnosis import Diagnosis, Level

__all__ = ["checks"]

_STATES: dict[Level, State] = {"ok": "fine", "warning": "doubtful", "error": "wrong"}
_WRONG = ConnectionFailed.exit_code
_SLOW = 0.9


def checks(scope: Scope) -> list[Check]:
    """Return the questions about ROS, if they are asked for."""
    return [Check("ROS", surroundings), Check("ROS topics", lambda: topics(scope.profile))] if scope.ros else []


def surroundings() -> Finding:
    """Tell what decides who sees whom: distribution, domain and middleware."""
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    about = (
        f"{os.environ.get('ROS_DISTRO', 'no distribution sourced')}, domain {domain}, "
        f"{os.environ.get('RMW_IMPLEMENTATION', 'the default middleware')}"
    )
    near = os.environ.get("ROS_LOCALHOST_ONLY") == "1" or os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
    if not domain.isdecimal() or int(domain) > 101:
        remedy = "use a number up to 101, the same on all machines of this robot and on no other's"
        return Finding(what="ROS", state="wrong", found=about, remedy=remedy, exit_code=3)
    return Finding(what="ROS", state="fine", found=about + (", this machine only" if near else ""))


def topics(profile: str) -> list[Finding] | Finding:
    """Let a node of ours listen for two seconds, as the one that drives does, and tell what it found."""
    what = "ROS topics"
    for package, remedy in (
        ("rclpy", "source /opt/ros/DISTRO/setup.bash"),
        ("policyloop_ros", "build and source the workspace: ros/policyloop_ros/README.md"),
    ):
        if find_spec(package) is None:
            return Finding(what=what, state="absent", found=f"{package} does not import here", remedy=remedy)
    result = subprocess.run(
        [sys.executable, "-m", "policyloop_ros.look", "--ros-args", "-p", f"profile:={profile}"],
        stdout=subprocess.PIPE,
        check=False,
    )
    if result.returncode:
        raise ConnectionFailed(f"listening ended with code {result.returncode}", "see its last words above")
    control_hz = load_profile(profile).rates.control_hz
    return [finding_of(found, control_hz) for found in msgspec.json.decode(result.stdout, type=list[Diagnosis])]


def finding_of(found: Diagnosis, control_hz: float) -> Finding:
    """Return a line of `/diagnostics` as a line of ours; a sensor that is slower than the control loop is doubtful."""
    rate = f", {found.values['hz']} Hz" if "hz" in found.values else ""
    state = _STATES[found.level]
    if state == "fine" and float(found.values.get("hz", "inf")) < _SLOW * control_hz:
        return Finding(
            what=found.name,
            state="doubtful",
            found=f"{found.message}{rate}, for a control loop of {control_hz:g} Hz",
            remedy="raise the driver's rate; ticks without news decide on what is old",
        )
    remedy = "" if state == "fine" else "docs/ros.md says which node publishes it, and as what"
    code = _WRONG if state == "wrong" else 0
    return Finding(what=found.name, state=state, found=found.message + rate, remedy=remedy, exit_code=code)
