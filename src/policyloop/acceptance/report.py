"""What a conversion found out: every attempt, its verdict, and what may be shipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.bundle.manifest import Conversion
from policyloop.convert.estimate import Estimate
from policyloop.convert.judge import Judgement, Thresholds
from policyloop.convert.rknn import LayerCost, Precision

__all__ = ["Attempt", "ClosedLoop", "ConversionReport", "Outcome"]


class ClosedLoop(msgspec.Struct, frozen=True, kw_only=True):
    """Both networks driving the same simulated arenas, the robot's limits on, its distance rule off.

    Attributes:
        backend: What ran the converted network.
        return_loss: What it lost of the float network's mean return, as a share.
    """

    backend: str
    episodes: int
    arena_seed: int
    float_return: float
    converted_return: float
    float_collisions: float
    converted_collisions: float
    return_loss: float


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One precision, from conversion to verdict."""

    precision: Precision
    passed: bool
    failures: list[str]
    size_bytes: int
    estimate: Estimate
    judgement: Judgement
    closed_loop: ClosedLoop | None
    not_driven: str
    """Why there is no closed loop; empty if there is one."""
    layers: list[LayerCost]
    seconds: dict[str, float]


class ConversionReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a person, or a robot, may want to know about a conversion."""

    source: str
    network_sha256: str
    profile_name: str
    profile_digest: str
    target: str
    toolkit: str
    requested: str
    chosen: str
    reason: str
    thresholds: Thresholds
    calibration: dict[str, str | int]
    held_out: dict[str, str | int]
    macs: int
    weights: int
    attempts: list[Attempt]
    seconds: float
    measured_on_board: Literal["not measured"] = "not measured"

    @property
    def conversion(self) -> Conversion:
        """What the bundle's manifest says about it; only where something was chosen."""
        chosen = next(attempt for attempt in self.attempts if attempt.precision == self.chosen)
        return Conversion(
            target=self.target,
            precision=self.chosen,
            toolkit=self.toolkit,
            calibration_digest="" if self.chosen == "float16" else str(self.calibration.get("digest", "")),
            reason=self.reason,
            errors={entry.name: (entry.mean, entry.p99, entry.worst) for entry in chosen.judgement.actions},
        )


@dataclass(frozen=True)
class Outcome:
    """A report, and what may be shipped.

    Attributes:
        rknn: The file for the board; None if no precision passed the gate.
        expected: The float network's outputs on the held-out samples, (n, actions).
        outputs: The converted ones, by precision.
    """

    report: ConversionReport
    rknn: bytes | None
    expected: NDArray[np.float32]
    outputs: dict[str, NDArray[np.float32]]
