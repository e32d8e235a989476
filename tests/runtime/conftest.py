from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policyloop.bundle.build import Bundle, build_bundle
from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, export_onnx, probe_features
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.learn.networks import ActorCritic, make_network


@pytest.fixture(scope="session")
def network(mini: RobotProfile) -> ActorCritic:
    """A network whose means are well away from zero."""
    torch.manual_seed(0)
    network = make_network("spatial", mini)
    with torch.no_grad():
        network.actor["head"][-1].bias.copy_(torch.tensor([0.4, -0.7]))
        network.actor["head"][-1].weight *= 10
        network.log_std.copy_(torch.tensor([-0.5, -1.25]))
    return network


@pytest.fixture(scope="session")
def make_bundle(mini: RobotProfile, network: ActorCritic) -> Callable[..., Bundle]:
    """Return `make_bundle(version=1, **manifest fields)`: a real, parity-checked bundle of `network`."""

    def make(version: int = 1, **changes: Any) -> Bundle:
        bundle = export_bundle(
            network,
            mini,
            mini.nominal_normalizer,
            network_name="spatial",
            version=version,
            noise_hold_ticks=3,
            observations=probe_features(mini, 2),
            training={},
        )
        return bundle.revised(**changes)

    return make


@pytest.fixture(scope="session")
def nan_bundle(mini: RobotProfile, make_bundle: Callable[..., Bundle]) -> Bundle:
    """Version 66: its hashes are right, its network answers NaN."""
    broken = make_network("spatial", mini)
    with torch.no_grad():
        broken.actor["head"][-1].bias.fill_(float("nan"))
    data = export_onnx(broken, mini, version=66)
    bundle = make_bundle(66)
    return build_bundle(bundle.manifest, {**bundle.files, NETWORK_NAME: data})


@pytest.fixture
def store(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Store:
    """A store with version 1 active."""
    store = Store(tmp_path / "store")
    store.activate(store.add(make_bundle(1)))
    return store


@pytest.fixture
def observation(mini: RobotProfile) -> Observation:
    """A picture of noise and plausible readings."""
    rng = np.random.default_rng(3)
    arrays = {
        "rgb": rng.integers(0, 256, (36, 64, 3), np.uint8),
        "depth": rng.integers(0, 9000, (36, 64), np.uint16),
        "proprio": np.array([0.3, -0.4, 0.01, 0.02, 9.9, 1.7], np.float32),
    }
    return Observation(arrays, 0)
