from __future__ import annotations

import time
from pathlib import Path

import pytest

from policyloop.dashboard import access as access_module
from policyloop.dashboard.access import SESSION_S, Access, is_loopback, token_at
from policyloop.errors import ConfigError, SafetyRefusal, StorageError

TOKEN = "t" * 43


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_is_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "192.168.1.4", "::", "rover-7", "127.0.0.1.evil.example", "::ffff:10.0.0.1"]
)
def test_everything_else_is_not(host: str) -> None:
    assert not is_loopback(host)


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "config" / "token"
    token, made = token_at(path)
    assert made and len(token) >= 43
    assert path.stat().st_mode & 0o777 == 0o600
    assert token_at(path) == (token, False)
    assert token_at(tmp_path / "other")[0] != token


def test_a_token_that_others_can_read_or_guess_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token_at(path)
    path.chmod(0o640)
    with pytest.raises(SafetyRefusal, match="can be read by others"):
        token_at(path)
    path.chmod(0o600)
    path.write_text("hunter2\n")
    with pytest.raises(SafetyRefusal, match="fewer than 32"):
        token_at(path)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((StorageError, ConfigError)):
        token_at(tmp_path / "link")


def test_a_session_is_for_who_knows_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access("0.0.0.0", TOKEN)
    assert access.session("wrong") == "" == access.session("") == access.session("ü" * 43)
    session = access.session(f" {TOKEN}\n")
    assert TOKEN not in session
    assert access.is_open_to(session)
    assert Access("0.0.0.0", TOKEN).is_open_to(session), "a restart asks nobody to log in again"
    assert not Access("0.0.0.0", "u" * 43).is_open_to(session)
    assert access.is_open_to("", bearer=TOKEN)
    assert not access.is_open_to("", bearer="wrong")
    now = time.time()
    monkeypatch.setattr(access_module.time, "time", lambda: now + SESSION_S + 1)
    assert not access.is_open_to(session), "it ends"


def test_a_forged_session_opens_nothing() -> None:
    access = Access("0.0.0.0", TOKEN)
    until, seal = access.session(TOKEN).split(".")
    for forged in (
        "",
        ".",
        until,
        f"{until}.",
        f"{int(until) + 1}.{seal}",
        f"{until}.{seal[:-1]}0x",
        f"é.{seal}",
        "9" * 30,
    ):
        assert not access.is_open_to(forged)


def test_without_a_token_everything_is_open() -> None:
    assert Access("127.0.0.1", "").is_open_to("")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "localhost:9000", "[::1]:8080", "192.168.4.1:8080", "trainer:8080", "LOCALHOST", "10.0.0.2"],
)
def test_this_machines_names_and_any_address_fit(host: str) -> None:
    assert Access("trainer", TOKEN).host_fits(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil", "a:b:c"]
)
def test_the_name_of_somebody_elses_page_does_not(host: str) -> None:
    assert not Access("127.0.0.1", TOKEN).host_fits(host)


def test_a_page_is_its_own_by_scheme_host_and_port() -> None:
    access = Access("127.0.0.1", "")
    own = {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"}
    assert access.is_own_page(own)
    for origin in (
        "",
        "null",
        "http://127.0.0.1:8081",
        "https://127.0.0.1:8080",
        "http://evil.example",
        "http://127.0.0.1",
    ):
        assert not access.is_own_page({**own, "origin": origin})
    assert Access("127.0.0.1", "", secure=True).is_own_page({**own, "origin": "https://127.0.0.1:8080"})
