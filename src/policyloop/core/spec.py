"""Specs: named arrays with shape, dtype, unit and bounds that can say what is wrong with a value."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.errors import IncompatibleError

__all__ = ["UNITS", "ArraySpec", "Quantity", "RangedQuantity"]

UNITS = ("m/s", "rad/s", "rad", "m", "m/s^2", "N m", "s", "1")
"""Units that a profile may use: SI, with `1` for a pure number."""


class Quantity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named entry of the proprioception vector.

    The network sees `(x - center) / scale`, clipped to +-5.
    """

    name: str
    unit: str
    size: int = 1
    center: float = 0.0
    scale: float = 1.0


class RangedQuantity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named entry of the action vector; everything in `unit`.

    Attributes:
        low, high: What the gate lets through.
        center, scale: With the linear action map the action is center + scale * output.
        max_rate: The fastest change that the gate lets through, per second.
    """

    name: str
    unit: str
    low: float
    high: float
    center: float | None = None
    scale: float | None = None
    max_rate: float | None = None


class ArraySpec(msgspec.Struct, frozen=True, kw_only=True):
    """A named array: what must arrive, exactly."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size of one value, bytes."""
        return int(np.dtype(self.dtype).itemsize * int(np.prod(self.shape)))

    def validate(self, value: NDArray[Any]) -> None:
        """Raise IncompatibleError naming this spec if `value` has another shape, dtype or is not finite."""
        if value.shape != self.shape:
            raise IncompatibleError(f"{self.name}: shape {value.shape}, expected {self.shape}")
        if value.dtype != np.dtype(self.dtype):
            raise IncompatibleError(f"{self.name}: dtype {value.dtype}, expected {self.dtype}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise IncompatibleError(f"{self.name}: not finite at index {_first_bad(value)}")


def _first_bad(value: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
