"""`policyloop bundle` and the keys that sign, as an operator and a robot use them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bundle(cloned: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cloned / "checkpoints" / "000000" / "bundle", tmp_path / "bundle")


def test_an_operator_signs_and_a_robot_that_trusts_them_drives(policyloop: Call, bundle: Path, tmp_path: Path) -> None:
    operator, robot = tmp_path / "operator", tmp_path / "robot"
    code, public, err = policyloop("keys", "new", "ada", "--signing", "--keys", operator)
    assert code == 0, err
    code, _, err = policyloop("bundle", "verify", bundle, "--keys", robot)
    assert (code, "is not signed" in err) == (5, True)
    code, out, err = policyloop("bundle", "sign", bundle, "--keys", operator)
    assert (code, "signed by ada" in out) == (0, True), err
    drive = ["run", "--profile", "rover-mini", "--policy", bundle, "--trusted", robot, "--seconds", 0.3]
    code, _, err = policyloop(*drive)
    assert (code, "nobody who is trusted" in err) == (5, True)
    code, out, err = policyloop("keys", "allow", "ada", public.strip(), "--signing", "--keys", robot)
    assert (code, out) == (0, "what ada signs may drive\n"), err
    code, out, err = policyloop("bundle", "verify", bundle, "--keys", robot)
    assert (code, "whole, version 1, signed by ada" in out) == (0, True), err
    code, out, err = policyloop(*drive)
    assert (code, "0 errors" in out) == (0, True), err
    policyloop("keys", "revoke", "ada", "--signing", "--keys", robot)
    code, _, err = policyloop(*drive)
    assert code == 5


def test_the_keys_that_sign_are_shown_without_their_secret(policyloop: Call, tmp_path: Path) -> None:
    _, public, _ = policyloop("keys", "new", "ada", "--signing", "--keys", tmp_path)
    policyloop("keys", "allow", "bob", public.strip(), "--signing", "--keys", tmp_path)
    code, out, _ = policyloop("keys", "show", "--signing", "--keys", tmp_path)
    assert code == 0
    assert out.splitlines() == [f"ada  {public.strip()}", f"  trusts bob  {public.strip()}"]
    secret = json.loads((tmp_path / "signing.json").read_bytes())["secret"]
    _, out, _ = policyloop("keys", "show", "--signing", "--json", "--keys", tmp_path)
    assert secret not in out


def test_a_bundle_says_what_it_is(policyloop: Call, bundle: Path) -> None:
    code, out, err = policyloop("bundle", "inspect", bundle)
    assert code == 0, err
    assert "version 1" in out
    assert "policy.onnx" in out
    _, out, _ = policyloop("bundle", "inspect", bundle, "--json")
    assert json.loads(out)["profile_name"] == "rover-mini"


def test_a_tampered_bundle_is_refused(policyloop: Call, bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    _, public, _ = policyloop("keys", "new", "ada", "--signing", "--keys", keys)
    policyloop("keys", "allow", "ada", public.strip(), "--signing", "--keys", keys)
    policyloop("bundle", "sign", bundle, "--keys", keys)
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 9'))
    code, _, err = policyloop("bundle", "verify", bundle, "--keys", keys)
    assert (code, "does not fit the manifest" in err) == (5, True)


def test_an_onnx_file_drives_only_where_signatures_do_not_count(policyloop: Call, bundle: Path, tmp_path: Path) -> None:
    drive = ["run", "--profile", "rover-mini", "--policy", bundle / "policy.onnx", "--seconds", 0.2]
    assert policyloop(*drive)[0] == 0
    code, _, err = policyloop(*drive, "--trusted", tmp_path)
    assert (code, "carries no signature" in err) == (5, True)
