"""Several processes that make each update together, one per GPU, on one machine or more; `torchrun` starts them.

Rank 0 leads: it tells the others what to do next. Every minibatch's gradient is the sum of what each rank computed on
its own rows, so that all ranks take the same step and their weights stay equal to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn

from policyloop.errors import ConfigError, ConnectionFailed, PolicyloopError

__all__ = ["ALONE", "TIMEOUT_S", "Ranks"]

TIMEOUT_S = 300.0
"""A rank that is silent for so long is given up; only a process that ends is noticed at once, not a lost machine."""


class Ranks:
    """The processes of one training as one of them sees them.

    Attributes:
        rank: Number of this process, from 0.
        count: How many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @classmethod
    def join(cls, learner: str, device: str, timeout_s: float = TIMEOUT_S) -> Ranks:
        """Meet the other processes that `torchrun` started; without it, this one is alone.

        Args:
            learner: Its name.
            device: As `--device` has it; each rank on a machine takes a GPU of its own.
            timeout_s: See `TIMEOUT_S`.

        Raises:
            ConfigError: The learner cannot be shared, or there are more ranks than GPUs.
            ConnectionFailed: The others cannot be reached.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return ALONE
        if learner != "ppo":
            raise ConfigError(
                f"{count} ranks can share --learner ppo from a journal, not {learner}", "start it without torchrun"
            )
        # Holds the processes' group in default arguments if it is imported after they met, as optimizers do; then
        # `close` leaves gloo's threads running, and they abort the interpreter when it ends.
        from torch.distributed.nn import functional  # noqa: F401

        on_gpu = device != "cpu" and torch.cuda.is_available()
        if on_gpu:
            _take_gpu(int(os.environ["LOCAL_RANK"]))
        try:
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(seconds=timeout_s)
            )
        except (RuntimeError, ValueError) as error:
            raise ConnectionFailed(
                f"the {count} ranks do not find each other: {_first_line(error)}",
                "check torchrun's --rdzv-endpoint, or set GLOO_SOCKET_IFNAME to the network interface that they share",
            ) from error
        return cls(distributed.get_rank(), count)

    @property
    def leads(self) -> bool:
        """This is rank 0, which alone talks to robots and writes files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of every rank's tensor of this shape, equal on all of them to the last bit."""
        if self.count > 1:
            with self._in_touch():
                distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their sum over all ranks; one that a rank does not have counts as zero there."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = total.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def require_equal(self, numbers: Sequence[int], what: str) -> None:
        """Raise PolicyloopError unless every rank has these same numbers; `what` they stand for, for people."""
        if self.count == 1:
            return
        mine = torch.tensor(numbers, dtype=torch.int64)
        all_of_them = [torch.empty_like(mine) for _ in range(self.count)]
        with self._in_touch():
            distributed.all_gather(all_of_them, mine)
        for rank, theirs in enumerate(all_of_them):
            if not torch.equal(theirs, all_of_them[0]):
                raise PolicyloopError(
                    f"ranks 0 and {rank} differ in {what}",
                    "give all of them the same version and the same journal, whole (`policyloop journal verify`), "
                    "and go on with --resume",
                )

    def tell(self, message: bytes) -> None:
        """Send something from rank 0 to all the others, which wait in `hear`."""
        if self.count > 1:
            self._broadcast(torch.tensor([len(message)]))
            self._broadcast(torch.from_numpy(np.frombuffer(message, np.uint8).copy()))

    def hear(self) -> bytes:
        """Return what rank 0 tells, as soon as it does."""
        size = self._broadcast(torch.zeros(1, dtype=torch.int64))
        return self._broadcast(torch.empty(int(size), dtype=torch.uint8)).numpy().tobytes()

    def _broadcast(self, tensor: Tensor) -> Tensor:
        with self._in_touch():
            distributed.broadcast(tensor, src=0)
        return tensor

    @contextmanager
    def _in_touch(self) -> Iterator[None]:
        """Name the loss of another rank instead of torch's own error."""
        try:
            yield
        except RuntimeError as error:
            raise PolicyloopError(
                f"rank {self.rank} of {self.count} has lost another one: {_first_line(error)}",
                "see what that one said last, and go on from the last checkpoint with --resume",
            ) from error

    def close(self) -> None:
        """Leave the others; no thread of torch's stays behind."""
        if self.count > 1:
            distributed.destroy_process_group()


ALONE = Ranks()
"""One process that learns by itself."""


def _take_gpu(number: int) -> None:
    if number >= torch.cuda.device_count():
        raise ConfigError(
            f"rank {number} of this machine has no GPU of its own, there are {torch.cuda.device_count()}",
            "lower torchrun's --nproc-per-node, or use --device cpu",
        )
    torch.cuda.set_device(number)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
