"""Network inputs that a converter calibrates on, and others that judge what it made of the network.

The two never share a frame: of a journal whole episodes are held out, of a folder every fourth sample.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policyloop.convert.graph import PreparedNetwork
from policyloop.core.calibration import load_inputs, load_sample, sample_paths
from policyloop.core.features import feature_specs, features
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays, StepRecord
from policyloop.data.calibration import choose_positions, draw_positions
from policyloop.errors import IncompatibleError, UsageError, VerificationError
from policyloop.link.journal import Journal

__all__ = ["Samples", "samples_of_folder", "samples_of_journal", "samples_of_observations"]

_HELD_OUT_EVERY = 4
_FEWEST = 8


@dataclass(frozen=True)
class Samples:
    """Network inputs, (n, ...) each, by name, as `core.features` makes them; a network takes those that it names.

    Attributes:
        inputs: Without batch axis; pictures as planes.
        distances_m: Free distance ahead of each, (n,), 0 = unknown; None where the robot does not measure it.
        source: Where they come from; for people.
    """

    inputs: dict[str, NDArray[np.generic]]
    distances_m: NDArray[np.float32] | None
    source: str

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every input."""
        hasher = hashlib.sha256()
        for name, array in self.inputs.items():
            hasher.update(f"{name} {array.dtype} {array.shape}\n".encode())
            hasher.update(np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()

    def rows(self, index: Sequence[int] | NDArray[np.integer]) -> Samples:
        """Return some of them."""
        chosen = np.asarray(index, np.intp)
        distances = None if self.distances_m is None else self.distances_m[chosen]
        return Samples({name: array[chosen] for name, array in self.inputs.items()}, distances, self.source)

    def split(self) -> tuple[Samples, Samples]:
        """Return three quarters to calibrate on and every fourth to judge with."""
        if len(self) < _FEWEST:
            raise UsageError(
                f"{self.source} holds {len(self)} samples; {_FEWEST} are the fewest that can calibrate and judge",
                "record more: `policyloop run --calibration DIR`, or choose more: `policyloop calibrate --count`",
            )
        rows = np.arange(len(self))
        return self.rows(rows[rows % _HELD_OUT_EVERY != 0]), self.rows(rows[rows % _HELD_OUT_EVERY == 0])


def _stack(entries: Sequence[Arrays], names: Iterable[str], distances: Sequence[float], source: str) -> Samples:
    inputs = {name: np.stack([entry[name] for entry in entries]) for name in names}
    for name, array in inputs.items():
        whole = np.isfinite(array.astype(np.float32).reshape(len(array), -1)).all(axis=1)
        if not whole.all():
            raise VerificationError(
                f"{source}: {name} of sample {int(np.argmin(whole))} holds numbers that are not finite",
                "leave that sample out",
            )
    known = np.asarray(distances, np.float32) if distances else None
    return Samples(inputs, known, source)


def samples_of_observations(
    profile: RobotProfile, normalizer: Normalizer, observations: Iterable[Arrays], source: str
) -> Samples:
    """Turn observations into network inputs, with the code that a driving robot uses.

    Raises:
        UsageError: There are none.
        VerificationError: A number is not finite.
    """
    entries: list[Arrays] = []
    distances: list[float] = []
    ranged = any(quantity.name == "min_forward_dist" for quantity in profile.proprio)
    for arrays in observations:
        if not np.isfinite(arrays["proprio"]).all():
            raise VerificationError(
                f"{source}: proprio of sample {len(entries)} holds numbers that are not finite", "leave that sample out"
            )
        entries.append(features(profile, normalizer, arrays))
        if ranged:
            distances.append(float(arrays["proprio"][profile.proprio_index("min_forward_dist")]))
    if not entries:
        raise UsageError(f"{source} holds no samples", "record some: `policyloop run --calibration DIR`")
    return _stack(entries, feature_specs(profile), distances, source)


def samples_of_folder(
    directory: Path, network: PreparedNetwork, profile: RobotProfile | None, normalizer: Normalizer | None
) -> Samples:
    """Read a folder of `calibration_NNNN.npz`.

    Args:
        directory: Holds observations of a robot; or, without `profile`, arrays named as the network's inputs.
        network: What they are for.
        profile: The robot's, if the network says which one it is.
        normalizer: The policy's.

    Raises:
        UsageError: The folder holds none.
        VerificationError: One is damaged, or not finite.
        IncompatibleError: One does not fit the network.
    """
    paths = sample_paths(directory)
    if not paths:
        raise UsageError(
            f"{directory} holds no calibration_NNNN.npz", "record some: `policyloop run --calibration DIR`"
        )
    if profile is not None and normalizer is not None:
        loaded = (load_sample(path, profile) for path in paths)
        return samples_of_observations(profile, normalizer, loaded, str(directory))
    entries = [_load_inputs(path, network) for path in paths]
    return _stack(entries, [entry.name for entry in network.inputs], [], str(directory))


def _load_inputs(path: Path, network: PreparedNetwork) -> Arrays:
    """Read the inputs of a network that does not say which robot it drives."""
    arrays = load_inputs(path, [entry.name for entry in network.inputs])
    for entry in network.inputs:
        if entry.name not in arrays:
            raise IncompatibleError(f"{path} lacks an input of the network: {entry.name}", "record it again")
        array = arrays[entry.name]
        if array.shape == entry.shape:
            array = array[0]
        if array.shape != entry.shape[1:]:
            raise IncompatibleError(
                f"{path}: {entry.name} is {array.shape}, the network takes {entry.shape[1:]}",
                "use samples of this robot",
            )
        arrays[entry.name] = array.astype(entry.dtype)
    return arrays


def samples_of_journal(
    journal: Journal, source: str, normalizer: Normalizer, *, calibration: int = 100, held_out: int = 500, seed: int = 0
) -> tuple[Samples, Samples]:
    """Return samples to calibrate on, of every kind of situation, and others, of other episodes, to judge with."""

    def read(positions: Sequence[int], about: str) -> Samples:
        observations = (journal.read(position).observation for position in positions)
        return samples_of_observations(journal.profile, normalizer, observations, about)

    judging = draw_positions(journal, held_out, seed=seed, wanted=_is_held_out)
    chosen, coverage = choose_positions(journal, calibration, seed=seed, wanted=lambda record: not _is_held_out(record))
    if not judging:
        raise UsageError("the journal has too few episodes to calibrate on some and judge with others", "drive more")
    kinds = f"{coverage.covered} of the {coverage.strata} kinds of situation that occur"
    return read(chosen, f"{source}: {kinds}"), read(judging, f"{source}: other episodes")


def _is_held_out(record: StepRecord) -> bool:
    return zlib.crc32(f"{record.robot}/{record.boot}/{record.episode}".encode()) % _HELD_OUT_EVERY == 0
