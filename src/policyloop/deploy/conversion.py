"""A network for the robot's NPU on the way out, if samples are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from policyloop.acceptance.output import converted_bundle
from policyloop.acceptance.source import open_source
from policyloop.acceptance.trial import convert_policy
from policyloop.bundle.build import Bundle
from policyloop.convert.judge import Thresholds
from policyloop.convert.rknn import ConverterOptions, Precision
from policyloop.convert.toolkit import Toolkit
from policyloop.errors import SafetyRefusal

__all__ = ["Conversion", "convert"]


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """How to make the network for the NPU.

    Attributes:
        journal: Recording to calibrate on and to judge with; or
        calibration: folder of samples.
        episodes: Simulated arenas to drive in closed loop.
    """

    precision: Precision | Literal["auto"]
    journal: Path | None
    calibration: Path | None
    options: ConverterOptions
    episodes: int = 50


def convert(
    policy: Path, conversion: Conversion, progress: Callable[[str, float], None] = lambda what, share: None
) -> Bundle:
    """Return the bundle behind a path with a network for the NPU that passed the gate.

    Raises:
        SafetyRefusal: None did.
        PolicyloopError: See `open_source` and `convert_policy`.
    """
    toolkit = Toolkit()
    toolkit.require()
    source = open_source(policy, "", conversion.journal, conversion.calibration)
    outcome = convert_policy(
        source.network,
        source=str(policy),
        precision=conversion.precision,
        calibration=source.calibration,
        held_out=source.held_out,
        bundle=source.bundle,
        profile=source.profile,
        toolkit=toolkit,
        options=conversion.options,
        thresholds=Thresholds(),
        episodes=conversion.episodes,
        progress=progress,
    )
    if outcome.rknn is None:
        raise SafetyRefusal(
            f"no network for the NPU: {outcome.report.reason}", "look at it: policyloop convert writes a report"
        )
    return converted_bundle(outcome, outcome.rknn, source)
