"""`policyloop convert` and `policyloop toolkit`, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from policyloop.convert.toolkit import Toolkit

Call = Callable[..., tuple[int, str, str]]


def save_inputs(folder: Path, count: int, size: int = 8) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        np.savez(folder / f"calibration_{number:04d}.npz", obs=rng.normal(size=size).astype(np.float32))
    return folder


@pytest.fixture
def network(make_onnx: Callable[..., bytes], tmp_path: Path) -> Path:
    path = tmp_path / "walker.onnx"
    path.write_bytes(make_onnx("Elu"))
    return path


def test_a_foreign_network_becomes_a_file_and_a_report(
    policyloop: Call, network: Path, toolkit: Toolkit, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "walker.rknn"
    samples = save_inputs(tmp_path / "samples", 20)
    code, out, err = policyloop("convert", network, "--calibration", samples, "--output", output)
    assert code == 0, err
    assert "float16: passed" in out
    assert "estimated, not measured" in out
    assert output.read_bytes()[:4] == b"RKNN"
    assert json.loads(output.with_suffix(".json").read_bytes())["chosen"] == "float16"
    assert output.with_suffix(".html").read_text().startswith("<!doctype html>")


def test_int8_that_drives_differently_is_refused_with_a_code_of_its_own(
    policyloop: Call, make_onnx: Callable[..., bytes], toolkit: Toolkit, tmp_path: Path
) -> None:
    (tmp_path / "walker.onnx").write_bytes(make_onnx("Elu"))
    samples = save_inputs(tmp_path / "samples", 20)
    for path in sorted(samples.iterdir())[:15]:  # one feature now and then a thousand times the others
        with np.load(path) as stored:
            observation = stored["obs"].copy()
        observation[0] *= 1000
        np.savez(path, obs=observation)
    output = tmp_path / "walker.rknn"
    output.write_bytes(b"the old one")
    code, _, err = policyloop(
        "convert", tmp_path / "walker.onnx", "--calibration", samples, "--output", output, "--precision", "int8"
    )
    assert code == 6
    assert "is not written: no precision passes the gate" in err
    assert "auto or hybrid" in err
    assert output.read_bytes() == b"the old one"
    assert output.with_suffix(".html").exists()


def test_the_report_is_json_if_asked(policyloop: Call, network: Path, toolkit: Toolkit, tmp_path: Path) -> None:
    samples = save_inputs(tmp_path / "samples", 12)
    code, out, err = policyloop(
        "convert", network, "--calibration", samples, "--output", tmp_path / "walker.rknn", "--json"
    )
    assert code == 0, err
    report = json.loads(out)
    assert (report["chosen"], report["target"], report["held_out"]["count"]) == ("float16", "rk3588", 3)


def test_a_converter_that_takes_too_long_is_ended_and_leaves_the_old_file(
    policyloop: Call, network: Path, toolkit: Toolkit, tmp_path: Path
) -> None:
    samples = save_inputs(tmp_path / "samples", 12)
    output = tmp_path / "walker.rknn"
    output.write_bytes(b"the old one")
    code, _, err = policyloop("convert", network, "--calibration", samples, "--output", output, "--time-limit", "1")
    assert code == 1
    assert "took longer than 1 s" in err
    assert output.read_bytes() == b"the old one"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "int4"], 2, "--precision int4"),
        (["--target", "rk1808"], 2, "target"),
        (["--algorithm", "gdq"], 2, "algorithm"),
        ([], 2, "give --journal or --calibration"),
        (["--calibration", "empty"], 2, "holds no calibration_NNNN.npz"),
        (["--calibration", "few"], 2, "few holds 3 samples"),
        (["--calibration", "wrong"], 7, "obs is (9,), the network takes (8,)"),
        (["--journal", "nowhere"], 1, "no journal at"),
    ],
)
def test_what_does_not_fit_is_named_with_its_remedy(
    arguments: list[str],
    code: int,
    message: str,
    policyloop: Call,
    network: Path,
    toolkit: Toolkit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    save_inputs(tmp_path / "few", 3)
    save_inputs(tmp_path / "wrong", 12, size=9)
    found, _, err = policyloop("convert", network, "--output", tmp_path / "walker.rknn", *arguments)
    assert (found, message in err) == (code, True), err
    assert not (tmp_path / "walker.rknn").exists()


@pytest.mark.parametrize(
    ("operator", "opset", "code", "message"),
    [
        ("Elu", 20, 7, "opset 20"),
        ("Selu", 17, 7, "use ELU"),
        ("Acosh", 17, 7, "not known to run on RK3588"),
    ],
)
def test_a_network_that_the_npu_cannot_take_is_refused_before_it_is_converted(
    operator: str,
    opset: int,
    code: int,
    message: str,
    policyloop: Call,
    make_onnx: Callable[..., bytes],
    toolkit: Toolkit,
    tmp_path: Path,
) -> None:
    (tmp_path / "walker.onnx").write_bytes(make_onnx(operator, opset=opset))
    samples = save_inputs(tmp_path / "samples", 12)
    found, _, err = policyloop(
        "convert", tmp_path / "walker.onnx", "--calibration", samples, "--output", tmp_path / "walker.rknn"
    )
    assert (found, message in err) == (code, True), err


def test_a_board_converts_without_torch_and_without_a_simulator(
    policyloop: Call, cloned: Path, recorded: Path, toolkit: Toolkit, tmp_path: Path
) -> None:
    code, _, err = policyloop("calibrate", recorded, "--output", tmp_path / "samples", "--count", 40)
    assert code == 0, err
    absent = ("torch", "safetensors", "tensorboard", "mujoco", "gymnasium", "embreex")
    program = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        "sys.argv[0] = 'policyloop'\nfrom policyloop.cli import main\nmain()\n"
    )
    command = ["convert", cloned / "checkpoints" / "000000", "--calibration", tmp_path / "samples"]
    command += ["--precision", "float16", "--output", tmp_path / "policy.rknn"]
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "not driven: mujoco is not installed: pip install '.[sim]'" in result.stdout
    assert (tmp_path / "policy.rknn").read_bytes()[:4] == b"RKNN"


def test_without_the_toolkit_the_remedy_is_to_install_it(
    policyloop: Call, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICYLOOP_TOOLKIT", str(tmp_path / "nowhere"))
    for command in (
        ["convert", network, "--output", tmp_path / "walker.rknn", "--calibration", tmp_path],
        ["toolkit", "info"],
    ):
        code, _, err = policyloop(*command)
        assert code == 3
        assert "policyloop toolkit install" in err


def test_the_toolkit_says_where_it_is_and_is_not_installed_twice(policyloop: Call, toolkit: Toolkit) -> None:
    for command in ("info", "install"):
        code, out, err = policyloop("toolkit", command)
        assert code == 0, err
        assert str(toolkit.directory) in out
