"""What systemd says of our units: is the watchdog alive, do they restart, did they give up."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial

from policyloop.doctor.finding import Check, Finding
from policyloop.doctor.scope import Scope

__all__ = ["checks"]

_WATCHED, _OTHERS = "policyloop-run.service", ("policyloop-gateway.service",)
_ASKED = "LoadState,ActiveState,SubState,Result,NRestarts,Restart,Type,WatchdogUSec"
_ANSWER_S = 2.0


def checks(scope: Scope) -> list[Check]:
    """Return the questions about our units."""
    return [Check(unit, partial(service, unit, watched=unit == _WATCHED)) for unit in (_WATCHED, *_OTHERS)]


def service(unit: str, *, watched: bool) -> Finding:
    """Tell how a unit does; `watched`: its watchdog must be alive, or a hung control loop stays hung."""
    found = _show(unit)
    if found.get("LoadState") != "loaded":
        reason = "not installed" if found else "systemd does not answer here"
        return Finding(what=unit, state="absent", found=reason, remedy="docs/service.md says how" if found else "")
    state = f"{found.get('ActiveState')} ({found.get('SubState')}), restarted {found.get('NRestarts', '0')} times"
    problem, remedy = _problem(found, watched=watched)
    if problem:
        return Finding(
            what=unit, state="wrong", found=f"{state}; {problem}", remedy=remedy.format(unit=unit), exit_code=3
        )
    if int(found.get("NRestarts", "0")) > 0:
        return Finding(what=unit, state="doubtful", found=state, remedy=f"journalctl --unit {unit} says why")
    return Finding(what=unit, state="fine", found=state)


def _problem(found: dict[str, str], *, watched: bool) -> tuple[str, str]:
    if found.get("ActiveState") == "failed":
        return f"it gave up: {found.get('Result')}", "journalctl --unit {unit} says why"
    if watched and found.get("WatchdogUSec", "0") in ("0", "infinity"):
        return "its watchdog is dead", "set WatchdogSec=1, as systemd/policyloop-run.service does"
    if watched and found.get("Type") != "notify":
        return "nobody hears its signs of life", "set Type=notify, as systemd/policyloop-run.service does"
    if found.get("Restart") == "no":
        return "it stays down after a crash", "set Restart=always"
    return "", ""


def _show(unit: str) -> dict[str, str]:
    """Return what systemd knows of a unit; empty where it does not run."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return {}
    try:
        result = subprocess.run(
            [systemctl, "show", unit, f"--property={_ASKED}"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {}
    pairs = (line.partition("=") for line in result.stdout.splitlines())
    return {name: value for name, _, value in pairs}
