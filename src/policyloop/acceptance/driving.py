"""Both networks drive the same simulated arenas: what a conversion costs in the end."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from policyloop.acceptance.report import ClosedLoop
from policyloop.bundle.verify import VerifiedBundle
from policyloop.convert.graph import PreparedNetwork
from policyloop.convert.rknn import Precision, SimulatedNpu
from policyloop.convert.samples import Samples
from policyloop.convert.twin import int8_twin
from policyloop.core.features import feature_specs
from policyloop.core.profile import RobotProfile
from policyloop.evaluate import BorrowedPolicy, evaluate
from policyloop.runtime.backend import Backend
from policyloop.runtime.onnx_backend import OnnxBackend
from policyloop.runtime.policy import Policy

__all__ = ["Arenas"]

_SLOW_NPU_S = 0.03


class Arenas:
    """Drives the float network once, and each converted one, over the same arenas.

    Args:
        network: From `prepare`.
        calibration: For the INT8 twin.
        bundle: The policy with its normalisation.
        profile: The robot's.
        arenas: Their seeds.
    """

    def __init__(
        self,
        network: PreparedNetwork,
        calibration: Samples | None,
        bundle: VerifiedBundle,
        profile: RobotProfile,
        arenas: range,
    ) -> None:
        self._network, self._calibration = network, calibration
        self._bundle, self._profile, self._arenas = bundle, profile, arenas
        self._float: tuple[float, float] | None = None

    def drive(
        self, precision: Precision, npu: SimulatedNpu, tell: Callable[[str, float], None]
    ) -> tuple[ClosedLoop | None, str]:
        """Return the closed loop, or why there is none."""
        bundle, profile = self._bundle, self._profile
        backend: Backend = npu
        seconds = _seconds_per_tick(npu, profile)
        if seconds > _SLOW_NPU_S:
            if precision == "float16" or self._calibration is None:
                return (
                    None,
                    f"the vendor's simulator takes {seconds:.2f} s a tick, and float16 is within the gate's 5e-3",
                )
            specs = feature_specs(profile, bundle.manifest.inputs)
            backend = _Twin(int8_twin(self._network, self._calibration), specs, len(profile.action))
        converted = Policy(bundle, profile, backend)
        if self._float is None:
            policy = Policy(bundle, profile, "onnx")
            self._float = self._run(
                BorrowedPolicy("float32", policy), lambda share: tell("driving float32", 0.3 + 0.3 * share)
            )
            policy.close()
        score, collisions = self._run(
            BorrowedPolicy("converted", converted), lambda share: tell("driving it", 0.6 + 0.4 * share)
        )
        loss = (self._float[0] - score) / max(abs(self._float[0]), 1e-9)
        return ClosedLoop(
            backend=backend.name,
            episodes=len(self._arenas),
            arena_seed=self._arenas[0],
            float_return=self._float[0],
            converted_return=score,
            float_collisions=self._float[1],
            converted_collisions=collisions,
            return_loss=loss,
        ), ""

    def _run(self, driver: BorrowedPolicy, tell: Callable[[float], None]) -> tuple[float, float]:
        report = evaluate(
            self._profile,
            driver,
            episodes=len(self._arenas),
            arena_seed=self._arenas[0],
            progress=lambda done, total: tell(done / total),
        )
        return report.return_mean, report.collision_rate


class _Twin(OnnxBackend):
    """Says in the report that it was not the vendor's simulator that drove."""

    name = "INT8 twin in onnxruntime: the vendor's simulator is too slow"


def _seconds_per_tick(npu: SimulatedNpu, profile: RobotProfile) -> float:
    empty = {name: np.zeros(spec.shape, spec.dtype) for name, spec in feature_specs(profile).items()}
    npu.infer(empty)
    started_s = time.monotonic()
    npu.infer(empty)
    return time.monotonic() - started_s
