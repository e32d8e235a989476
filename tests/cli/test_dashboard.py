"""`policyloop dashboard`: what it opens, for whom, and how it ends."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from policyloop.link.journal import Journal

Call = Callable[..., tuple[int, str, str]]
Spawn = Callable[..., subprocess.Popen[str]]


def said(child: subprocess.Popen[str], count: int = 1) -> list[str]:
    """Return the first lines that a dashboard says."""
    assert child.stderr is not None
    return [child.stderr.readline().strip() for _ in range(count)]


def get(url: str, path: str, context: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Ask for a path; returns status and text."""
    where = urlsplit(url)
    if context is None:
        connection = http.client.HTTPConnection(where.netloc, timeout=20)
    else:
        connection = http.client.HTTPSConnection(where.netloc, timeout=20, context=context)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_a_recording_and_its_numbers_until_it_is_asked_to_end(
    number: int, spawn: Spawn, recorded: Path, until: Callable[..., None]
) -> None:
    child = spawn("dashboard", "--journal", recorded, "--port", 0)
    (line,) = said(child)
    assert line.startswith("the dashboard is at http://127.0.0.1:")
    url = line.split()[-1]
    assert get(url, "/")[0] == 200
    until(lambda: 'policyloop_steps_total{robot="rover-0"} 80.0' in get(url, "/metrics")[1])
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")


def test_beyond_this_machine_a_token_is_made_and_shown_once(spawn: Spawn, recorded: Path, tmp_path: Path) -> None:
    arguments = ["dashboard", "--journal", recorded, "--port", 0, "--host", "0.0.0.0", "--token-file", tmp_path / "t"]
    token, where, warning = said(spawn(*arguments), 3)
    assert (tmp_path / "t").read_text().strip() in token
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600
    assert "without TLS" in warning
    assert get(where.split()[-1].replace("0.0.0.0", "127.0.0.1"), "/metrics")[0] == 401
    token, _ = said(spawn(*arguments), 2)
    assert (tmp_path / "t").read_text().strip() not in token


def test_whoever_can_command_a_robot_has_logged_in(spawn: Spawn, tmp_path: Path) -> None:
    token, where = said(spawn("dashboard", "--robot", "rover", "--port", 0, "--keys", tmp_path / "keys"), 2)
    assert token.startswith("token: ") and str(tmp_path / "dashboard-token") in token
    assert get(where.split()[-1], "/metrics")[0] == 401


def test_with_a_certificate_it_is_encrypted(spawn: Spawn, recorded: Path, tmp_path: Path) -> None:
    try:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"),
            ],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("NOT TESTED, there is no openssl to make a certificate")
    files = ["--certificate", tmp_path / "cert", "--private-key", tmp_path / "key"]
    (line,) = said(spawn("dashboard", "--journal", recorded, "--port", 0, *files))
    url = line.split()[-1]
    assert url.startswith("https://")
    assert get(url, "/", ssl.create_default_context(cafile=str(tmp_path / "cert")))[0] == 200


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "nothing to show"),
        (["--journal", "j", "--certificate", "c"], 2, "needs its key"),
        (["--journal", "j", "--plotjuggler", "nowhere"], 2, "HOST:PORT"),
        (["--journal", "j", "--host", "192.0.2.1", "--token-file", "{tmp}/t"], 4, "cannot listen"),
        (["--journal", "j", "--token-file", "{tmp}/open"], 6, "can be read by others"),
        (["--journal", "j", "--port", "0", "--certificate", "{tmp}/open", "--private-key", "{tmp}/open"], 3, "TLS"),
    ],
)
def test_what_cannot_be_is_said_with_a_remedy(
    arguments: list[str], code: int, words: str, policyloop: Call, tmp_path: Path
) -> None:
    (tmp_path / "open").write_text("x" * 64)
    (tmp_path / "open").chmod(0o644)
    result = policyloop("dashboard", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (result[0], words in result[2]) == (code, True), result[2]


def test_it_writes_nothing_into_what_it_watches(spawn: Spawn, recorded: Path, until: Callable[..., None]) -> None:
    before = {path: path.read_bytes() for path in recorded.iterdir()}
    child = spawn("dashboard", "--journal", recorded, "--port", 0)
    url = said(child)[0].split()[-1]
    until(lambda: "rover-0" in get(url, "/metrics")[1])
    journal = Journal(recorded, writable=True)  # its writer is not kept out
    journal.close()
    child.kill()
    child.wait()
    assert {path: path.read_bytes() for path in recorded.iterdir() if path.name != "lock"} == {
        path: data for path, data in before.items() if path.name != "lock"
    }
    assert json.loads((recorded / "journal.json").read_text())["profile"]["name"] == "rover-mini"
