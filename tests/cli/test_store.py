"""`policyloop store`: what a person does on the robot, with the trainer unplugged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import KeyRing, load_signer
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.core.profile import RobotProfile

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(cloned: Path, mini: RobotProfile, tmp_path: Path) -> Path:
    """Versions 1 to 3 of one policy, the third current."""
    opened = open_bundle(cloned / "checkpoints" / "000000" / "bundle", mini)
    made = Store(tmp_path / "store")
    for version in (1, 2, 3):
        made.activate(made.add(Bundle(opened.manifest, opened.files).revised(version=version)))
    return made.directory


def states(out: str) -> list[tuple[str, bool]]:
    return [(entry["state"], entry["current"]) for entry in json.loads(out)]


def test_a_roll_back_is_one_command(policyloop: Call, store: Path) -> None:
    code, out, err = policyloop("store", "rollback", store)
    assert (code, out.startswith("000002-")) == (0, True), err
    _, out, _ = policyloop("store", "list", store, "--json")
    assert states(out) == [("candidate", False), ("good", True), ("bad", False)]
    code, _, err = policyloop("store", "activate", store, 3)
    assert (code, "is marked bad" in err) == (6, True)
    code, _, err = policyloop("store", "rollback", store)
    assert (code, "no version to go back to" in err) == (2, True)


def test_an_archive_goes_from_hand_to_hand(policyloop: Call, cloned: Path, mini: RobotProfile, tmp_path: Path) -> None:
    operator, trusted, archive = tmp_path / "operator", tmp_path / "trusted", tmp_path / "policy.tar"
    take_in = ["store", "add", tmp_path / "robot", archive, "--profile", "rover-mini", "--keys", trusted]
    code, _, err = policyloop(*take_in)
    assert (code, "cannot read" in err) == (1, True)
    policyloop("keys", "new", "ada", "--signing", "--keys", operator)
    code, out, err = policyloop("bundle", "pack", cloned / "store", "--output", archive, "--keys", operator)
    assert (code, "version 1 for rover-mini" in out) == (0, True), err
    code, _, err = policyloop(*take_in)
    assert (code, "nobody who is trusted" in err) == (5, True)
    KeyRing(trusted).allow("ada", load_signer(operator).public)
    code, out, err = policyloop(*take_in)
    assert (code, "verified" in out) == (0, True), err
    assert policyloop("store", "activate", tmp_path / "robot", 1)[0] == 0


def test_a_list_says_why_a_version_is_bad(policyloop: Call, store: Path) -> None:
    Store(store).rollback("it turned in circles")
    _, out, _ = policyloop("store", "list", store)
    assert out.splitlines()[2].split(maxsplit=2)[1:] == ["bad", "it turned in circles"]


def test_versions_are_activated_and_judged_by_number(policyloop: Call, store: Path) -> None:
    assert policyloop("store", "mark-good", store, 1)[0] == 0
    assert policyloop("store", "activate", store, 1)[0] == 0
    _, out, _ = policyloop("store", "list", store)
    assert out.splitlines()[0].startswith("-> 000001-")
    assert out.splitlines()[0].split()[2] == "good"
    code, _, err = policyloop("store", "activate", store, 9)
    assert (code, "has no version 9" in err) == (2, True)


def test_a_damaged_version_is_found(policyloop: Call, store: Path) -> None:
    code, out, err = policyloop("store", "verify", store)
    assert (code, out.count(": whole")) == (0, 3), err
    network = Store(store).versions()[1] / "policy.onnx"
    network.write_bytes(network.read_bytes()[:-1])
    code, out, _ = policyloop("store", "verify", store)
    assert (code, out.count(": whole")) == (5, 2)
    code, out, _ = policyloop("store", "verify", store, "--trusted", "--keys", store)
    assert (code, out.count("is not signed")) == (5, 3)


def test_old_versions_are_deleted_and_a_dry_run_says_which(policyloop: Call, store: Path) -> None:
    oldest = Store(store).versions()[0]
    size = sum(path.stat().st_size for path in oldest.iterdir())
    before = sorted(store.rglob("*"))
    code, out, err = policyloop("store", "prune", store, "--keep", 1, "--dry-run")
    assert (code, out) == (0, f"{oldest.name}  {size} bytes\n1 versions would be deleted, {size} bytes freed\n"), err
    _, out, _ = policyloop("store", "prune", store, "--keep", 1, "--dry-run", "--json")
    assert json.loads(out) == {"deleted": False, "versions": {oldest.name: size}}
    assert sorted(store.rglob("*")) == before
    code, out, err = policyloop("store", "prune", store, "--keep", 1)
    assert (code, out) == (0, f"{oldest.name}  {size} bytes\n1 versions deleted, {size} bytes freed\n"), err
    assert len(Store(store).versions()) == 2


def test_a_store_without_versions_says_so(policyloop: Call, tmp_path: Path) -> None:
    code, out, err = policyloop("store", "list", tmp_path / "nowhere")
    assert (code, out) == (0, "")
    assert "no versions in" in err
