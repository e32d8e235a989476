"""Golden vectors: a few inputs of a network and what it answered where it was made.

They travel in the bundle as `golden.npz` (`input.NAME` (n, *shape), `mean` (n, actions)), so that a robot
can see, before it drives, that its own backend gives the same answers.
"""

from __future__ import annotations

import io

import msgspec
import numpy as np
from numpy.typing import NDArray

from policyloop.core.npz import load_npz
from policyloop.core.step import Arrays
from policyloop.errors import VerificationError

__all__ = ["Golden"]

_MAX_BYTES = 64 << 20
_PREFIX = "input."


class Golden(msgspec.Struct, frozen=True):
    """Inputs and answers.

    Attributes:
        inputs: By the network's input names, (n, *shape).
        mean: Outputs before tanh, (n, actions).
    """

    inputs: Arrays
    mean: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.mean)

    def encode(self) -> bytes:
        """Return the bytes of `golden.npz`; equal vectors give equal bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, allow_pickle=False, **{_PREFIX + name: array for name, array in self.inputs.items()}, mean=self.mean
        )
        return buffer.getvalue()

    @classmethod
    def decode(cls, data: bytes) -> Golden:
        """Read `golden.npz`; VerificationError if it is none, or would be too large in memory."""
        try:
            arrays = load_npz(data, _MAX_BYTES)
            inputs = {name.removeprefix(_PREFIX): array for name, array in arrays.items() if name.startswith(_PREFIX)}
            mean = arrays["mean"]
        except (ValueError, KeyError) as error:
            raise VerificationError(f"the golden vectors are damaged: {error}", "export the bundle again") from error
        if mean.ndim != 2 or mean.dtype != np.float32 or any(len(array) != len(mean) for array in inputs.values()):
            raise VerificationError("the golden vectors do not fit together", "export the bundle again")
        return cls(inputs, mean)
