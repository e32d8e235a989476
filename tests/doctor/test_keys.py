"""Keys that others can read or replace, and entries that silently let nobody in."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyloop.bundle.signing import create_signer
from policyloop.doctor import keys
from policyloop.doctor.finding import Finding
from policyloop.doctor.scope import Scope
from policyloop.errors import ConfigError, SafetyRefusal
from policyloop.link.keys import AllowList, create_identity


def ask(folder: Path) -> dict[str, Finding]:
    answers = [check.ask() for check in keys.checks(Scope(keys=str(folder)))]
    return {one.what: one for one in answers if isinstance(one, Finding)}


def test_without_keys_they_are_absent(tmp_path: Path) -> None:
    assert {one.state for one in ask(tmp_path / "keys").values()} == {"absent"}


def test_keys_in_order_are_fine(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    public = create_identity(folder, "rover-7").public
    create_signer(folder, "ada")
    AllowList(folder).allow("rover-7", public)
    found = ask(folder)
    assert {what: one.state for what, one in found.items()} == {
        "keys": "fine",
        "this machine's key": "fine",
        "signing key": "fine",
        "robots that may connect": "fine",
        "whose bundles may drive": "absent",
    }
    assert found["robots that may connect"].found == "rover-7"


@pytest.mark.parametrize("name", ["identity.json", "signing.json"])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "keys"
    create_identity(folder, "rover-7")
    create_signer(folder, "ada")
    (folder / name).chmod(0o644)
    with pytest.raises(SafetyRefusal, match="can be read by others"):
        ask(folder)


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    create_identity(folder, "rover-7")
    folder.chmod(0o777)
    with pytest.raises(SafetyRefusal, match="write"):
        ask(folder)


def test_a_damaged_key_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    create_identity(folder, "rover-7")
    (folder / "identity.json").write_bytes(b"{")
    with pytest.raises(ConfigError):
        ask(folder)


def test_an_entry_that_is_none_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    AllowList(folder).allow("rover-7", create_identity(folder, "rover-7").public)
    (folder / "allowed" / "rover-8.json").write_text('{"name": "rover-8", "public": "too short"}')
    found = ask(folder)["robots that may connect"]
    assert (found.state, found.found) == ("wrong", "no entries: rover-8")
