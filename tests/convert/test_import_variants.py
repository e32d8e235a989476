"""Files as trainers write them, for a quadruped: each one drives as its own network says, statistics and all."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.convert.importer import import_policy
from policyloop.convert.onnx_graph import GraphWriter
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Observation
from policyloop.errors import IncompatibleError, UsageError, VerificationError
from policyloop.runtime.policy import Policy

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
NET = "obs_dim: 45\nact_dim: 12\nhidden_sizes: [32, 16]\nactivation: elu\n"
LITE3 = load_profile("lite3")
MEAN, STD = torch.linspace(-0.4, 0.4, 45), torch.linspace(0.0, 2.0, 45)  # a deviation of 0 is what a constant has


class Normalized(nn.Module):
    """Running statistics as rsl_rl keeps them, and what they do: (x - mean) / (std + 0.01)."""

    def __init__(self, size: int = 45) -> None:
        super().__init__()
        self.register_buffer("_mean", MEAN[:size][None])
        self.register_buffer("_var", STD[:size][None] ** 2)
        self.register_buffer("_std", STD[:size][None])
        self.register_buffer("count", torch.tensor(4096))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self._mean) / (self._std + 0.01)


class Exported(nn.Module):
    """A policy as Isaac Lab exports it to TorchScript."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = perceptron()
        self.normalizer = Normalized()

    def forward(self, x: Tensor) -> Tensor:
        return self.actor(self.normalizer(x))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def perceptron(outputs: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(45, 32), nn.ELU(), nn.Linear(32, 16), nn.ELU(), nn.Linear(16, outputs))


def below(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


ACTOR, CRITIC, NORMALIZED = perceptron(), perceptron(1), Normalized()
BOTH = {"std": torch.ones(12), **below("actor", ACTOR), **below("critic", CRITIC)}
AROUND = {"optimizer_state_dict": {"state": {}}, "iter": 1500, "infos": None}
PLAIN: dict[str, Any] = {
    "a state dict": ACTOR.state_dict(),
    "of Lightning": {"state_dict": below("actor", ACTOR), "epoch": 3},
    "of rsl_rl": {"model_state_dict": BOTH, **AROUND},
    "of rsl_rl, with log_std": {
        "model_state_dict": {"log_std": torch.zeros(12), **below("actor", ACTOR), **below("critic", CRITIC)},
        **AROUND,
    },
    "of rsl_rl 4": {
        "actor_state_dict": {**below("mlp", ACTOR), "distribution.std_param": torch.ones(12)},
        "critic_state_dict": below("mlp", CRITIC),
        **AROUND,
    },
}
WITH_STATISTICS: dict[str, tuple[str, Any]] = {
    "of rsl_rl 2": (
        "obs_norm_state_dict",
        {
            "model_state_dict": BOTH,
            **AROUND,
            "obs_norm_state_dict": NORMALIZED.state_dict(),
            "privileged_obs_norm_state_dict": NORMALIZED.state_dict(),
        },
    ),
    "of rsl_rl 3": (
        "actor_obs_normalizer",
        {
            "model_state_dict": {
                **BOTH,
                **below("actor_obs_normalizer", NORMALIZED),
                **below("critic_obs_normalizer", NORMALIZED),
            },
            **AROUND,
        },
    ),
    "of rsl_rl 4": (
        "obs_normalizer",
        {
            "actor_state_dict": {**below("obs_normalizer", NORMALIZED), **below("mlp", ACTOR), "std": torch.ones(12)},
            "critic_state_dict": {**below("obs_normalizer", NORMALIZED), **below("mlp", CRITIC)},
            **AROUND,
        },
    ),
}


def imported(path: Path, net: str = NET, **options: Any) -> Bundle:
    description = path.with_name("net.yaml")
    description.write_text(net)
    return import_policy(path, LITE3, description=description, **options)


def saved(found: object, tmp_path: Path) -> Path:
    torch.save(found, tmp_path / "model_1500.pt")
    return tmp_path / "model_1500.pt"


def check_drives(bundle: Bundle, network: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    """Compare what a robot does with what `network` says of the observation scaled as by the vendor's runner."""
    sensed = np.random.default_rng(0).normal(size=45).astype(np.float32)
    scaled = sensed.copy()
    scaled[0:3] *= 0.25
    scaled[9:21] -= np.tile([0.0, -0.65, 1.3], 4)
    scaled[21:33] *= 0.05
    with torch.no_grad():
        output = network(torch.from_numpy(scaled)[None])[0].numpy()
    assert np.abs(output).max() > 0.05
    policy = Policy.load(Store(tmp_path / "store").add(bundle), LITE3)
    action = policy.act(Observation({"proprio": sensed}, 0))
    policy.close()
    targets = np.tile([0.0, -0.65, 1.3], 4) + np.tile([0.125, 0.25, 0.25], 4) * output
    np.testing.assert_allclose(action.values, targets, atol=1e-5)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_checkpoint_without_statistics_sees_what_the_profile_scales(kind: str, tmp_path: Path) -> None:
    bundle = imported(saved(PLAIN[kind], tmp_path), strict=False)
    assert bundle.manifest.training["normalisation"] == "the profile's, without a clip"
    assert bundle.manifest.training["output"].startswith("linear")
    check_drives(bundle, ACTOR, tmp_path)


@pytest.mark.parametrize("kind", WITH_STATISTICS)
def test_statistics_in_a_checkpoint_are_used(kind: str, tmp_path: Path) -> None:
    name, found = WITH_STATISTICS[kind]
    bundle = imported(saved(found, tmp_path), strict=False)
    assert bundle.manifest.training["normalisation"] == f"{name} of model_1500.pt, of scaled observations"
    check_drives(bundle, lambda x: ACTOR(NORMALIZED(x)), tmp_path)


def test_torchscript_drives_with_the_statistics_in_it(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Exported()), tmp_path / "policy.pt")
    bundle = imported(tmp_path / "policy.pt")  # strict: nothing is left over
    check_drives(bundle, Exported(), tmp_path)


def test_an_onnx_file_drives_with_the_profiles_scales(tmp_path: Path) -> None:
    graph = GraphWriter("foreign")
    data = graph.finish(graph.module(ACTOR, graph.input("obs", (45,)), "actor"), "actions", 12, {})
    (tmp_path / "policy.onnx").write_bytes(data)
    check_drives(import_policy(tmp_path / "policy.onnx", LITE3), ACTOR, tmp_path)


def trainers() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        return importlib.import_module("stable_baselines3")


class Legs(gymnasium.Env[Any, Any]):
    """As much of an environment as a trainer asks for before it trains."""

    observation_space = gymnasium.spaces.Box(-10, 10, (45,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (12,), np.float32)


@pytest.mark.parametrize("kind", ["policy.zip", "policy.pth"])
def test_stable_baselines3_is_read_as_it_saves(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {"net_arch": {"pi": [32, 16], "vf": [24]}, "activation_fn": nn.ELU}
    model = trainers().PPO("MlpPolicy", Legs(), policy_kwargs=layers, n_steps=8, batch_size=8, device="cpu")
    with torch.no_grad():
        model.policy.action_net.weight *= 100  # it begins with next to nothing
    if kind == "policy.zip":
        model.save(tmp_path / kind)
    else:
        torch.save(model.policy.state_dict(), tmp_path / kind)
    bundle = imported(tmp_path / kind, strict=False)
    assert bundle.manifest.training["tensors"].startswith("mlp_extractor.policy_net.0.weight")
    assert bundle.manifest.training["tensors"].endswith("action_net.weight, action_net.bias")
    check_drives(bundle, lambda x: model.policy.action_net(model.policy.mlp_extractor.forward_actor(x)), tmp_path)


class Arm(gymnasium.Env[Any, Any]):
    """The same of a robot whose actions go through a tanh, of the sizes of the walker."""

    observation_space = gymnasium.spaces.Box(-10, 10, (8,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)


@pytest.mark.parametrize(("algorithm", "more"), [("SAC", ""), ("TD3", "output: tanh\nprefix: actor.mu\n")])
def test_networks_that_end_in_tanh_come_as_stable_baselines3_saves_them(
    algorithm: str, more: str, walker: RobotProfile, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    kind = getattr(trainers(), algorithm)
    model = kind("MlpPolicy", Arm(), policy_kwargs={"net_arch": [32, 16]}, buffer_size=10, device="cpu")
    model.save(tmp_path / "policy.zip")
    (tmp_path / "net.yaml").write_text("obs_dim: 8\nact_dim: 3\nhidden_sizes: [32, 16]\nactivation: relu\n" + more)
    np.savez(tmp_path / "obs_stats.npz", mean=np.zeros(8), std=np.ones(8))
    found: dict[str, Path] = {"description": tmp_path / "net.yaml", "statistics": tmp_path / "obs_stats.npz"}
    bundle = import_policy(tmp_path / "policy.zip", walker, strict=False, **found)
    sensed = np.linspace(-2, 3, 8, dtype=np.float32)
    answer = model.predict(sensed, deterministic=True)[0]
    assert np.abs(answer).max() > 0.02
    policy = Policy.load(Store(tmp_path / "store").add(bundle), walker)
    action = policy.act(Observation({"proprio": sensed}, 0))
    policy.close()
    np.testing.assert_allclose(action.values, walker.action_center + walker.action_half_range * answer, atol=1e-5)


def test_an_archive_without_a_policy_in_it_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "policy.npz", x=np.ones(3))
    (tmp_path / "policy.npz").rename(tmp_path / "policy.zip")
    with pytest.raises(VerificationError, match="cannot be read as a file of torch"):
        imported(tmp_path / "policy.zip")


def test_statistics_that_are_given_count_more_than_those_in_the_checkpoint(tmp_path: Path) -> None:
    np.savez(tmp_path / "obs_stats.npz", mean=np.ones(45), std=np.full(45, 2.0))
    path = saved(WITH_STATISTICS["of rsl_rl 4"][1], tmp_path)
    options: dict[str, Any] = {"statistics": tmp_path / "obs_stats.npz", "statistics_of": "scaled"}
    with pytest.raises(IncompatibleError, match=r"more than the description: obs_normalizer\._mean"):
        imported(path, **options)
    bundle = imported(path, strict=False, **options)
    assert bundle.manifest.training["normalisation"] == "obs_stats.npz, of scaled observations"
    check_drives(bundle, lambda x: ACTOR((x - 1) / 2), tmp_path)


def test_a_word_about_statistics_that_there_are_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no statistics"):
        imported(saved(PLAIN["a state dict"], tmp_path), statistics_of="scaled")
