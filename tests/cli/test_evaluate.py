"""`policyloop evaluate`: what it finds, what it reports, how it ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]

QUICK = ("--episodes", 2, "--json")


def test_the_report_has_what_others_read(policyloop: Call) -> None:
    code, out, err = policyloop("evaluate", "scripted", *QUICK)
    assert code == 0
    assert err == ""
    report = json.loads(out)
    assert {"episodes", "return_mean", "return_ci", "collision_rate", "distance_m", "interventions"} <= set(report)
    assert report["driver"] == "scripted"
    assert report["gate"] == "limits"
    assert report["episodes"] == len(report["returns"]) == 2
    assert report["return_mean"] == pytest.approx(sum(report["returns"]) / 2)
    low, high = report["return_ci"]
    assert min(report["returns"]) <= low <= report["return_mean"] <= high <= max(report["returns"])
    # the teacher drives: half a minute at up to 0.6 m/s
    assert report["collision_rate"] == 0
    assert 10 < report["distance_m"] < 18.5
    assert 200 < report["return_mean"] < 360


def test_equal_arenas_give_equal_reports_and_others_others(policyloop: Call) -> None:
    first, again, other = (
        json.loads(policyloop("evaluate", "random", *QUICK, "--arena-seed", seed)[1])
        for seed in (10_000, 10_000, 10_002)
    )
    assert first == again
    assert first["returns"] != other["returns"]


def test_a_driver_is_judged_in_other_worlds(policyloop: Call, tmp_path: Path) -> None:
    ranges = tmp_path / "ranges.toml"
    ranges.write_text("command_latency_ms = [150.0, 150.0]\n")
    plain, default, late = (
        json.loads(policyloop("evaluate", "random", *QUICK, *extra)[1])
        for extra in ((), ("--randomize", "default"), ("--randomize", ranges))
    )
    assert [report["randomized"] for report in (plain, default, late)] == [False, True, True]
    assert len({report["return_mean"] for report in (plain, default, late)}) == 3
    _, out, _ = policyloop("evaluate", "random", "--episodes", 1, "--randomize", "default")
    assert "gate limits, randomized: return" in out


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "cannot read"), ("friction = [2.0, 1.0]", "friction"), ("frictoin = [0.5, 1.0]", "frictoin")],
)
def test_ranges_that_make_no_sense_exit_with_3(policyloop: Call, tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "ranges.toml"
    if text is not None:
        path.write_text(text)
    code, _, err = policyloop("evaluate", "random", *QUICK, "--randomize", path)
    assert code == 3
    assert says in err


def test_the_gate_can_be_asked_to_act(policyloop: Call) -> None:
    reports = {
        gate: json.loads(policyloop("evaluate", "random", *QUICK, "--gate", gate)[1]) for gate in ("full", "limits")
    }
    assert reports["full"]["gate"] == "full"
    assert reports["full"]["interventions"] > 0 == reports["limits"]["interventions"]


def test_people_get_a_sentence(policyloop: Call) -> None:
    code, out, _ = policyloop("evaluate", "random", "--episodes", 2)
    assert code == 0
    assert out.startswith("2 arenas from seed 1000000, gate limits: return ")
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("where", [".", "store", "checkpoints/000000", "checkpoints/000000/bundle", "checkpoints"])
def test_a_policy_is_found_behind_every_kind_of_path(where: str, cloned: Path, policyloop: Call) -> None:
    code, out, err = policyloop("evaluate", cloned / where, "--episodes", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["episodes"] == 1


def test_a_missing_path_exits_with_1_and_says_what_to_give(policyloop: Call, tmp_path: Path) -> None:
    code, out, err = policyloop("evaluate", tmp_path / "nowhere")
    assert code == 1
    assert out == ""
    assert f"no policy at {tmp_path / 'nowhere'}" in err
    assert "give a bundle, a checkpoint, a store" in err
    assert "Traceback" not in err


def test_a_policy_of_another_profile_exits_with_7(cloned: Path, policyloop: Call) -> None:
    code, _, err = policyloop("evaluate", cloned / "store", "--profile", "rover", *QUICK)
    assert code == 7
    assert "is for profile 'rover-mini'" in err


def test_a_damaged_policy_exits_with_5(cloned: Path, policyloop: Call, tmp_path: Path) -> None:
    bundle = shutil.copytree(cloned / "checkpoints" / "000000" / "bundle", tmp_path / "bundle")
    network = bundle / "policy.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"\x00\x00")
    code, _, err = policyloop("evaluate", bundle, *QUICK)
    assert code == 5
    assert "policy.onnx" in err


@pytest.mark.parametrize("text", ["", "{}"])
def test_a_damaged_manifest_exits_with_5(text: str, cloned: Path, policyloop: Call, tmp_path: Path) -> None:
    bundle = shutil.copytree(cloned / "checkpoints" / "000000" / "bundle", tmp_path / "bundle")
    (bundle / "manifest.json").write_text(text)
    assert policyloop("evaluate", bundle, *QUICK)[0] == 5


def test_ctrl_c_exits_with_130(
    spawn: Callable[..., subprocess.Popen[str]],
    until: Callable[..., None],
    handles_sigterm: Callable[[int], bool],
) -> None:
    child = spawn("evaluate", "scripted", "--episodes", 10_000)
    until(lambda: handles_sigterm(child.pid))
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err
