"""Networks whose output is linear drive robots whose action map is linear, and no others."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.convert.importer import import_policy
from policyloop.convert.onnx_graph import GraphWriter
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Action, Observation
from policyloop.errors import IncompatibleError
from policyloop.runtime.policy import Policy

OBSERVED = np.linspace(-3, 4, 8, dtype=np.float32)
SEEN = np.append(OBSERVED[:6] / 0.5, OBSERVED[6:] - 0.1)  # by the walker's centres and scales
CENTERS, SCALES = (0.1, 0.4, -0.05), (0.125, 0.25, 0.5)
YAML = "obs_dim: 8\nact_dim: 3\nhidden_sizes: [16]\nactivation: elu\n"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def linear(walker: RobotProfile) -> RobotProfile:
    """The walker with a linear action map."""
    action = tuple(
        msgspec.structs.replace(entry, center=center, scale=scale)
        for entry, center, scale in zip(walker.action, CENTERS, SCALES, strict=True)
    )
    return msgspec.structs.replace(walker, action=action, action_map="linear")


def foreign() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ELU(), nn.Linear(16, 3))
    with torch.no_grad():
        network[2].weight *= 3
    return network


def as_onnx(network: nn.Sequential, path: Path) -> Path:
    graph = GraphWriter("foreign")
    path.write_bytes(graph.finish(graph.module(network, graph.input("obs", (8,)), "actor"), "actions", 3, {}))
    return path


def as_pt(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def described(path: Path, more: str = "") -> Path:
    path.write_text(YAML + more)
    return path


def driven(bundle: Bundle, profile: RobotProfile, folder: Path) -> Action:
    policy = Policy.load(Store(folder / "store").add(bundle), profile)
    action = policy.act(Observation({"proprio": OBSERVED}, 0))
    policy.close()
    return action


def answer(network: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(SEEN.astype(np.float32))[None])[0].numpy()


@pytest.mark.parametrize("said", ["", "output: linear\n"], ids=["nothing said", "said so"])
def test_a_state_dict_gives_the_action_without_a_tanh(said: str, linear: RobotProfile, tmp_path: Path) -> None:
    network = foreign()
    bundle = import_policy(
        as_pt(network, tmp_path / "policy.pt"), linear, description=described(tmp_path / "net.yaml", said)
    )
    raw = answer(network)
    assert np.abs(raw).max() > 2  # where a tanh would have made something else of it
    action = driven(bundle, linear, tmp_path)
    np.testing.assert_allclose(action.values, np.array(CENTERS) + np.array(SCALES) * raw, atol=1e-5)
    assert action.behaviour is not None
    np.testing.assert_allclose(action.behaviour.sample, raw, atol=1e-5)  # what `last_action` is made of
    assert bundle.manifest.training["output"] == "linear: target = center + scale * output"


def test_an_onnx_file_gives_the_action_without_a_tanh(linear: RobotProfile, tmp_path: Path) -> None:
    network = foreign()
    bundle = import_policy(as_onnx(network, tmp_path / "policy.onnx"), linear)
    expected = np.array(CENTERS) + np.array(SCALES) * answer(network)
    np.testing.assert_allclose(driven(bundle, linear, tmp_path).values, expected, atol=1e-5)
    assert bundle.manifest.training["output"].startswith("linear")


def test_a_tanh_at_the_end_of_an_onnx_file_stays_where_nobody_else_applies_it(
    linear: RobotProfile, tmp_path: Path
) -> None:
    network = nn.Sequential(*foreign(), nn.Tanh())
    bundle = import_policy(as_onnx(network, tmp_path / "policy.onnx"), linear)
    expected = np.array(CENTERS) + np.array(SCALES) * answer(network)
    np.testing.assert_allclose(driven(bundle, linear, tmp_path).values, expected, atol=1e-5)
    assert bundle.manifest.training["output"].startswith("linear")


def test_a_linear_output_is_no_policy_of_a_robot_that_applies_tanh(walker: RobotProfile, tmp_path: Path) -> None:
    said = "description says output: linear, profile 'walker' has a tanh action map"
    with pytest.raises(IncompatibleError, match=said) as caught:
        import_policy(
            as_pt(foreign(), tmp_path / "policy.pt"),
            walker,
            description=described(tmp_path / "net.yaml", "output: linear\n"),
        )
    assert caught.value.remedy == "correct the one that is wrong"


@pytest.mark.parametrize("output", ["before_tanh", "tanh"])
def test_an_output_for_tanh_is_no_policy_of_a_robot_without(output: str, linear: RobotProfile, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match=f"output: {output}, profile 'walker' has a linear action map"):
        import_policy(
            as_pt(foreign(), tmp_path / "policy.pt"),
            linear,
            description=described(tmp_path / "net.yaml", f"output: {output}\n"),
        )


# -- the Lite3's vendor's own policy ----------------------------------------------------------

REST = (0.1561, -0.1595, -0.3759, -0.1458, -0.1889, -0.3710, 0.1594, -0.2870, -0.4708, -0.5470, 0.1585, -0.4151)
AHEAD = (0.3339, -0.3526, -0.3516, 0.3341, -0.2250, 0.1162, 0.1105, -0.5636, -0.2814, -0.9610, -0.3874, -0.6368)
ONES = (-2.7310, -0.1130, -9.2530, 3.0992, 6.3125, 1.4842, 0.2760, -4.5744, 3.6167, 18.9001, -1.0756, 10.4786)


def test_the_vendors_policy_answers_as_onnxruntime_says_that_it_does(lite3_policy: Policy) -> None:
    """Answers, four decimals, of the vendor's file itself to inputs that are scaled already."""
    profile = load_profile("lite3")
    normalizer = profile.nominal_normalizer
    rest = np.zeros(45)
    rest[5] = -1.0  # gravity straight down
    ahead = rest.copy()
    ahead[6] = 0.5  # m/s wanted
    for network_input, expected in ((rest, REST), (ahead, AHEAD), (np.ones(45), ONES)):
        sensed = np.array(normalizer.mean) + np.array(normalizer.std) * network_input
        action = lite3_policy.act(Observation({"proprio": sensed.astype(np.float32)}, 0))
        assert action.behaviour is not None
        np.testing.assert_allclose(action.behaviour.sample, expected, atol=1e-4)
        targets = np.array([0, -0.65, 1.3] * 4) + np.array([0.125, 0.25, 0.25] * 4) * expected
        np.testing.assert_allclose(action.values, targets, atol=1e-4)
