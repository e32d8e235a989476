"""Where training's numbers go: TensorBoard, one JSON line per update, one line on the console."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Metrics"]

log = logging.getLogger(__name__)

_TAGS = {
    "episode_score": ("train/episode_reward", "charts/episodic_return"),
    "episode_steps": ("charts/episodic_length",),
    "collision_rate": ("charts/collision_rate",),
    "steps_per_s": ("charts/SPS",),
    "learning_rate": ("charts/learning_rate",),
    "policy_loss": ("train/policy_loss", "losses/policy_loss"),
    "value_loss": ("train/value_loss", "losses/value_loss"),
    "entropy": ("train/entropy", "losses/entropy"),
    "approx_kl": ("losses/approx_kl",),
    "clipfrac": ("losses/clipfrac",),
    "explained_variance": ("losses/explained_variance",),
    "bc_loss": ("losses/bc_loss",),
    "std": ("train/std",),
}
"""TensorBoard tags by our names: those of the original documents and those everybody knows."""


class Metrics:
    """Writes the numbers of each update.

    Args:
        directory: Of the TensorBoard run; `progress.jsonl` lies beside the event files.
    """

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        directory.mkdir(parents=True, exist_ok=True)
        self._board = SummaryWriter(str(directory))
        self._lines = (directory / "progress.jsonl").open("ab")

    def write(self, step: int, numbers: dict[str, float], **more: Any) -> None:
        """Write `numbers` at `step` (policy steps learned from); `more` goes to the JSON line only."""
        for name, value in numbers.items():
            for tag in _TAGS.get(name, (name,) if "/" in name else ()):
                self._board.add_scalar(tag, value, step)
        self._board.flush()
        line = {"step": step, "wall_clock_s": time.time(), **numbers, **more}
        self._lines.write(msgspec.json.encode(line) + b"\n")
        self._lines.flush()

    def close(self) -> None:
        """Finish the files."""
        self._board.close()
        self._lines.close()
