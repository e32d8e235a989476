"""On the trainer: a policy as ONNX and RKNN, with golden inputs and outputs, for `on_the_board.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.convert.export import export_bundle, probe_features
from policyloop.convert.graph import prepare
from policyloop.convert.rknn import ConverterOptions, convert
from policyloop.convert.samples import Samples
from policyloop.convert.toolkit import Toolkit
from policyloop.core.profile import load_profile
from policyloop.learn.networks import make_network
from policyloop.runtime.onnx_backend import run_onnx


def main() -> None:
    """Write policy.onnx, policy.rknn and golden.npz into a folder."""
    folder = Path(sys.argv[1])
    profile = load_profile("rover-mini")
    torch.manual_seed(0)
    probes = probe_features(profile, 8)
    bundle = export_bundle(
        make_network("spatial", profile),
        profile,
        profile.nominal_normalizer,
        network_name="spatial",
        version=1,
        noise_hold_ticks=1,
        observations=probes,
        training={},
    )
    data = bundle.files[NETWORK_NAME]
    network = prepare(data)
    golden = Samples({name: np.stack([probe[name] for probe in probes]) for name in probes[0]}, None, "golden")
    with convert(Toolkit(), network, "int8", golden, golden, ConverterOptions()) as (converted, _):
        rknn = converted.rknn
    outputs = run_onnx(data, list(golden.inputs), golden.inputs)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "golden.npz", outputs=outputs, **golden.inputs)  # type: ignore[arg-type]
    for name, content in {"policy.onnx": data, "policy.rknn": rknn}.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
