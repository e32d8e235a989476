"""The quadruped on the command line: run, evaluate, sim as a controller's hardware, train in simulation."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.cli.machine import open_machine
from policyloop.core.clock import VirtualClock
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import ConfigError, UsageError
from policyloop.link.journal import Journal
from policyloop.robot.bridge.shared_memory import SharedMemoryBridge
from policyloop.robot.bridge.sockets import SocketBridge
from policyloop.sim.lite3_robot import SimulatedLite3

Call = Callable[..., tuple[int, str, str]]

SMALL = """
horizon = 8
hidden_sizes = [16]
steps = 1536

[ppo]
epochs = 1
"""


# -- run --------------------------------------------------------------------------------------


def test_run_walks_the_simulated_robot_in_real_time(
    lite3_bundle: Path, policyloop: Call, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = (
        "run",
        "--profile",
        "lite3",
        "--policy",
        lite3_bundle,
        "--io",
        "sim",
        "--seconds",
        3,
        "--arm",
        "--json",
    )
    code, out, err = policyloop(*arguments)
    assert code == 0, err
    assert json.loads(out)["ticks"] == 250
    assert "the robot is armed" in caplog.messages


def test_a_robot_waits_for_its_controller_and_says_so(
    lite3_bundle: Path, policyloop: Call, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = f"unix:{tmp_path / 'sock'}"
    arguments = ("run", "--profile", "lite3", "--policy", lite3_bundle, "--seconds", 0.3, "--arm")
    code, out, err = policyloop(*arguments, "--io", where)
    assert code == 0, err
    assert out.startswith("25 ticks at 83.3333 Hz")
    assert out.rstrip().endswith("disarmed")
    assert "start the controller" in caplog.text
    assert not (tmp_path / "sock").exists()


def test_an_io_that_is_none_exits_with_2_and_names_the_forms(lite3_bundle: Path, policyloop: Call) -> None:
    code, _, err = policyloop("run", "--profile", "lite3", "--policy", lite3_bundle, "--io", "ether")
    assert code == 2
    assert "--io ether" in err
    for form in ("sim", "bridge", "bridge:FILE", "unix:PATH", "tcp:PORT", "tcp:HOST:PORT", "zmq:ADDRESS"):
        assert form in err


def test_an_io_that_is_none_leaves_no_thread_behind(
    lite3_bundle: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    words = ("run", "--profile", "lite3", "--policy", lite3_bundle, "--io", "ether")
    child = spawn(*words, "--connect", "tcp://127.0.0.1:1")
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "--io ether" in err


def test_a_rover_has_no_bridge(cloned: Path, policyloop: Call) -> None:
    code, _, err = policyloop("run", "--profile", "rover-mini", "--policy", cloned / "store", "--io", "bridge")
    assert code == 3
    assert "has a camera" in err


def test_two_programs_do_not_drive_one_robot(
    lite3_bundle: Path, lite3: RobotProfile, policyloop: Call, tmp_path: Path
) -> None:
    where = f"bridge:{tmp_path / 'robot'}"
    robot, _ = open_machine(where, lite3, "dog", np.random.default_rng(0), VirtualClock())
    code, _, err = policyloop("run", "--profile", "lite3", "--policy", lite3_bundle, "--io", where, "--seconds", 0.1)
    robot.close()
    assert code == 2
    assert "Traceback" not in err


def test_only_a_controller_that_asks_sets_the_pace(lite3: RobotProfile, tmp_path: Path) -> None:
    def opened(io: str) -> tuple[object, object]:
        robot, pace = open_machine(io, lite3, "dog", np.random.default_rng(0), VirtualClock())
        robot.close()
        return type(robot), pace is None

    assert opened("sim") == (SimulatedLite3, True)
    assert opened(f"bridge:{tmp_path / 'robot'}") == (SharedMemoryBridge, True)
    assert opened(f"unix:{tmp_path / 'sock'}") == (SocketBridge, False)
    with pytest.raises(UsageError):
        opened("simulated")


def test_a_robot_that_nobody_can_simulate_is_refused(walker: RobotProfile) -> None:
    with pytest.raises(ConfigError):
        open_machine("sim", walker, "w", np.random.default_rng(0), VirtualClock())


# -- evaluate ---------------------------------------------------------------------------------


def test_evaluate_reports_walks_with_the_keys_that_others_read(lite3_bundle: Path, policyloop: Call) -> None:
    code, out, err = policyloop("evaluate", lite3_bundle, "--profile", "lite3", "--episodes", 3, "--json")
    assert code == 0, err
    report = json.loads(out)
    keys = {"episodes", "return_mean", "return_ci", "collision_rate", "distance_m", "interventions"}
    assert keys | {"driver", "gate", "randomized", "return_median", "return_iqm", "returns"} == set(report)
    assert report["episodes"] == len(report["returns"]) == 3
    assert report["collision_rate"] == 0
    assert 6 < report["return_mean"] <= 10


def test_people_read_of_walks_and_falls(lite3_bundle: Path, policyloop: Call) -> None:
    code, out, _ = policyloop("evaluate", lite3_bundle, "--episodes", 2)  # the profile is the policy's
    assert code == 0
    assert out.startswith("2 walks from seed 1000000, gate limits: return ")
    assert "falls 0%" in out


@pytest.mark.parametrize("name", ["scripted", "random"])
def test_no_script_walks(name: str, policyloop: Call) -> None:
    code, out, err = policyloop("evaluate", name, "--profile", "lite3", "--episodes", 1)
    assert (code, out) == (2, "")
    assert f"no driver '{name}' walks" in err
    assert "give a policy for this robot" in err


# -- sim --hardware ---------------------------------------------------------------------------


def test_hardware_without_a_controller_says_so(policyloop: Call, tmp_path: Path) -> None:
    code, out, err = policyloop("sim", "--profile", "lite3", "--hardware", tmp_path / "hw", "--seconds", 0.5)
    assert code == 0, err
    assert out == "0.5 s: no controller came\n"


def test_hardware_of_a_robot_without_legs_is_refused(policyloop: Call, tmp_path: Path) -> None:
    code, _, err = policyloop("sim", "--profile", "rover-mini", "--hardware", tmp_path / "hw", "--seconds", 0.1)
    assert code == 3
    assert "does not describe a Lite3" in err
    assert not (tmp_path / "hw").exists()


# -- train --simulated ------------------------------------------------------------------------


@pytest.fixture
def train(policyloop: Call, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Return `train(*arguments)`: train 64 simulated robots by a settings file of few steps."""
    (tmp_path / "small.toml").write_text(SMALL)
    folders = ["--checkpoint-dir", tmp_path / "checkpoints", "--tensorboard-dir", tmp_path / "runs"]
    folders += ["--store", tmp_path / "store", "--journal", tmp_path / "journal"]

    def call(*arguments: object) -> tuple[int, str, str]:
        words = ("train", "--profile", "lite3", "--simulated", 64, "--settings", tmp_path / "small.toml")
        return policyloop(*words, *folders, *arguments)

    return call


def test_train_learns_from_simulated_robots_and_leaves_a_policy(
    train: Call, tmp_path: Path, lite3: RobotProfile, policyloop: Call
) -> None:
    code, out, err = train("--checkpoint-interval", 2)
    assert code == 0, err
    assert out.strip() == f"policy 2 in {tmp_path / 'store'}"
    assert "update 1  512 of 1536 steps" in err
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["000002", "000003"]
    current = Store(tmp_path / "store").current
    assert current is not None
    manifest = open_bundle(current, lite3).manifest
    assert manifest.training["steps"] == 1536
    assert manifest.training["learner"] == "ppo, simulated robots"
    assert not (tmp_path / "journal").exists()
    code, out, err = policyloop("evaluate", tmp_path / "store", "--episodes", 1, "--json")
    assert code == 0, err


def test_train_goes_on_where_it_was(train: Call, tmp_path: Path) -> None:
    assert train()[0] == 0
    (tmp_path / "small.toml").write_text(SMALL.replace("1536", "2560"))
    code, out, err = train("--resume")
    assert code == 0, err
    assert out.strip() == f"policy 2 in {tmp_path / 'store'}"
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["000003", "000005"]


def test_its_checkpoints_can_be_exported_and_learned_on_from(
    train: Call, policyloop: Call, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train()[0] == 0
    checkpoint, file = tmp_path / "checkpoints" / "000003", tmp_path / "policy.onnx"
    code, _, err = policyloop("export", checkpoint, "--output", file)
    assert code == 0, err
    assert file.read_bytes() == (checkpoint / "bundle" / "policy.onnx").read_bytes()
    places = {"journal": "journal", "store": "s", "checkpoint-dir": "c", "tensorboard-dir": "r"}
    folders = [word for name, place in places.items() for word in (f"--{name}", tmp_path / place)]
    begin = ("train", "--profile", "lite3", "--network", "mlp", "--from", checkpoint, *folders)
    Journal(tmp_path / "journal", load_profile("lite3"), writable=True).close()
    code, _, err = policyloop(*begin, "--offline", "--learner", "bc", "--demonstrations", 0)
    assert code == 0, err
    assert "only its actor is taken over" in caplog.text
    assert (tmp_path / "s" / "current" / "policy.onnx").is_file()
    code, _, err = policyloop(*begin, "--simulated", 4)
    assert code == 2
    assert "takes no --from" in err


def test_a_seed_that_was_typed_is_the_seed(train: Call, tmp_path: Path, lite3: RobotProfile) -> None:
    assert train("--seed", 7)[0] == 0
    current = Store(tmp_path / "store").current
    assert current is not None
    assert open_bundle(current, lite3).manifest.training["seed"] == 7


def test_train_signs_where_it_was_asked_to(train: Call, policyloop: Call, tmp_path: Path) -> None:
    assert policyloop("keys", "new", "me", "--signing", "--keys", tmp_path / "keys")[0] == 0
    code, _, err = train("--sign", tmp_path / "keys")
    assert code == 0, err
    current = Store(tmp_path / "store").current
    assert current is not None
    assert (current / "manifest.sig").is_file()


def test_a_setting_that_is_none_exits_with_3(train: Call, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text("hops = 3\n")
    code, _, err = train()
    assert code == 3
    assert "hops" in err


def test_only_a_lite3_learns_to_walk(policyloop: Call, tmp_path: Path) -> None:
    folders = ["--checkpoint-dir", tmp_path / "c", "--tensorboard-dir", tmp_path / "r", "--store", tmp_path / "s"]
    code, _, err = policyloop("train", "--profile", "rover-mini", "--simulated", 4, *folders)
    assert code == 3
    assert "does not describe a Lite3" in err
    assert "Traceback" not in err
