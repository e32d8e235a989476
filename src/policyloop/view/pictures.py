"""Camera pictures for people: JPEG as a page embeds it, and a budget of bytes."""

from __future__ import annotations

import base64

import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from policyloop.wire.rgb import JPEG_END, JPEG_START

__all__ = ["Pictures", "as_jpeg"]


def as_jpeg(picture: NDArray[np.uint8], quality: int = 70) -> str:
    """Return (H, W, 3) as base64 JPEG."""
    return base64.b64encode(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=quality)).decode()


class Pictures(msgspec.Struct):
    """Colour and depth of every `stride`-th step, within a budget: where it is used up, every other one goes.

    Attributes:
        budget_bytes: For both together, in base64.
        rgb, depth: Base64 JPEG.
    """

    budget_bytes: int
    stride: int = 1
    rgb: list[str] = []
    depth: list[str] = []
    size_bytes: int = 0

    def wants(self, index: int) -> bool:
        """Tell whether the pictures of this step are kept; steps come in order, from 0."""
        return index % self.stride == 0

    def add(self, rgb: NDArray[np.uint8], stored: bytes, depth: NDArray[np.uint8]) -> None:
        """Take in a pair, (H, W, 3) each; `stored` is colour as the journal has it, which is used if it is a JPEG."""
        is_raw = len(stored) == rgb.nbytes and not (stored.startswith(JPEG_START) and stored.endswith(JPEG_END))
        self.rgb.append(as_jpeg(rgb) if is_raw else base64.b64encode(stored).decode())
        self.depth.append(as_jpeg(depth))
        self.size_bytes += len(self.rgb[-1]) + len(self.depth[-1])
        while self.size_bytes > self.budget_bytes:
            if len(self.rgb) == 1:
                self.rgb, self.depth, self.size_bytes = [], [], 0  # not even one fits
                return
            self.rgb, self.depth, self.stride = self.rgb[::2], self.depth[::2], 2 * self.stride
            self.size_bytes = sum(map(len, [*self.rgb, *self.depth]))
