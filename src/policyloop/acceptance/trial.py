"""A trained policy -> a network for the NPU, at the fastest precision that passes the gate (row N4).

Each precision is really converted with the vendor's toolkit, really run on its simulator over samples
that it was not calibrated on, and really drives: actions, not tensors, are compared.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from policyloop.acceptance.report import Attempt, ClosedLoop, ConversionReport, Outcome
from policyloop.bundle.verify import VerifiedBundle
from policyloop.convert.estimate import estimate
from policyloop.convert.graph import PreparedNetwork
from policyloop.convert.judge import Judgement, Thresholds, judge
from policyloop.convert.rknn import Converted, ConverterOptions, Precision, convert
from policyloop.convert.samples import Samples
from policyloop.convert.toolkit import Toolkit
from policyloop.core.profile import RobotProfile
from policyloop.errors import UsageError, install_extra
from policyloop.runtime.onnx_backend import run_onnx

if TYPE_CHECKING:
    from policyloop.acceptance.driving import Arenas

__all__ = ["convert_policy", "precision_of"]

CLOSED_LOOP_ARENAS = 6000
"""Neither training's arenas, nor those that choose a policy, nor those of record."""

_SLOW_NPU_S = 0.03
Progress = Callable[[str, float], None]
"""Called with what happens and the share of the whole that is done."""


def precision_of(name: str) -> Precision | Literal["auto"]:
    """Return the precision called `name`; UsageError if there is none."""
    known: tuple[Precision | Literal["auto"], ...] = ("auto", *get_args(Precision))
    for precision in known:
        if precision == name:
            return precision
    raise UsageError(f"--precision {name}", f"use {', '.join(known)}")


def convert_policy(
    network: PreparedNetwork,
    *,
    source: str,
    precision: Precision | Literal["auto"],
    calibration: Samples | None,
    held_out: Samples,
    bundle: VerifiedBundle | None,
    profile: RobotProfile | None,
    toolkit: Toolkit,
    options: ConverterOptions,
    thresholds: Thresholds,
    episodes: int = 50,
    arena_seed: int = CLOSED_LOOP_ARENAS,
    progress: Progress = lambda what, share: None,
) -> Outcome:
    """Convert, judge and drive; with `auto`, from the fastest precision on until one passes.

    Args:
        network: From `prepare`.
        source: Where it comes from; for people.
        precision: `auto`: INT8, hybrid, float16, in this order; float16 at once for a network without pictures.
        calibration: Samples that INT8 scales are chosen from.
        held_out: Samples that judge.
        bundle: The policy with its normalisation, to drive with; None = it is not driven.
        profile: The robot's; None = outputs are judged as they are.
        toolkit: The vendor's.
        options: The converter's.
        thresholds: What the gate lets pass.
        episodes: Arenas to drive in closed loop; 0 = do not drive.
        arena_seed: The first of them.
        progress: Called now and then.
    """
    started_s = time.monotonic()
    order, why = _order(network, precision, calibration)
    expected = run_onnx(network.original, [entry.name for entry in network.inputs], held_out.inputs)
    arenas, not_driven = _arenas(network, calibration, bundle, profile, range(arena_seed, arena_seed + episodes))
    attempts: list[Attempt] = []
    conversions: list[Converted] = []
    for number, wanted in enumerate(order):

        def tell(stage: str, share: float = 0.0, number: int = number, wanted: str = wanted) -> None:
            progress(f"{wanted}: {stage}", (number + share) / len(order))

        with convert(toolkit, network, wanted, calibration, held_out, options, tell) as (converted, npu):
            tell("judging", 0.3)
            verdict = judge(
                expected,
                converted.outputs,
                profile=profile,
                distances_m=held_out.distances_m,
                thresholds=thresholds,
                precision=wanted,
            )
            loop, reason = None, "its actions fail" if verdict.failures else not_driven
            if arenas is not None and not verdict.failures:
                loop, reason = arenas.drive(wanted, npu, tell)
        conversions.append(converted)
        attempts.append(_attempt(network, converted, verdict, loop, reason, thresholds))
        if attempts[-1].passed:
            break
    passed = attempts[-1].passed
    report = ConversionReport(
        source=source,
        network_sha256=hashlib.sha256(network.original).hexdigest(),
        profile_name=profile.name if profile else "",
        profile_digest=profile.digest if profile else "",
        target=options.target,
        toolkit=conversions[-1].toolkit,
        requested=precision,
        chosen=conversions[-1].precision if passed else "",
        reason=_reason(attempts, why),
        thresholds=thresholds,
        calibration=_about(calibration),
        held_out=_about(held_out),
        macs=network.macs,
        weights=network.weights,
        attempts=attempts,
        seconds=time.monotonic() - started_s,
    )
    progress("done", 1.0)
    outputs: dict[str, NDArray[np.float32]] = {entry.precision: entry.outputs for entry in conversions}
    return Outcome(report, conversions[-1].rknn if passed else None, expected, outputs)


def _arenas(
    network: PreparedNetwork,
    calibration: Samples | None,
    bundle: VerifiedBundle | None,
    profile: RobotProfile | None,
    seeds: range,
) -> tuple[Arenas | None, str]:
    """Return where to drive, or why it is not done."""
    if bundle is None or profile is None:
        return None, "the network does not say which robot it drives"
    if not seeds:
        return None, "--episodes 0"
    try:
        from policyloop.acceptance.driving import Arenas
        from policyloop.sim.machine import why_not_simulated

        if why := why_not_simulated(profile):
            return None, why
    except ImportError as error:  # a board has no simulator
        return None, f"{error.name} is not installed: {install_extra('sim')}"
    return Arenas(network, calibration, bundle, profile, seeds), ""


def _order(
    network: PreparedNetwork, precision: Precision | Literal["auto"], calibration: Samples | None
) -> tuple[list[Precision], str]:
    """Return the precisions to try, fastest first, and why these."""
    if precision != "auto":
        return [precision], "it was asked for"
    if not network.has_pictures:
        return ["float16"], (
            "a network of vectors stays in float16: INT8 has one scale for a whole vector, and saves next to nothing "
            f"of {network.macs:,} multiplications"
        )
    if calibration is None:
        return ["float16"], "there are no samples to calibrate INT8 on"
    return ["int8", "hybrid", "float16"], "the fastest that passes the gate"


def _reason(attempts: list[Attempt], why: str) -> str:
    refused = [f"{attempt.precision} is refused: {'; '.join(attempt.failures)}" for attempt in attempts]
    if attempts[-1].passed:
        refused.pop()
        return "; ".join([f"{attempts[-1].precision}: {why}", *refused])
    return "no precision passes the gate: " + "; ".join(refused)


def _about(samples: Samples | None) -> dict[str, str | int]:
    if samples is None:
        return {}
    return {"source": samples.source, "count": len(samples), "digest": samples.digest}


def _attempt(
    network: PreparedNetwork,
    converted: Converted,
    verdict: Judgement,
    loop: ClosedLoop | None,
    not_driven: str,
    thresholds: Thresholds,
) -> Attempt:
    failures = list(verdict.failures)
    if loop is not None and not loop.return_loss <= thresholds.return_loss:
        failures.append(
            f"closed loop: return {loop.converted_return:.1f} instead of {loop.float_return:.1f}, "
            f"{loop.return_loss:.1%} less, at most {thresholds.return_loss:.0%}"
        )
    return Attempt(
        precision=converted.precision,
        passed=not failures,
        failures=failures,
        size_bytes=len(converted.rknn),
        estimate=estimate(network, converted.precision, converted.layers),
        judgement=verdict,
        closed_loop=loop,
        not_driven=not_driven,
        layers=converted.layers,
        seconds=converted.seconds,
    )
