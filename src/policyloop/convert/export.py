"""Trained network -> ONNX bytes -> bundle, with a parity check against torch at every export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import torch

from policyloop.bundle.build import Bundle, build_bundle, creation_time
from policyloop.bundle.golden import Golden
from policyloop.bundle.manifest import GOLDEN_NAME, NETWORK_NAME, Manifest, Parity
from policyloop.convert.onnx_graph import GraphWriter
from policyloop.core.features import feature_specs
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError, VerificationError
from policyloop.learn.networks import ActorCritic, MlpNetwork, OriginalNetwork
from policyloop.learn.spatial import SpatialNetwork
from policyloop.runtime.onnx_backend import OnnxBackend, run_onnx

__all__ = [
    "MAX_PARITY_ERROR",
    "bundle_with_golden",
    "check_parity",
    "export_bundle",
    "export_onnx",
    "make_golden",
    "policy_metadata",
    "probe_features",
]

MAX_PARITY_ERROR = 1e-5
"""Largest difference between torch and onnxruntime that an export may show, before tanh."""
_GOLDEN_VECTORS = 4
_OUTPUTS = {
    "tanh": "mean before tanh; action = center + half_range * tanh(mean)",
    "linear": "mean; action = center + scale * mean",
}


def export_onnx(
    network: ActorCritic, profile: RobotProfile, normalizer: Normalizer | None = None, version: int = 0
) -> bytes:
    """Return the deployed half of `network` as ONNX: `features` in, the mean before tanh out.

    The metadata holds what it takes to drive with the file alone: the profile's digest, the order
    of the inputs and their normalisation.
    """
    write = next((write for kind, write in _WRITERS.items() if isinstance(network, kind)), None)
    if write is None:
        known = ", ".join(kind.__name__ for kind in _WRITERS)
        raise ConfigError(f"network {type(network).__name__} cannot be exported", f"use one of {known}")
    graph = GraphWriter("policy")
    specs = feature_specs(profile, network.inputs)
    output = write(graph, network, {name: graph.input(name, spec.shape) for name, spec in specs.items()})
    metadata = policy_metadata(profile, network.inputs, normalizer or profile.nominal_normalizer, version)
    return graph.finish(output, "mean", len(profile.action), metadata)


def policy_metadata(
    profile: RobotProfile, inputs: Sequence[str], normalizer: Normalizer, version: int
) -> dict[str, str]:
    """Return what an ONNX file must say about itself so that a robot can drive with the file alone."""
    return {
        "profile_digest": profile.digest,
        "profile_name": profile.name,
        "version": str(version),
        "inputs": ",".join(inputs),
        "normalizer": msgspec.json.encode(normalizer).decode(),
        "output": _OUTPUTS[profile.action_map],
    }


def _unit_range(graph: GraphWriter, x: str) -> str:
    return graph.node("Mul", [x, graph.constant(np.array(1 / 255, np.float32), f"scale_{x}")])


def _centred(graph: GraphWriter, x: str) -> str:
    # Input by input, so that a converter can hand scale and offset to the NPU's own input stage.
    return graph.node("Add", [_unit_range(graph, x), graph.constant(np.array(-0.25, np.float32), f"offset_{x}")])


def _write_spatial(graph: GraphWriter, network: ActorCritic, names: dict[str, str]) -> str:
    assert isinstance(network, SpatialNetwork)
    planes = [_centred(graph, name) for picture, name in names.items() if picture != "proprio"]
    seen = graph.node("Concat", planes, axis=1) if len(planes) > 1 else planes[0]
    trunk = graph.module(network.deployed_trunk(), seen, "trunk")
    proprio = graph.module(network.actor["proprio"], names["proprio"], "proprio")
    return graph.module(network.actor["head"], graph.node("Concat", [trunk, proprio], axis=1), "head")


def _write_original(graph: GraphWriter, network: ActorCritic, names: dict[str, str]) -> str:
    branches = [graph.module(network.actor[name], _unit_range(graph, names[name]), name) for name in ("rgb", "depth")]
    pooled = graph.module(network.actor["fusion"], graph.node("Concat", branches, axis=1), "fusion")
    proprio = graph.module(network.actor["proprio"], names["proprio"], "proprio")
    encoded = graph.node("Concat", [graph.node("Flatten", [pooled], axis=1), proprio], axis=1)
    return graph.module(network.actor["head"], encoded, "head")


def _write_mlp(graph: GraphWriter, network: ActorCritic, names: dict[str, str]) -> str:
    return graph.module(network.actor["head"], names["proprio"], "head")


_WRITERS: dict[type[ActorCritic], Callable[[GraphWriter, ActorCritic, dict[str, str]], str]] = {
    SpatialNetwork: _write_spatial,
    OriginalNetwork: _write_original,
    MlpNetwork: _write_mlp,
}


def probe_features(profile: RobotProfile, count: int = 16, seed: int = 0) -> list[Arrays]:
    """Return random network inputs, for a parity check where no recorded observation is at hand."""
    rng = np.random.default_rng(seed)
    probes = []
    for _ in range(count):
        probe: Arrays = {}
        for name, spec in feature_specs(profile).items():
            if spec.dtype == "uint8":
                probe[name] = rng.integers(0, 256, spec.shape, np.uint8)
            else:
                probe[name] = rng.uniform(-2, 2, spec.shape).astype(np.float32)
        probes.append(probe)
    return probes


def check_parity(network: ActorCritic, onnx_bytes: bytes, profile: RobotProfile, inputs: Sequence[Arrays]) -> Parity:
    """Run torch and onnxruntime on the same inputs.

    Raises:
        VerificationError: They differ by more than `MAX_PARITY_ERROR`, or are not finite.
    """
    specs = feature_specs(profile, network.inputs)
    backend = OnnxBackend(onnx_bytes, specs, len(profile.action))
    device = network.log_std.device
    errors, excess = [], []
    with torch.no_grad():
        for arrays in inputs:
            batch = {name: torch.from_numpy(np.asarray(arrays[name]))[None].to(device) for name in specs}
            expected = network.mean(batch)[0].cpu().numpy()
            errors.append(np.abs(backend.infer({name: arrays[name] for name in specs}) - expected))
            excess.append(float(errors[-1].max()) / max(1.0, float(np.abs(expected).max())))
    backend.close()
    worst = float(np.max(errors))
    if not float(np.max(excess)) <= MAX_PARITY_ERROR:
        raise VerificationError(
            f"onnxruntime and torch differ by {worst:.2e} before tanh, at most {MAX_PARITY_ERROR:g} is allowed",
            "train on with a lower learning rate if the weights are not finite; otherwise report this",
        )
    return Parity(observations=len(errors), max_abs_error=worst, mean_abs_error=float(np.mean(errors)))


def export_bundle(
    network: ActorCritic,
    profile: RobotProfile,
    normalizer: Normalizer,
    *,
    network_name: str,
    version: int,
    noise_hold_ticks: int,
    observations: Sequence[Arrays],
    training: dict[str, Any],
) -> Bundle:
    """Export, check and describe a policy.

    Args:
        network: Any of `learn.networks`.
        profile: What it was trained for.
        normalizer: Travels with it.
        network_name: Its name in `learn.networks.make_network`.
        version: Counts up.
        noise_hold_ticks: How long a draw of exploration lasts on the robot.
        observations: Network inputs to check parity on; at least one.
        training: Where it comes from.
    """
    if not observations:
        raise ConfigError("a parity check needs at least one observation")
    onnx_bytes = export_onnx(network, profile, normalizer, version)
    parity = check_parity(network, onnx_bytes, profile, observations)
    about = Manifest(
        version=version,
        created=creation_time(),
        profile_name=profile.name,
        profile_digest=profile.digest,
        network=network_name,
        inputs=network.inputs,
        normalizer=normalizer,
        log_std=tuple(network.log_std.detach().cpu().tolist()),
        noise_hold_ticks=noise_hold_ticks,
        parity=parity,
        training=training,
    )
    return bundle_with_golden(about, onnx_bytes, observations)


def bundle_with_golden(about: Manifest, onnx_bytes: bytes, observations: Sequence[Arrays]) -> Bundle:
    """Return the bundle of a network, with golden vectors made of the first few observations."""
    golden = make_golden(onnx_bytes, about.inputs, observations[:_GOLDEN_VECTORS])
    return build_bundle(about, {NETWORK_NAME: onnx_bytes, GOLDEN_NAME: golden.encode()})


def make_golden(onnx_bytes: bytes, inputs: Sequence[str], observations: Sequence[Arrays]) -> Golden:
    """Return the network's inputs at these observations, and what onnxruntime answers to them."""
    stacked = {name: np.stack([arrays[name] for arrays in observations]) for name in inputs}
    return Golden(stacked, run_onnx(onnx_bytes, inputs, stacked))
