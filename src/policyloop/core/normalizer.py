"""Normalisation of the proprioception vector: running statistics and the frozen form a bundle carries."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.errors import IncompatibleError

__all__ = ["Normalizer", "RunningStatistics"]

Vector = NDArray[np.float32]


class Normalizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Map x to `clip((x - mean) / std, -clip, clip)`, element by element."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: float = 5.0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise IncompatibleError(f"normalizer: {len(self.mean)} means but {len(self.std)} deviations")
        if not all(np.isfinite(self.mean)) or not all(0 < s < np.inf for s in self.std):
            raise IncompatibleError("normalizer: statistics must be finite and deviations positive")

    def __call__(self, x: NDArray[np.floating]) -> Vector:
        """Normalise `x` of shape (..., n); returns float32."""
        mean = np.asarray(self.mean, np.float32)
        std = np.asarray(self.std, np.float32)
        return np.clip((x.astype(np.float32) - mean) / std, -self.clip, self.clip)


class RunningStatistics:
    """Mean and variance of a stream, merged batch by batch (Chan, Golub and LeVeque 1979)."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self._squares = np.zeros(size)

    def update(self, batch: NDArray[np.floating]) -> None:
        """Add `batch` of shape (n, size)."""
        count = len(batch)
        if count == 0:
            return
        mean = batch.mean(axis=0, dtype=np.float64)
        squares = ((batch - mean) ** 2).sum(axis=0, dtype=np.float64)
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * count / total
        self._squares = self._squares + squares + delta**2 * self.count * count / total
        self.count = total

    @property
    def variance(self) -> NDArray[np.float64]:
        """Population variance of everything seen, shape (size,)."""
        return self._squares / max(self.count, 1)

    def freeze(self, *, floor: float = 1e-2, clip: float = 5.0) -> Normalizer:
        """Return the frozen form; deviations below `floor` are raised to it, lest a constant input explode."""
        std = np.maximum(np.sqrt(self.variance), floor)
        return Normalizer(mean=tuple(self.mean.tolist()), std=tuple(std.tolist()), clip=clip)
