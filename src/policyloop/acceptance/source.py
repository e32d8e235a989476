"""What to convert, what to calibrate on and what to judge with, from what a person gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from policyloop.bundle.verify import VerifiedBundle, open_bundle
from policyloop.convert.graph import PreparedNetwork, prepare
from policyloop.convert.samples import Samples, samples_of_folder, samples_of_journal
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import StorageError, UsageError
from policyloop.link.journal import Journal
from policyloop.runtime.locate import bundle_directory, find_policy, profile_name
from policyloop.runtime.onnx_file import open_onnx

__all__ = ["Source", "open_source"]


@dataclass(frozen=True)
class Source:
    """A network that passed the checks, and the samples to try it on.

    Attributes:
        bundle: The policy with its normalisation; None for a network that does not say which robot it drives.
        calibration: Samples for INT8 scales; None = there are none to spare.
    """

    network: PreparedNetwork
    bundle: VerifiedBundle | None
    profile: RobotProfile | None
    calibration: Samples | None
    held_out: Samples


def open_source(
    path: Path,
    chosen_profile: str,
    journal: Path | None,
    calibration: Path | None,
    *,
    held_out: int = 500,
    allow_cpu: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Source:
    """Open a policy and the samples for it.

    Args:
        path: A checkpoint, bundle, store, demo folder, or an `.onnx` file.
        chosen_profile: Of the robot; empty = what the policy or the journal says.
        journal: Recording to take samples from.
        calibration: Folder of samples to take instead.
        held_out: How many samples of a journal judge.
        allow_cpu: Accept operators that run on the board's CPU.
        progress: Called with (records read, records to read) of the journal.

    Raises:
        UsageError: Neither samples nor a journal, or both.
        PolicyloopError: Something does not fit; what, and what to do, is in it.
    """
    if (journal is None) == (calibration is None):
        raise UsageError("a conversion is judged on samples: give --journal or --calibration, one of them")
    found = bundle_directory(find_policy(path))
    recording = None if journal is None else Journal(journal)
    try:
        if recording is not None:
            recording.progress = progress
        bundle, profile = _policy(found, chosen_profile, recording)
        network = prepare(bundle.network if bundle else _read(found), allow_cpu=allow_cpu)
        normalizer = bundle.manifest.normalizer if bundle else None
        if recording is not None:
            if normalizer is None:
                raise UsageError(
                    f"{found} does not say how a robot's observations become its inputs",
                    "give samples that are named as its inputs: --calibration DIR",
                )
            chosen, judging = samples_of_journal(recording, str(journal), normalizer, held_out=held_out)
        else:
            assert calibration is not None
            chosen, judging = samples_of_folder(calibration, network, profile, normalizer).split()
    finally:
        if recording is not None:
            recording.close()
    return Source(network, bundle, profile, chosen, judging)


def _policy(path: Path, chosen: str, recording: Journal | None) -> tuple[VerifiedBundle | None, RobotProfile | None]:
    """Return the policy and its profile; neither for an ONNX file that is not ours."""
    named = chosen or profile_name(path)
    if not named:
        return None, None
    profile = recording.profile if recording is not None and not chosen else load_profile(named)
    return (open_onnx(path, profile) if path.suffix == ".onnx" else open_bundle(path, profile)), profile


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", "give the path of an .onnx file") from error
