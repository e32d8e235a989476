"""On aarch64, with what a robot installs and nothing else: run by `run.sh`."""

from __future__ import annotations

import importlib
import platform
import sys
from pathlib import Path

import numpy as np
from rknnlite.api import RKNNLite

from policyloop.core.features import feature_specs
from policyloop.core.profile import load_profile
from policyloop.doctor.examination import answer
from policyloop.doctor.scope import Scope
from policyloop.errors import ConfigError
from policyloop.runtime.onnx_backend import OnnxBackend
from policyloop.runtime.rknn_backend import RknnBackend, npu_present


def main() -> None:
    """Check everything that can be checked without an NPU; raises at the first that does not hold."""
    files = Path(sys.argv[1])
    assert platform.machine() == "aarch64"
    for module in ("cli", "link.uplink", "robot.actor", "wire.codec"):
        importlib.import_module(f"policyloop.{module}")
    assert not {"torch", "onnx", "mujoco"} & set(sys.modules), "the robot's side pulled in the trainer's"
    profile = load_profile("rover-mini")
    specs = feature_specs(profile)
    with np.load(files / "golden.npz") as stored:
        golden = {name: stored[name] for name in stored.files}
    backend = OnnxBackend((files / "policy.onnx").read_bytes(), specs, 2)
    found = np.stack([backend.infer({name: golden[name][row] for name in specs}) for row in range(8)])
    worst = float(np.abs(found - golden["outputs"]).max())
    assert worst < 1e-5, f"aarch64 and x86_64 differ by {worst}"
    print(f"onnxruntime on aarch64: golden vectors within {worst:.1e}")

    rknn = (files / "policy.rknn").read_bytes()
    lite = RKNNLite(verbose=False)
    assert lite.load_rknn(str(files / "policy.rknn")) == 0
    targets = str(lite.list_support_target_platform(str(files / "policy.rknn")))
    assert "RK3588" in targets.upper(), targets
    lite.release()
    for name, data in (("whole", rknn), ("truncated", rknn[: len(rknn) // 2]), ("empty", b"")):
        try:
            RknnBackend(data, specs, 2, toolkit="2.5.0")
        except ConfigError as error:
            assert "does not start" in error.message, error
        else:
            raise AssertionError(f"{name}: there is no NPU here")
    assert not npu_present()
    print("RKNNLite: imported, loaded, and refused to start without an NPU, three times, by our error")
    for group in ("machine", "training", "npu", "services"):  # in this process: qemu cannot start others by itself
        answer(group, Scope(), lambda line: print(f"doctor: {line.decode().rstrip()}"))


if __name__ == "__main__":
    main()
