"""Where training runs, and what is said when it can no longer run there."""

from __future__ import annotations

import pytest
import torch

from policyloop.errors import PolicyloopError
from policyloop.learn.device import accelerator_errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with ..."),
            "the GPU failed: CUDA error",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), "the GPU failed"),
        (RuntimeError("HIP error: the operation cannot be performed"), "the GPU failed"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "the memory of the GPU is full"),
    ],
)
def test_a_gpu_that_fails_is_named_with_a_way_on(error: RuntimeError, said: str) -> None:
    with pytest.raises(PolicyloopError, match=said) as caught, accelerator_errors():
        raise error
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert "--resume" in caught.value.remedy
    assert caught.value.__cause__ is error


def test_errors_that_are_no_gpus_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught, accelerator_errors():
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not isinstance(caught.value, PolicyloopError)
