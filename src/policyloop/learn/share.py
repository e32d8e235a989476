"""Which steps of an update are this rank's."""

from __future__ import annotations

from zlib import crc32

import torch
from torch import Tensor

from policyloop.core.step import StepRecord
from policyloop.learn.ranks import ALONE, Ranks

__all__ = ["Share", "owner"]


def owner(record: StepRecord, count: int) -> int:
    """Return the rank that decodes a step: whole episodes, in turn among `count` ranks, the same after a restart."""
    return (crc32(f"{record.robot}/{record.boot}".encode()) + record.episode) % count


class Share:
    """The rows of this rank among those of all ranks.

    Args:
        ranks: All of them.
        rows: Numbers of this rank's rows among all, (n,).
        total: How many rows all ranks have together.
    """

    def __init__(self, ranks: Ranks, rows: Tensor, total: int) -> None:
        self.ranks, self.total = ranks, total
        self._place = torch.full((total,), -1, dtype=torch.int64)
        self._place[rows] = torch.arange(len(rows))

    @classmethod
    def whole(cls, total: int) -> Share:
        """Return the share of a rank that is alone."""
        return cls(ALONE, torch.arange(total), total)

    def own(self, index: Tensor) -> Tensor:
        """Return where those of the rows `index` lie that this rank has, in their order; on the CPU."""
        places = self._place[index]
        return places[places >= 0]

    def mean_and_variance(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of one number per row over all ranks; the variance of a single row is 0."""
        mean = self.ranks.sum(numbers.sum()) / self.total
        return mean, self.ranks.sum((numbers - mean).square().sum()) / max(1, self.total - 1)
