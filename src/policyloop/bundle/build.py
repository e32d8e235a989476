"""Put a bundle together: the network, its golden vectors, and what people want to read about it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from policyloop.bundle.manifest import MANIFEST_NAME, NETWORK_NAME, RKNN_NAME, FileEntry, Manifest
from policyloop.core.clock import utc
from policyloop.errors import ConfigError

__all__ = ["CARD_NAME", "VERSION_NAME", "Bundle", "build_bundle", "creation_time"]

VERSION_NAME = "model_version.json"
CARD_NAME = "MODEL_CARD.md"


class Bundle(msgspec.Struct, frozen=True):
    """A policy that is ready to be written: the manifest, and every file that it names."""

    manifest: Manifest
    files: dict[str, bytes]

    def revised(self, **changes: Any) -> Bundle:
        """Return the same files with these fields of the manifest changed."""
        return build_bundle(msgspec.structs.replace(self.manifest, **changes), self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest's bytes."""
        return hashlib.sha256(self.manifest.encode()).hexdigest()

    @property
    def contents(self) -> dict[str, bytes]:
        """Every file of the bundle's directory, by name."""
        return {**self.files, MANIFEST_NAME: self.manifest.encode()}


def creation_time() -> str:
    """Return the time of this build: that of SOURCE_DATE_EPOCH if it is set, so that builds can be repeated.

    Raises:
        ConfigError: SOURCE_DATE_EPOCH is no number.
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        return utc(time.time() if fixed is None else int(fixed))
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"SOURCE_DATE_EPOCH is '{fixed}'", "give seconds since 1970, or leave it unset") from error


def build_bundle(about: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Return a bundle of these files, described for people too; equal arguments give equal bytes.

    Args:
        about: The manifest, but for its files.
        files: By name: the network, its golden vectors, the network for the NPU if there is one.
    """
    written = {name: data for name, data in files.items() if name not in (VERSION_NAME, CARD_NAME)}
    written[VERSION_NAME] = _version(about, written)
    written[CARD_NAME] = _card(about).encode()
    entries = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for name, data in written.items()
    }
    return Bundle(msgspec.structs.replace(about, files=dict(sorted(entries.items()))), written)


def _version(about: Manifest, files: Mapping[str, bytes]) -> bytes:
    """Return `model_version.json` (row S34): what other tools want to know without reading a manifest."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    conversion = about.conversion
    table = {
        "model": about.network,
        "version": about.version,
        "profile": about.profile_name,
        "profile_digest": about.profile_digest,
        "onnx_hash": hashes[NETWORK_NAME],
        "rknn_hash": hashes.get(RKNN_NAME, ""),
        "quant_dataset": conversion.calibration_digest if conversion else "",
        "quant_precision": conversion.precision if conversion else "",
        "toolkit": conversion.toolkit if conversion else "",
        "target": conversion.target if conversion else "",
        "obs_stats": {"mean": about.normalizer.mean, "std": about.normalizer.std, "clip": about.normalizer.clip},
        "export_time": about.created,
    }
    return msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n"


def _card(about: Manifest) -> str:
    """Return the model card: what this policy is, what it was tried on, and what it is not for."""
    training = [f"- {name}: {value}" for name, value in about.training.items()]
    lines = [
        "---",
        "library_name: policyloop",
        "tags: [robotics, reinforcement-learning, onnx]",
        "---",
        "",
        f"# {about.profile_name}, policy {about.version}",
        "",
        f"A `{about.network}` network that drives robots of profile `{about.profile_name}` "
        f"({about.profile_digest[:12]}), and no others: a runtime refuses it elsewhere.",
        "",
        "## Where it comes from",
        "",
        *(training or ["- not said"]),
        f"- exported: {about.created}",
        "",
        "## What was checked",
        "",
        f"- onnxruntime and the trained network differ by at most {about.parity.max_abs_error:.1e} in their outputs, "
        f"on {about.parity.observations} observations",
        *_converted(about),
        "",
        "## What it is not",
        "",
        "It is not safe by itself. It drives behind a safety gate, and an emergency stop belongs in reach. "
        "It was not measured on a real robot unless its training above says so.",
        "",
    ]
    return "\n".join(lines)


def _converted(about: Manifest) -> list[str]:
    if about.conversion is None:
        return ["- there is no network for an NPU in this bundle"]
    conversion = about.conversion
    head = f"- {conversion.precision} for {conversion.target}, toolkit {conversion.toolkit}: {conversion.reason}"
    errors = [
        f"- {name}, NPU (simulated) against float: mean {mean:.2g}, p99 {p99:.2g}, worst {worst:.2g}"
        for name, (mean, p99, worst) in conversion.errors.items()
    ]
    return [head, *errors]
