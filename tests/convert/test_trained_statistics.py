"""Statistics of observations in a checkpoint: found, taken out, and never dropped without a word."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policyloop.convert.pt_file import PtFile
from policyloop.convert.trained_statistics import take_trained_statistics
from policyloop.errors import IncompatibleError

LAYERS = {"actor.0.weight": torch.ones(3, 8), "actor.0.bias": torch.ones(3)}


def statistics(prefix: str, size: int = 8) -> dict[str, Tensor]:
    mean = torch.arange(size)[None].double()
    return {f"{prefix}_mean": mean, f"{prefix}_std": mean, f"{prefix}_var": mean**2, f"{prefix}count": torch.tensor(9)}


@pytest.mark.parametrize("prefix", ["obs_normalizer.", "actor_obs_normalizer.", "normalizer.", "obs_norm_state_dict."])
def test_mean_and_std_are_those_that_rsl_rl_works_with(prefix: str) -> None:
    found, rest = take_trained_statistics(PtFile(LAYERS | statistics(prefix), ("iter (int)",)), "policy.pt", 8)
    assert found is not None
    assert found.name == prefix.rstrip(".")
    assert found.mean.tolist() == list(range(8))
    assert found.std.tolist() == [index + 0.01 for index in range(8)]
    assert (list(rest.tensors), rest.others) == (list(LAYERS), ("iter (int)",))


@pytest.mark.parametrize("prefix", ["critic_obs_normalizer.", "privileged_obs_norm_state_dict.", "teacher_normalizer."])
def test_what_a_critic_or_a_teacher_sees_is_not_the_policys(prefix: str) -> None:
    file = PtFile(LAYERS | statistics(prefix))
    assert take_trained_statistics(file, "policy.pt", 8) == (None, file)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        pytest.param(
            statistics("obs_normalizer.", 9),
            r"obs_normalizer\._std has 9 numbers, the description has 8",
            id="of another length",
        ),
        pytest.param(statistics("a.") | statistics("b."), r"a\.\* and b\.\* may both", id="two of them"),
        pytest.param(
            {"running_mean_std.running_mean": torch.ones(8), "running_mean_std.running_var": torch.ones(8)},
            r"running_mean_std\.running_mean looks like statistics",
            id="of another trainer",
        ),
        pytest.param({"norm._mean": torch.ones(1, 8)}, r"norm\._mean looks like statistics", id="without a deviation"),
    ],
)
def test_statistics_that_cannot_be_used_are_refused_with_the_remedy(tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(IncompatibleError, match=said) as caught:
        take_trained_statistics(PtFile(LAYERS | tensors), "policy.pt", 8)
    assert "--obs-stats" in caught.value.remedy
