"""A policy that was trained elsewhere becomes a bundle like any other: checked, described, with golden vectors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from policyloop.bundle.build import Bundle, creation_time
from policyloop.bundle.manifest import MAX_FILE_BYTES, Manifest, Parity
from policyloop.convert.export import (
    MAX_PARITY_ERROR,
    bundle_with_golden,
    export_bundle,
    policy_metadata,
    probe_features,
)
from policyloop.convert.foreign_onnx import AdoptedNetwork, adopt_onnx
from policyloop.convert.mlp_description import MlpDescription, load_description
from policyloop.convert.mlp_layers import find_layers
from policyloop.convert.normalisation import choose_normalisation
from policyloop.convert.observation_statistics import StatisticsOf
from policyloop.convert.pt_file import MAX_PT_BYTES, PtFile, read_pt
from policyloop.core.features import feature_specs
from policyloop.core.files import read_file
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays
from policyloop.errors import IncompatibleError, PolicyloopError, UsageError, VerificationError
from policyloop.learn.networks import LOG_STD_BOUNDS, MlpNetwork, NetworkSettings
from policyloop.runtime.onnx_backend import run_onnx

__all__ = ["import_policy"]

_NAME = "imported"
_PROBES = 64
_LOG_STD = LOG_STD_BOUNDS[0]
"""A foreign policy says nothing about exploration: as little as there is."""
_OUTPUTS = {
    "before_tanh": "taken as before tanh",
    "tanh": "tanh; the robot applies it, the network does not any more",
    "linear": "linear: target = center + scale * output",
}


def import_policy(
    path: Path,
    profile: RobotProfile,
    *,
    description: Path | None = None,
    statistics: Path | None = None,
    statistics_of: StatisticsOf | None = None,
    strict: bool = True,
    version: int = 1,
) -> Bundle:
    """Return the bundle of a policy from a `.pt`, a `.zip` of stable-baselines3 or an `.onnx` file.

    Args:
        path: The file.
        profile: Of the robot that it shall drive.
        description: YAML that says what a `.pt` file does not; see `MlpDescription`.
        statistics: Of the observations that it was trained on; None = those in the `.pt` file, or if there are none
            the profile's own centres and scales.
        statistics_of: Which vector they are of; see `choose_normalisation`.
        strict: Refuse a `.pt` file that holds more than the description.
        version: Of the bundle.

    Raises:
        StorageError: A file is missing.
        UsageError: A `.pt` file without a description, an `.onnx` file with one, or some other file; or
            `statistics_of` without statistics.
        ConfigError: The description is wrong.
        VerificationError: The file is damaged, holds code, or weights that are no numbers.
        IncompatibleError: File, description, statistics and profile do not fit together; what does not is named.
    """
    if path.suffix not in (".pt", ".pth", ".zip", ".onnx"):
        raise UsageError(f"{path} is neither a .pt nor an .onnx file", "give the file's real ending")
    if (description is None) != (path.suffix == ".onnx"):
        raise UsageError(
            f"{path}: a .pt file needs --network, an .onnx file describes itself", "see docs/import.md for an example"
        )
    data = read_file(path, MAX_FILE_BYTES if path.suffix == ".onnx" else MAX_PT_BYTES)
    described = None if description is None else load_description(description)
    if described is not None:
        _check_description(described, profile)
    file = None if described is None else read_pt(data, str(path))
    chosen, file = choose_normalisation(path, file, profile, statistics, statistics_of)
    origin = {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "normalisation": chosen.source}
    if described is None or file is None:
        return _from_onnx(data, str(path), profile, chosen.normalizer, version, origin)
    return _from_pt(file, str(path), described, profile, chosen.normalizer, version, origin, strict=strict)


def _from_pt(
    file: PtFile,
    source: str,
    description: MlpDescription,
    profile: RobotProfile,
    normalizer: Normalizer,
    version: int,
    origin: dict[str, str],
    *,
    strict: bool,
) -> Bundle:
    layers = find_layers(file, source, description, strict=strict)
    network = MlpNetwork(
        profile,
        initial_log_std=_LOG_STD,
        settings=NetworkSettings(hidden_sizes=description.hidden_sizes, activation=description.activation),
    )
    head = network.actor["head"]
    assert isinstance(head, nn.Sequential)
    layers.copy_into(head, file.tensors)
    return export_bundle(
        network,
        profile,
        normalizer,
        network_name=_NAME,
        version=version,
        noise_hold_ticks=1,
        observations=probe_features(profile, _PROBES),
        training={
            **origin,
            "network": f"{'-'.join(map(str, description.sizes))}, {description.activation}",
            "tensors": ", ".join(layers.names),
            "output": _OUTPUTS[description.output or _taken_as(profile)],
        },
    )


def _from_onnx(
    data: bytes, source: str, profile: RobotProfile, normalizer: Normalizer, version: int, origin: dict[str, str]
) -> Bundle:
    inputs = tuple(feature_specs(profile))
    adopted = adopt_onnx(data, source, profile, policy_metadata(profile, inputs, normalizer, version))
    probes = probe_features(profile, _PROBES)
    about = Manifest(
        version=version,
        created=creation_time(),
        profile_name=profile.name,
        profile_digest=profile.digest,
        network=_NAME,
        inputs=inputs,
        normalizer=normalizer,
        log_std=(_LOG_STD,) * len(profile.action),
        noise_hold_ticks=1,
        parity=_parity(data, adopted, probes, source),
        training={
            **origin,
            "network": "as it came",
            "tensors": ", ".join(adopted.inputs.values()),
            "output": _OUTPUTS["tanh" if adopted.ended_in_tanh else _taken_as(profile)],
        },
    )
    return bundle_with_golden(about, adopted.network, probes)


def _check_description(description: MlpDescription, profile: RobotProfile) -> None:
    found = {"obs_dim": description.obs_dim, "act_dim": description.act_dim}
    for name, wanted in (("obs_dim", profile.proprio_size), ("act_dim", len(profile.action))):
        if found[name] != wanted:
            raise IncompatibleError(
                f"the description has {name} {found[name]}, profile '{profile.name}' has {wanted}",
                "give the profile of the robot that the network was trained for",
            )
    output = description.output or _taken_as(profile)
    if (output == "linear") != (profile.action_map == "linear"):
        raise IncompatibleError(
            f"the description says output: {output}, profile '{profile.name}' has a {profile.action_map} action map",
            "correct the one that is wrong",
        )


def _taken_as(profile: RobotProfile) -> str:
    """Return what an output is that nothing is said of."""
    return "linear" if profile.action_map == "linear" else "before_tanh"


def _parity(data: bytes, adopted: AdoptedNetwork, probes: list[Arrays], source: str) -> Parity:
    """Compare the network with the file that it was made of; VerificationError if they differ."""
    features = {name: np.stack([probe[name] for probe in probes]) for name in adopted.inputs}
    expected = _answers(data, {theirs: features[ours] for ours, theirs in adopted.inputs.items()}, source)
    found = _answers(adopted.network, features, source)
    errors = np.abs((np.tanh(found) if adopted.ended_in_tanh else found) - expected)
    if not np.isfinite(found).all():
        raise VerificationError(f"{source} answers with NaN or infinity", "take an older checkpoint")
    if not errors.max() <= MAX_PARITY_ERROR:
        raise VerificationError(f"{source} gives other answers after import, by {errors.max():.2e}", "report this")
    return Parity(observations=len(probes), max_abs_error=float(errors.max()), mean_abs_error=float(errors.mean()))


def _answers(network: bytes, inputs: Arrays, source: str) -> NDArray[np.float32]:
    try:
        return run_onnx(network, list(inputs), inputs)
    except PolicyloopError:
        raise
    except Exception as error:  # onnxruntime raises types of its own that share no base
        raise VerificationError(f"{source} does not run: {error}", "export it again") from error
