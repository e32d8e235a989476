"""`policyloop doctor` tells what is here from what is not, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from policyloop import doctor
from policyloop.convert.toolkit import Toolkit

Call = Callable[..., tuple[int, str, str]]


def states(out: str) -> dict[str, str]:
    return {finding["what"]: finding["state"] for finding in json.loads(out)}


def test_a_developers_machine_can_train_and_simulate_and_has_no_npu(
    policyloop: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICYLOOP_TOOLKIT", str(tmp_path / "nowhere"))
    code, out, _ = policyloop("doctor", "--json")
    assert code == 0
    assert states(out) == {
        "Python": "fine",
        "networks on the CPU": "fine",
        "training": "fine",
        "simulation": "fine",
        "conversion for the NPU": "absent",
        "NPU": "absent",
    }
    _, out, _ = policyloop("doctor")
    assert "policyloop toolkit install" in out


def test_a_whole_toolkit_is_found_and_a_damaged_one_is_wrong(
    policyloop: Call, toolkit: Toolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = policyloop("doctor", "--json")
    assert (code, states(out)["conversion for the NPU"]) == (0, "fine")
    (tmp_path / "installed.json").write_bytes(b"{")
    monkeypatch.setenv("POLICYLOOP_TOOLKIT", str(tmp_path))
    code, out, _ = policyloop("doctor", "--json")
    assert (code, states(out)["conversion for the NPU"]) == (3, "wrong")


def test_a_board_without_its_runtime_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device, library = tmp_path / "renderD129", tmp_path / "librknnrt.so"
    monkeypatch.setattr(doctor, "NPU_DEVICES", (device,))
    monkeypatch.setattr(doctor, "_LIBRARIES", (library,))
    device.touch()
    assert "no librknnrt.so" in doctor._npu().found
    library.touch()
    finding = doctor._npu()
    assert (finding.state, finding.remedy) == ("wrong", "pip install rknn-toolkit-lite2")
    assert msgspec.json.encode(finding)
