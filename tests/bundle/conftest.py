from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from policyloop.bundle.manifest import MANIFEST_NAME, NETWORK_NAME, Manifest
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import RobotProfile
from policyloop.learn.networks import make_network

Exported = tuple[Manifest, bytes]


@pytest.fixture(scope="session")
def exported(mini: RobotProfile) -> Exported:
    """A real policy for rover-mini: manifest and network."""
    torch.manual_seed(0)
    return export_bundle(
        make_network("spatial", mini),
        mini,
        mini.nominal_normalizer,
        network_name="spatial",
        version=7,
        noise_hold_ticks=3,
        observations=probe_features(mini, 2),
        training={"learner": "bc", "steps": 4000},
    )


@pytest.fixture
def write_bundle() -> Callable[[Path, bytes, bytes], Path]:
    """Write a manifest's bytes and a network's into a directory."""

    def write(directory: Path, manifest: bytes, network: bytes) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MANIFEST_NAME).write_bytes(manifest)
        (directory / NETWORK_NAME).write_bytes(network)
        return directory

    return write
