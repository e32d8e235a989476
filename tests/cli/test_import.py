"""`policyloop import`: a policy that was trained elsewhere, and everything that can be wrong with it."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

Call = Callable[..., tuple[int, str, str]]
GOOD = "obs_dim: 8\nact_dim: 3\nhidden_sizes: [16]\nactivation: elu\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with `policy.pt` and `net.yaml`, and work there."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(8, 16), nn.ELU(), nn.Linear(16, 3))
    torch.save({"model_state_dict": actor.state_dict(), "iter": 3}, "policy.pt")
    Path("net.yaml").write_text(GOOD)
    return tmp_path


@pytest.fixture
def import_pt(folder: Path, policyloop: Call, walker_file: Path) -> Call:
    """Return `import_pt(*more)`: `policy.pt` with `net.yaml` into `bundle`."""

    def call(*more: object) -> tuple[int, str, str]:
        given = ["policy.pt", "--network", "net.yaml", "--profile", walker_file, "--output", "bundle"]
        return policyloop("import", *given, *more)

    return call


def test_a_checkpoint_of_another_trainer_becomes_a_bundle(import_pt: Call, policyloop: Call, walker_file: Path) -> None:
    np.savez("obs_stats.npz", mean=np.zeros(8), std=np.ones(8))
    code, out, err = import_pt("--obs-stats", "obs_stats.npz", "--policy-version", 4)
    assert code == 0, err
    assert "policy 4 for walker; onnxruntime and policy.pt differ by at most" in out
    assert "network: 8-16-3, elu" in out
    assert "normalisation: obs_stats.npz" in out
    assert "output: taken as before tanh" in out
    code, out, err = policyloop("bundle", "inspect", "bundle")
    assert (code, "version 4" in out, "network imported" in out) == (0, True, True), err


def test_statistics_are_of_what_is_sensed_or_of_what_is_scaled(import_pt: Call) -> None:
    np.savez("obs_stats.npz", mean=np.full(8, 2.0), std=np.full(8, 4.0))
    code, out, err = import_pt("--obs-stats", "obs_stats.npz", "--obs-stats-of", "scaled")
    assert (code, "normalisation: obs_stats.npz, of scaled observations" in out) == (0, True), err
    found = json.loads(Path("bundle/manifest.json").read_bytes())["normalizer"]
    assert (found["mean"], found["std"]) == ([1.0] * 6 + [2.1] * 2, [2.0] * 6 + [4.0] * 2)


@pytest.mark.parametrize(("of", "said"), [("raw", "use sensed or scaled"), ("scaled", "holds no statistics")])
def test_a_word_about_statistics_that_makes_no_sense_exits_with_2(import_pt: Call, of: str, said: str) -> None:
    code, _, err = import_pt("--obs-stats-of", of)
    assert (code, said in err, Path("bundle").exists()) == (2, True, False), err


def test_one_command_gives_a_signed_bundle(import_pt: Call, policyloop: Call, walker_file: Path) -> None:
    code, _, err = import_pt("--sign", "keys")
    assert (code, Path("bundle").exists()) == (3, False), err
    policyloop("keys", "new", "ada", "--signing", "--keys", "keys")
    public = policyloop("keys", "show", "--signing", "--keys", "keys")[1].split()[1]
    policyloop("keys", "allow", "ada", public, "--signing", "--keys", "keys")
    code, _, err = import_pt("--sign", "keys")
    assert code == 0, err
    code, out, err = policyloop("bundle", "verify", "bundle", "--keys", "keys", "--profile", walker_file)
    assert (code, "signed by ada" in out) == (0, True), err


def test_a_rover_drives_with_an_imported_policy(folder: Path, policyloop: Call) -> None:
    torch.save(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)).state_dict(), "rover.pt")
    Path("rover.yaml").write_text("obs_dim: 6\nact_dim: 2\nhidden_sizes: [16]\nactivation: tanh\n")
    rover = ["--profile", "rover-mini"]
    code, _, err = policyloop("import", "rover.pt", "--network", "rover.yaml", *rover, "--output", "bundle")
    assert code == 0, err
    code, out, err = policyloop("run", *rover, "--policy", "bundle", "--seconds", 0.3)
    assert (code, "0 errors" in out) == (0, True), err


def test_an_onnx_file_becomes_a_bundle(
    folder: Path, policyloop: Call, walker_file: Path, make_onnx: Callable[..., bytes]
) -> None:
    Path("policy.onnx").write_bytes(make_onnx("Elu"))
    code, out, err = policyloop("import", "policy.onnx", "--profile", walker_file, "--output", "bundle")
    assert code == 0, err
    assert "policy 1 for walker" in out
    assert Path("bundle/policy.onnx").is_file()


def test_an_onnx_file_of_another_robot_exits_with_7(
    folder: Path, policyloop: Call, make_onnx: Callable[..., bytes]
) -> None:
    Path("policy.onnx").write_bytes(make_onnx("Elu"))
    code, _, err = policyloop("import", "policy.onnx", "--profile", "rover-mini", "--output", "bundle")
    assert (code, "takes 'obs' float32 (1, 8)" in err, Path("bundle").exists()) == (7, True, False)


class Touches:
    """Pickled, a command to create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


def test_a_hostile_pickle_does_nothing_and_exits_with_5(import_pt: Call, folder: Path) -> None:
    hostile = pickle.dumps(Touches(folder / "touched"), protocol=2)
    Path("policy.pt").write_bytes(hostile)
    code, _, err = import_pt()
    assert (code, "it wants posix.system" in err) == (5, True)
    assert not Path("touched").exists()
    assert not Path("bundle").exists()
    pickle.loads(hostile)
    assert Path("touched").exists()  # the attack is a real one


def poisoned() -> bytes:
    state = nn.Sequential(nn.Linear(8, 16), nn.ELU(), nn.Linear(16, 3)).state_dict()
    state["2.bias"][1] = float("nan")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def statistics(length: int) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, mean=np.zeros(length), std=np.ones(length))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("code", "files", "said"),
    [
        pytest.param(1, {"policy.pt": None}, "cannot read policy.pt", id="no file"),
        pytest.param(1, {"net.yaml": None}, "cannot read net.yaml", id="no description"),
        pytest.param(5, {"policy.pt": b"junk"}, "cannot be read as a file of torch", id="no file of torch"),
        pytest.param(7, {"net.yaml": GOOD.replace("16", "17")}, "0.weight has shape (16, 8)", id="other shapes"),
        pytest.param(7, {"net.yaml": GOOD.replace("8", "9")}, "obs_dim 9, profile 'walker' has 8", id="other sizes"),
        pytest.param(
            7, {"net.yaml": GOOD + "output: linear\n"}, "output: linear, profile 'walker'", id="a linear output"
        ),
        pytest.param(3, {"net.yaml": GOOD.replace("elu", "swish")}, "use one of relu, tanh", id="no activation"),
        pytest.param(5, {"policy.pt": poisoned()}, "2.bias is not finite", id="weights that are no numbers"),
        pytest.param(7, {"stats.npz": statistics(9)}, "mean has length 9", id="statistics of other observations"),
        pytest.param(1, {"stats.npz": None}, "cannot read stats.npz", id="no statistics"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    code: int, files: dict[str, Any], said: str, import_pt: Call
) -> None:
    for name, content in files.items():
        if content is None:
            Path(name).unlink(missing_ok=True)
        else:
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found, out, err = import_pt(*(["--obs-stats", "stats.npz"] if "stats.npz" in files else []))
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    assert not Path("bundle").exists()


def test_a_bundle_that_exists_stays_as_it_is(import_pt: Call) -> None:
    Path("bundle").mkdir()
    code, _, err = import_pt()
    assert (code, "bundle exists" in err, list(Path("bundle").iterdir())) == (2, True, [])


def test_a_file_without_description_exits_with_2(folder: Path, policyloop: Call, walker_file: Path) -> None:
    code, _, err = policyloop("import", "policy.pt", "--profile", walker_file, "--output", "bundle")
    assert (code, "needs --network" in err) == (2, True)


def test_a_critic_may_be_left_out(import_pt: Call) -> None:
    actor, critic = nn.Linear(8, 16), nn.Linear(8, 1)
    last = nn.Linear(16, 3)
    modules = nn.ModuleDict({"actor": nn.Sequential(actor, nn.ELU(), last), "critic": nn.Sequential(critic)})
    torch.save(modules.state_dict(), "policy.pt")
    code, _, err = import_pt()
    assert (code, "critic.0.weight (1, 8)" in err, "--no-strict" in err) == (7, True, True)
    code, out, err = import_pt("--no-strict")
    assert (code, "actor.0.weight" in out) == (0, True), err


def test_the_command_does_not_import_what_lies_in_the_folder(import_pt: Call) -> None:
    for name in ("torch.py", "json.py", "safetensors.py", "policyloop.py"):
        Path(name).write_text("open('imported', 'w')\nraise RuntimeError\n")
    code, _, err = import_pt()
    assert (code, Path("imported").exists()) == (0, False), err
