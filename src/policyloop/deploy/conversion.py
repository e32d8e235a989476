"""A network for the robot's NPU on the way out: made on this machine, or by the robot's own converter."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from policyloop.acceptance.output import converted_bundle
from policyloop.acceptance.report import ConversionReport
from policyloop.acceptance.source import Source, open_source
from policyloop.acceptance.trial import convert_policy, precision_of
from policyloop.bundle.build import Bundle
from policyloop.convert.graph import prepare
from policyloop.convert.judge import Thresholds
from policyloop.convert.rknn import ConverterOptions, Precision, converter_options
from policyloop.convert.samples import Samples
from policyloop.convert.toolkit import Toolkit
from policyloop.core.npz import load_npz
from policyloop.core.profile import RobotProfile
from policyloop.deploy.push import Destination, Tell, asked
from policyloop.deploy.session import MAX_BLOB_BYTES, Converted, Request, read_blob
from policyloop.errors import SafetyRefusal, VerificationError

__all__ = ["Conversion", "convert", "convert_here", "convert_there"]

_INPUT = "input."


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


def convert(policy: Path, conversion: Conversion, progress: Tell = lambda what, share: None) -> Bundle:
    """Return the bundle behind a path with a network for the NPU that passed the gate, made on this machine.

    Raises:
        SafetyRefusal: None did.
        PolicyloopError: See `open_source` and `convert_policy`.
    """
    toolkit = Toolkit()
    toolkit.require()
    source = _source(policy, conversion, progress)
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
    return _finished(outcome.report, outcome.rknn or b"", source)


def convert_there(policy: Path, conversion: Conversion, destination: Destination, progress: Tell) -> Bundle:
    """Return the same, made by the converter on the robot; its samples go there, and it drives no arenas.

    Raises:
        SafetyRefusal: No precision passed the gate, or the robot does not convert for others.
        PolicyloopError: See `push`.
    """
    source = _source(policy, conversion, progress)
    calibration = b"" if source.calibration is None else _encode(source.calibration)
    blobs = [source.network.original, calibration, _encode(source.held_out)]
    request = Request(verb="convert", precision=conversion.precision, sizes=tuple(map(len, blobs)))
    with asked(destination, request, blobs, progress) as (answer, answers):
        if not isinstance(answer, Converted) or len(answer.sizes) != 2:
            raise VerificationError(f"{destination.host} answers something else", "is policyloop at both ends?")
        report, rknn = (read_blob(answers, size) for size in answer.sizes)
    try:
        return _finished(msgspec.json.decode(report, type=ConversionReport), rknn, source)
    except msgspec.DecodeError as error:
        raise VerificationError(f"{destination.host} sends no report of its conversion: {error}") from error


def convert_here(
    blobs: Sequence[bytes], profile: RobotProfile, precision: str, target: str, tell: Callable[[str, float], None]
) -> tuple[bytes, bytes]:
    """Convert for an operator, on the robot; returns the report as JSON and the network, empty if none passed.

    Args:
        blobs: Network, samples to calibrate on (empty = none), samples to judge with.
        profile: The robot's.
        precision: As in `policyloop convert`.
        target: The robot's NPU.
        tell: Called with what happens, and which share of the whole is done.

    Raises:
        VerificationError: They are something else.
        PolicyloopError: See `prepare` and `convert_policy`.
    """
    toolkit = Toolkit()
    toolkit.require()
    if len(blobs) != 3:
        raise VerificationError(f"{len(blobs)} things to convert, expected 3", "is policyloop at both ends?")
    network = prepare(blobs[0])
    outcome = convert_policy(
        network,
        source="an operator's",
        precision=precision_of(precision),
        calibration=_decode(blobs[1]) if blobs[1] else None,
        held_out=_decode(blobs[2]),
        bundle=None,
        profile=profile,
        toolkit=toolkit,
        options=converter_options(target=target),
        thresholds=Thresholds(),
        episodes=0,
        progress=tell,
    )
    return msgspec.json.encode(outcome.report), outcome.rknn or b""


def _source(policy: Path, conversion: Conversion, progress: Tell) -> Source:
    return open_source(
        policy,
        "",
        conversion.journal,
        conversion.calibration,
        progress=lambda done, total: progress("choosing samples", done / total),
    )


def _finished(report: ConversionReport, rknn: bytes, source: Source) -> Bundle:
    if not rknn:
        raise SafetyRefusal(
            f"no network for the NPU: {report.reason}", "look at it: policyloop convert writes a report"
        )
    return converted_bundle(report, rknn, source)


def _encode(samples: Samples) -> bytes:
    buffer = io.BytesIO()
    arrays = {_INPUT + name: array for name, array in samples.inputs.items()}
    if samples.distances_m is not None:
        arrays["distances_m"] = samples.distances_m
    np.savez_compressed(buffer, allow_pickle=False, source=np.array(samples.source), **arrays)
    return buffer.getvalue()


def _decode(data: bytes) -> Samples:
    """Read samples that came through the network; sizes are looked at before memory is asked for."""
    try:
        arrays = load_npz(data, 4 * MAX_BLOB_BYTES)
        inputs = {name.removeprefix(_INPUT): array for name, array in arrays.items() if name.startswith(_INPUT)}
        return Samples(inputs, arrays.get("distances_m"), str(arrays["source"]))
    except (ValueError, KeyError) as error:
        raise VerificationError(f"the samples are damaged: {error}", "send them again") from error
