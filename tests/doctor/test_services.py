"""What systemd says of our units: a stand-in for `systemctl`, because no test may install units."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyloop.doctor import services

RUN = "policyloop-run.service"
GOOD = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "NRestarts": "0",
    "Restart": "always",
    "Type": "notify",
    "WatchdogUSec": "1s",
}


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a `systemctl` in the path that says what is in the returned file."""
    said, script = tmp_path / "said", tmp_path / "systemctl"
    script.write_text(f"#!/bin/sh\nexec cat {said}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return said


def say(said: Path, **changes: str) -> None:
    said.write_text("".join(f"{name}={value}\n" for name, value in {**GOOD, **changes}.items()))


def test_a_unit_that_runs_and_is_watched_is_fine(systemd: Path) -> None:
    say(systemd)
    assert services.service(RUN, watched=True).state == "fine"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"WatchdogUSec": "0"}, "watchdog is dead"),
        ({"Type": "exec"}, "nobody hears"),
        ({"Restart": "no"}, "stays down"),
        ({"ActiveState": "failed", "Result": "watchdog"}, "it gave up: watchdog"),
    ],
)
def test_a_dead_watchdog_and_what_is_like_it_is_wrong(systemd: Path, changes: dict[str, str], said: str) -> None:
    say(systemd, **changes)
    found = services.service(RUN, watched=True)
    assert (found.state, found.exit_code) == ("wrong", 3)
    assert said in found.found


def test_restarts_are_doubtful(systemd: Path) -> None:
    say(systemd, NRestarts="4")
    assert services.service(RUN, watched=True).state == "doubtful"


def test_the_gateway_needs_no_watchdog(systemd: Path) -> None:
    say(systemd, WatchdogUSec="0", Type="exec")
    assert services.service("policyloop-gateway.service", watched=False).state == "fine"


def test_a_unit_that_is_not_installed_is_absent(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(systemd, LoadState="not-found")
    assert services.service(RUN, watched=True).state == "absent"
    systemd.write_text("")
    assert "systemd does not answer" in services.service(RUN, watched=True).found
    monkeypatch.setenv("PATH", "")
    assert services.service(RUN, watched=True).state == "absent"


def test_our_own_unit_has_what_the_doctor_asks_for() -> None:
    unit = (Path(__file__).parents[2] / "systemd" / RUN).read_text()
    for line in ("Type=notify", "WatchdogSec=1", "Restart=always"):
        assert line in unit
