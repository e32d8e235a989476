"""Policies that were trained elsewhere, as bundles that drive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.convert.importer import import_policy
from policyloop.convert.operators import unsupported
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.errors import IncompatibleError, UsageError, VerificationError
from policyloop.learn.networks import ACTIVATIONS
from policyloop.runtime.policy import Policy

OBSERVED = np.linspace(-3, 4, 8, dtype=np.float32)
TEXT = "obs_dim: 8\nact_dim: 3\nhidden_sizes: [32, 16]\nactivation: {}\n"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def foreign(activation: type[nn.Module] = nn.ELU) -> nn.Sequential:
    """Return a network as another trainer makes it, its answers of the order of one."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 32), activation(), nn.Linear(32, 16), activation(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 1.5
    return network


def save(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def describe(path: Path, activation: str = "elu", more: str = "") -> Path:
    path.write_text(TEXT.format(activation) + more)
    return path


def drive(bundle: Bundle, profile: RobotProfile, tmp_path: Path) -> np.ndarray:
    """Return what a robot with this bundle does about `OBSERVED`."""
    policy = Policy.load(Store(tmp_path / "store").add(bundle), profile)
    action = policy.act(Observation({"proprio": OBSERVED}, 0))
    policy.close()
    return np.array(action.values)


def expected(network: nn.Module, profile: RobotProfile, features: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        mean = network(torch.from_numpy(features.astype(np.float32))[None])[0]
    assert 0.1 < float(mean.abs().max()) < 3  # an agreement about nothing, or about saturation, would prove nothing
    return profile.action_center + profile.action_half_range * np.tanh(mean.numpy())


@pytest.mark.parametrize("activation", ["elu", "gelu", "selu"])  # all of them: see test_export.py
def test_a_robot_does_what_the_foreign_network_says(activation: str, walker: RobotProfile, tmp_path: Path) -> None:
    network = foreign(ACTIVATIONS[activation])
    bundle = import_policy(
        save(network, tmp_path / "policy.pt"), walker, description=describe(tmp_path / "net.yaml", activation)
    )
    nominal = np.append(OBSERVED[:6] / 0.5, OBSERVED[6:] - 0.1)  # beyond 5, where our own policies are clipped
    assert np.abs(nominal).max() > 5
    np.testing.assert_allclose(drive(bundle, walker, tmp_path), expected(network, walker, nominal), atol=1e-5)
    operators = [node.op_type for node in onnx.load_from_string(bundle.files[NETWORK_NAME]).graph.node]
    assert unsupported(operators) == []


def test_the_bundle_says_what_it_is_and_where_it_comes_from(walker: RobotProfile, tmp_path: Path) -> None:
    path = save(foreign(), tmp_path / "policy.pt")
    bundle = import_policy(path, walker, description=describe(tmp_path / "net.yaml"), version=7)
    opened = open_bundle(Store(tmp_path / "store").add(bundle), walker)
    about = opened.manifest
    assert (about.version, about.network, about.noise_hold_ticks) == (7, "imported", 1)
    assert about.log_std == (-5.0,) * 3
    assert (about.parity.observations, about.parity.max_abs_error <= 1e-5) == (64, True)
    assert about.training["network"] == "8-32-16-3, elu"
    assert about.training["tensors"] == "0.weight, 0.bias, 2.weight, 2.bias, 4.weight, 4.bias"
    assert about.training["output"] == "taken as before tanh"
    assert opened.golden is not None
    assert len(opened.golden) == 4
    assert "policy.pt" in opened.files["MODEL_CARD.md"].decode()


def test_statistics_of_observations_travel_with_the_policy(walker: RobotProfile, tmp_path: Path) -> None:
    network, mean, std = foreign(), np.linspace(-1, 1, 8), np.linspace(0.5, 2, 8)
    np.savez(tmp_path / "obs_stats.npz", mean=mean, std=std)
    bundle = import_policy(
        save(network, tmp_path / "policy.pt"),
        walker,
        description=describe(tmp_path / "net.yaml"),
        statistics=tmp_path / "obs_stats.npz",
    )
    assert bundle.manifest.training["normalisation"] == "obs_stats.npz, of sensed observations"
    np.testing.assert_allclose(
        drive(bundle, walker, tmp_path), expected(network, walker, (OBSERVED - mean) / std), atol=1e-5
    )


def test_a_tanh_at_the_end_is_the_robots_own(walker: RobotProfile, tmp_path: Path) -> None:
    path = save(foreign(), tmp_path / "policy.pt")
    before = import_policy(path, walker, description=describe(tmp_path / "a.yaml"))
    with_tanh = import_policy(path, walker, description=describe(tmp_path / "b.yaml", more="output: tanh\n"))
    assert with_tanh.files[NETWORK_NAME] == before.files[NETWORK_NAME]
    assert with_tanh.manifest.training["output"].startswith("tanh;")


def test_a_description_of_another_robot_is_refused_with_both_numbers(mini: RobotProfile, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="obs_dim 8, profile 'rover-mini' has 6"):
        import_policy(save(foreign(), tmp_path / "policy.pt"), mini, description=describe(tmp_path / "net.yaml"))


def test_equal_files_give_equal_bundles(
    walker: RobotProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_onnx: Callable[..., bytes]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (tmp_path / "policy.onnx").write_bytes(make_onnx())
    digests = {import_policy(tmp_path / "policy.onnx", walker).digest for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize("ends_in_tanh", [False, True])
def test_an_onnx_file_drives_as_it_came(ends_in_tanh: bool, walker: RobotProfile, tmp_path: Path) -> None:
    network = foreign()
    whole = nn.Sequential(*network, nn.Tanh()) if ends_in_tanh else network
    (tmp_path / "policy.onnx").write_bytes(as_onnx(whole))
    bundle = import_policy(tmp_path / "policy.onnx", walker)
    nominal = np.append(OBSERVED[:6] / 0.5, OBSERVED[6:] - 0.1)
    np.testing.assert_allclose(drive(bundle, walker, tmp_path), expected(network, walker, nominal), atol=1e-5)
    assert bundle.manifest.training["output"].startswith("tanh" if ends_in_tanh else "taken as before tanh")
    assert bundle.manifest.training["tensors"] == "obs"


def as_onnx(network: nn.Sequential) -> bytes:
    """Return a graph with names of another trainer."""
    from policyloop.convert.onnx_graph import GraphWriter

    graph = GraphWriter("foreign")
    return graph.finish(graph.module(network, graph.input("obs", (8,)), "actor"), "actions", 3, {})


def test_an_onnx_file_that_answers_with_no_numbers_is_refused(
    walker: RobotProfile, tmp_path: Path, make_onnx: Callable[..., bytes]
) -> None:
    (tmp_path / "policy.onnx").write_bytes(make_onnx("Sqrt"))
    with pytest.raises(VerificationError, match="answers with NaN or infinity"):
        import_policy(tmp_path / "policy.onnx", walker)


@pytest.mark.parametrize(
    ("name", "described", "said"),
    [
        pytest.param("policy.pt", False, "a .pt file needs --network", id="a .pt file without a description"),
        pytest.param("policy.onnx", True, "an .onnx file describes itself", id="an .onnx file with one"),
        pytest.param("policy.tflite", False, "neither a .pt nor an .onnx file", id="some other file"),
    ],
)
def test_what_does_not_go_together_is_refused(
    name: str, described: bool, said: str, walker: RobotProfile, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        import_policy(tmp_path / name, walker, description=tmp_path / "net.yaml" if described else None)
