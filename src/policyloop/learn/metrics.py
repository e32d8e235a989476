"""Where training's numbers go: TensorBoard, one JSON line per update, one line on the console."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

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
    "bc_held_out_loss": ("losses/bc_held_out_loss",),
    "critic_loss": ("losses/critic_loss",),
    "temperature": ("losses/temperature",),
    "effective_share": ("losses/effective_share",),
    "staleness": ("charts/staleness",),
    "interventions": ("charts/interventions",),
    "std": ("train/std",),
}
"""TensorBoard tags by our names: those of the original documents and those everybody knows."""


class Metrics:
    """Writes the numbers of each update. A disk that refuses them is an alarm; training goes on.

    Args:
        directory: Of the TensorBoard run; `progress.jsonl` lies beside the event files.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._board: SummaryWriter | None = _open_board(directory)
        self._lines = (directory / "progress.jsonl").open("ab")

    def write(self, step: int, numbers: dict[str, float], **more: Any) -> None:
        """Write `numbers` at `step` (policy steps learned from); `more` goes to the JSON line only."""
        line = {"step": step, "wall_clock_s": time.time(), **numbers, **more}
        try:
            self._lines.write(msgspec.json.encode(line) + b"\n")
            self._lines.flush()
            self._write_scalars(step, numbers)
        except OSError as error:
            self._complain(error)

    def _write_scalars(self, step: int, numbers: dict[str, float]) -> None:
        board, self._board = self._board or _open_board(self._directory), None
        for name, value in numbers.items():
            for tag in _TAGS.get(name, (name,) if "/" in name else ()):
                board.add_scalar(tag, value, step)
        board.flush()
        self._board = board  # one that has failed is given up: its thread has ended

    def _complain(self, error: OSError) -> None:
        log.error("cannot write the numbers of training to %s: %s", self._directory, error.strerror)

    def close(self) -> None:
        """Finish the files."""
        for file in (self._board, self._lines):
            try:
                if file is not None:
                    file.close()
            except OSError as error:
                self._complain(error)


def _open_board(directory: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory))
