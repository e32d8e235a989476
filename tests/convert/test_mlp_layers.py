"""Finding a described perceptron among the tensors of a foreign file."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from policyloop.convert.mlp_description import MlpDescription
from policyloop.convert.mlp_layers import find_layers
from policyloop.convert.pt_file import PtFile
from policyloop.errors import IncompatibleError, VerificationError

WANTED = MlpDescription(obs_dim=8, act_dim=3, hidden_sizes=(5, 5), activation="elu")


def perceptron(
    prefix: str = "actor.", *, outputs: int = 3, names: tuple[str, ...] = ("0", "2", "4")
) -> dict[str, Tensor]:
    sizes = (8, 5, 5, outputs)
    tensors = {}
    for index, name in enumerate(names):
        tensors[f"{prefix}{name}.weight"] = torch.randn(sizes[index + 1], sizes[index])
        tensors[f"{prefix}{name}.bias"] = torch.randn(sizes[index + 1])
    return tensors


def found(tensors: dict[str, Tensor], wanted: MlpDescription = WANTED, *, strict: bool = True) -> tuple[str, ...]:
    return find_layers(PtFile(tensors), "policy.pt", wanted, strict=strict).weights


@pytest.mark.parametrize("prefix", ["actor.", "net.", "", "module.policy.actor_net."])
def test_layers_are_found_below_any_prefix(prefix: str) -> None:
    assert found(perceptron(prefix)) == (f"{prefix}0.weight", f"{prefix}2.weight", f"{prefix}4.weight")


def test_named_layers_keep_the_order_of_the_file() -> None:
    assert found(perceptron("", names=("hidden1", "hidden2", "action"))) == (
        "hidden1.weight",
        "hidden2.weight",
        "action.weight",
    )


def test_numbered_layers_are_ordered_by_their_numbers() -> None:
    tensors = perceptron(names=("8", "10", "12"))
    alphabetical = {name: tensors[name] for name in sorted(tensors)}
    assert found(alphabetical) == ("actor.8.weight", "actor.10.weight", "actor.12.weight")


def test_layers_one_level_deeper_are_found() -> None:
    tensors = perceptron("layers.", names=("0.linear", "1.linear", "2.linear"))
    backwards = dict(reversed(tensors.items()))
    assert found(backwards) == tuple(f"layers.{number}.linear.weight" for number in range(3))


def test_a_single_layer_is_a_network_too() -> None:
    single = MlpDescription(obs_dim=8, act_dim=3, hidden_sizes=(), activation="elu")
    assert found(dict(nn.Linear(8, 3).state_dict()), single) == ("weight",)


def test_weights_go_into_the_network_as_float32() -> None:
    tensors = {name: tensor.double() for name, tensor in perceptron().items()}
    layers = find_layers(PtFile(tensors), "policy.pt", WANTED, strict=True)
    sequence = nn.Sequential(nn.Linear(8, 5), nn.ELU(), nn.Linear(5, 5), nn.ELU(), nn.Linear(5, 3))
    layers.copy_into(sequence, tensors)
    assert torch.equal(sequence.get_parameter("4.weight"), tensors["actor.4.weight"].float())
    assert torch.equal(sequence.get_parameter("0.bias"), tensors["actor.0.bias"].float())


RSL_RL = {"std": torch.ones(3), **perceptron("actor."), **perceptron("critic.", outputs=1)}


def test_what_is_left_over_is_refused_by_name_unless_that_is_allowed() -> None:
    with pytest.raises(IncompatibleError, match=r"std \(3,\), critic\.0\.weight \(5, 8\), .* and 4 more") as caught:
        found(RSL_RL)
    assert "--no-strict" in caught.value.remedy
    assert found(RSL_RL, strict=False) == ("actor.0.weight", "actor.2.weight", "actor.4.weight")


def test_entries_that_are_no_tensors_are_left_over_too() -> None:
    file = PtFile(perceptron(), ("iteration (int)",))
    with pytest.raises(IncompatibleError, match=r"iteration \(int\)"):
        find_layers(file, "policy.pt", WANTED, strict=True)
    find_layers(file, "policy.pt", WANTED, strict=False)


@pytest.mark.parametrize("name", ["actor.1.weight", "actor.1.running_mean"])
def test_a_layer_between_the_layers_is_never_left_out(name: str) -> None:
    with pytest.raises(IncompatibleError, match=rf"{name} \(5,\) stands among the layers"):
        found({**perceptron(), name: torch.ones(5)}, strict=False)


def test_of_two_networks_that_fit_one_must_be_chosen() -> None:
    twins = perceptron("actor.") | perceptron("actor_target.")
    with pytest.raises(IncompatibleError, match="'actor' and 'actor_target' both fit"):
        found(twins, strict=False)
    chosen = MlpDescription(obs_dim=8, act_dim=3, hidden_sizes=(5, 5), activation="elu", prefix="actor_target")
    assert found(twins, chosen, strict=False)[0] == "actor_target.0.weight"


def without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in RSL_RL.items() if key != name}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        pytest.param(
            RSL_RL | {"actor.2.weight": torch.ones(6, 5)},
            r"actor\.2\.weight has shape \(6, 5\), the description wants \(5, 5\)",
            id="another weight",
        ),
        pytest.param(
            RSL_RL | {"actor.4.bias": torch.ones(4)},
            r"actor\.4\.bias has shape \(4,\), the description wants \(3,\)",
            id="another bias",
        ),
        pytest.param(without("actor.2.bias"), r"actor\.2\.bias is missing, the description wants \(5,\)", id="no bias"),
        pytest.param(without("actor.4.weight"), r"layer 3 of 3, weight \(3, 5\), is missing", id="no last layer"),
        pytest.param(
            perceptron() | {"actor.6.weight": torch.ones(3, 3), "actor.6.bias": torch.ones(3)},
            r"actor\.6\.weight \(3, 3\) is one layer more than the 3",
            id="a layer more",
        ),
        pytest.param(
            {"conv.weight": torch.ones(4, 3, 5, 5)}, r"no linear layers: conv\.weight \(4, 3, 5, 5\)", id="none"
        ),
        pytest.param({}, "no linear layers: nothing", id="nothing"),
    ],
)
def test_what_is_missing_or_of_another_shape_is_named(tensors: dict[str, Tensor], said: str, strict: bool) -> None:
    with pytest.raises(IncompatibleError, match=said) as caught:
        found(tensors, strict=strict)
    assert caught.value.exit_code == 7
    assert "policy.pt" in caught.value.message


@pytest.mark.parametrize("poison", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(poison: float) -> None:
    tensors = perceptron()
    tensors["actor.2.bias"][1] = poison
    with pytest.raises(VerificationError, match=r"actor\.2\.bias is not finite") as caught:
        found(tensors)
    assert caught.value.exit_code == 5


def test_weights_that_are_integers_are_refused() -> None:
    tensors = perceptron() | {"actor.0.weight": torch.ones(5, 8, dtype=torch.int8)}
    with pytest.raises(VerificationError, match=r"actor\.0\.weight is of torch\.int8"):
        found(tensors)


SAC = {
    **perceptron("actor.latent_pi.", names=("0", "2")),
    "actor.mu.weight": torch.randn(3, 5),
    "actor.mu.bias": torch.randn(3),
    "actor.log_std.weight": torch.randn(3, 5),
    "actor.log_std.bias": torch.randn(3),
}


@pytest.mark.parametrize("prefix", ["", "actor"])
def test_hidden_layers_and_the_last_one_may_have_names_of_their_own(prefix: str) -> None:
    wanted = MlpDescription(obs_dim=8, act_dim=3, hidden_sizes=(5, 5), activation="relu", prefix=prefix)
    assert found(SAC, wanted, strict=False) == (
        "actor.latent_pi.0.weight",
        "actor.latent_pi.2.weight",
        "actor.mu.weight",
    )
    with pytest.raises(IncompatibleError, match=r"more than the description: actor\.log_std\.weight"):
        found(SAC, wanted)


def test_a_last_layer_of_another_shape_is_named_though_it_stands_elsewhere() -> None:
    with pytest.raises(
        IncompatibleError, match=r"actor\.mu\.weight has shape \(4, 5\), the description wants \(3, 5\)"
    ):
        found(SAC | {"actor.mu.weight": torch.ones(4, 5)}, strict=False)
