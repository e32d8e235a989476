"""Where training runs: the GPU where there is one, and a CPU that does not waste its time."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from policyloop.errors import ConfigError, PolicyloopError

__all__ = ["accelerator_errors", "choose_device", "keep_freed_memory", "prepare_device", "try_gpu"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the kernel after every layer.

    Page faults otherwise cost a third of the time of a convolutional update on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library: only speed is lost
    for parameter, value in ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, (1 << 31) - 1)):
        mallopt(parameter, value)


def choose_device(name: str) -> torch.device:
    """Return the device by name; `auto` takes a GPU (CUDA or ROCm) where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{name}' cannot be used: {error}", "use auto, cpu or cuda") from error


def prepare_device(name: str, threads: int) -> torch.device:
    """Return the device by name, with this process set up to train there; 0 threads = torch's own choice."""
    device = choose_device(name)
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    return device


def try_gpu() -> str:
    """Compute something on the GPU and return its name.

    Raises:
        ConfigError: torch sees none, or it cannot compute: no driver, a driver that is too old, or a build without its
            architecture.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "torch sees no GPU, although the kernel shows one",
            "upgrade the GPU's driver, or install a torch that was built for an older one",
        )
    try:
        torch.ones(8, 8, device="cuda").matmul(torch.ones(8, 8, device="cuda")).sum().item()
    except RuntimeError as error:
        raise ConfigError(
            f"the GPU cannot compute: {str(error).splitlines()[0]}",
            "this torch may lack its architecture; on ROCm try HSA_OVERRIDE_GFX_VERSION=10.3.0 (gfx103x)",
        ) from error
    return torch.cuda.get_device_name()


_ACCELERATORS = ("CUDA error", "HIP error", "cuDNN error", "miopen")
"""How messages of torch begin that have no class of their own."""


@contextmanager
def accelerator_errors() -> Iterator[None]:
    """Name a GPU that fails, is full, or is gone; nothing on it can be saved any more, what is on disk stays.

    Raises:
        PolicyloopError: Instead of torch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PolicyloopError(
            f"the memory of the GPU is full: {_first_line(error)}",
            "free it, or set a smaller execution.rows_at_once, and go on with --resume",
        ) from error
    except RuntimeError as error:
        if not isinstance(error, torch.AcceleratorError) and not str(error).startswith(_ACCELERATORS):
            raise
        raise PolicyloopError(
            f"the GPU failed: {_first_line(error)}",
            "look at its driver, and go on from the last checkpoint with --resume",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
