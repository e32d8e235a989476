"""How updates run is found by trying, changes nothing but rounding, and is never slower than what needs no trying."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from policyloop.core.profile import RobotProfile
from policyloop.learn import tuning
from policyloop.learn.networks import ActorCritic, make_network
from policyloop.learn.tuning import Execution, choose_execution

CPU = torch.device("cpu")
WAYS = ("float32, channels first", "float32, channels last", "bfloat16, channels last")


def choose(
    monkeypatch: pytest.MonkeyPatch,
    network: ActorCritic,
    profile: RobotProfile,
    seconds: tuple[float, float, float],
    distance: float = 0.01,
    minibatch: int = 8,
) -> Execution:
    """Choose where the ways take these times, and bfloat16's gradient is that far off."""
    times = dict(zip(WAYS, seconds, strict=True))

    def run(trial: tuning._Trial) -> None:
        trial.seconds = times[trial.name]

    monkeypatch.setattr(tuning._Trial, "run", run)
    monkeypatch.setattr(
        tuning._Trial, "distance_to", lambda trial, other: distance if trial.way.precision == "bfloat16" else 1e-7
    )
    return choose_execution(network, profile, minibatch, CPU)


@pytest.fixture
def network(mini: RobotProfile) -> ActorCritic:
    torch.manual_seed(0)
    return make_network("spatial", mini)


@pytest.mark.parametrize(
    ("seconds", "distance", "precision", "channels_last"),
    [
        pytest.param((1.0, 0.7, 0.4), 0.01, "bfloat16", True, id="the fastest"),
        pytest.param((1.0, 0.7, 0.65), 0.01, "float32", True, id="a gain that may be noise is none"),
        pytest.param((1.0, 0.9, 0.8), 0.01, "bfloat16", True, id="compared with the best so far"),
        pytest.param((1.0, 0.9, 0.9), 0.01, "float32", False, id="nothing gained"),
        pytest.param((1.0, 1.2, 9.0), 0.01, "float32", False, id="everything else is slower"),
        pytest.param((1.0, 0.7, 0.4), 0.3, "float32", True, id="fast but wrong"),
    ],
)
def test_the_fastest_way_that_is_right_is_taken(
    monkeypatch: pytest.MonkeyPatch,
    network: ActorCritic,
    mini: RobotProfile,
    seconds: tuple[float, float, float],
    distance: float,
    precision: str,
    channels_last: bool,
) -> None:
    chosen = choose(monkeypatch, network, mini, seconds, distance)
    assert (chosen.precision, chosen.channels_last) == (precision, channels_last)


def test_a_way_that_is_hopeless_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, network: ActorCritic, mini: RobotProfile
) -> None:
    tried: list[str] = []

    def run(trial: tuning._Trial) -> None:
        tried.append(trial.name)
        trial.seconds = 10.0 if trial.way.precision == "bfloat16" else 1.0

    monkeypatch.setattr(tuning._Trial, "run", run)
    choose_execution(network, mini, 8, CPU)
    assert tried.count(WAYS[2]) == 1
    assert tried.count(WAYS[0]) > 1


def test_a_way_that_the_device_cannot_go_is_left_out(
    monkeypatch: pytest.MonkeyPatch, network: ActorCritic, mini: RobotProfile
) -> None:
    gradient = tuning._Trial._gradient

    def refuse(trial: tuning._Trial) -> Tensor:
        if trial.way.precision == "bfloat16":
            raise RuntimeError("bfloat16 is not supported on this device")
        return gradient(trial)

    monkeypatch.setattr(tuning._Trial, "_gradient", refuse)
    assert choose_execution(network, mini, 8, CPU).precision == "float32"


def test_a_device_that_fails_is_not_taken_for_one_that_cannot(
    monkeypatch: pytest.MonkeyPatch, network: ActorCritic, mini: RobotProfile
) -> None:
    def fail(trial: tuning._Trial) -> Tensor:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(tuning._Trial, "_gradient", fail)
    with pytest.raises(torch.AcceleratorError):
        choose_execution(network, mini, 8, CPU)


def test_a_network_without_pictures_is_not_tried(monkeypatch: pytest.MonkeyPatch, blind: RobotProfile) -> None:
    monkeypatch.setattr(tuning, "_Trial", None)
    assert choose_execution(make_network("mlp", blind), blind, 256, CPU) == Execution()


def test_trying_leaves_weights_gradients_and_random_state_alone(network: ActorCritic, mini: RobotProfile) -> None:
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    choose_execution(network, mini, 4, CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert network.convolution_dtype is torch.float32


def test_a_minibatch_that_fits_the_memory_is_not_cut(
    monkeypatch: pytest.MonkeyPatch, network: ActorCritic, mini: RobotProfile
) -> None:
    assert choose(monkeypatch, network, mini, (1.0, 1.0, 1.0), minibatch=8).rows_at_once == 0


def test_a_minibatch_that_does_not_fit_is_cut_into_powers_of_two(
    monkeypatch: pytest.MonkeyPatch, network: ActorCritic, mini: RobotProfile
) -> None:
    # The first convolution of a 64x36 picture alone leaves 16 planes of 22x12 float32 per step: 16,896 bytes.
    monkeypatch.setitem(tuning._ACTIVATION_BYTES, "cpu", 1 << 20)
    rows = choose(monkeypatch, network, mini, (1.0, 1.0, 1.0), minibatch=256).rows_at_once
    assert rows in (4, 8, 16, 32)


def test_gradients_of_the_trials_are_those_of_float32_but_for_rounding(
    network: ActorCritic, mini: RobotProfile
) -> None:
    features = tuning.made_up_features(mini, 8, CPU)
    plain, last, half = (
        tuning._Trial(Execution(channels_last=last, precision=precision), network, features)
        for last, precision in ((False, "float32"), (True, "float32"), (True, "bfloat16"))
    )
    assert last.distance_to(plain) < 1e-5
    assert 1e-5 < half.distance_to(plain) < 0.1


@pytest.mark.parametrize("name", ["spatial", "original"])
def test_lower_precision_holds_for_pictures_and_only_for_the_moment(name: str, mini: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network(name, mini)
    features = tuning.made_up_features(mini, 4, CPU)
    with torch.no_grad():
        exact = network.mean(features)
        with pytest.raises(ZeroDivisionError), Execution(precision="bfloat16").applied_to(network):
            rough = network.mean(features)
            raise ZeroDivisionError
        assert rough.dtype == torch.float32
        assert 0 < (rough - exact).abs().max() < 0.01
        assert torch.equal(network.mean(features), exact)


def test_weights_lie_as_wanted_and_are_the_same(network: ActorCritic) -> None:
    before = copy.deepcopy(network.state_dict())
    Execution(channels_last=True).lay_out(network)
    kernels = [parameter for parameter in network.parameters() if parameter.dim() == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    assert not all(kernel.is_contiguous() for kernel in kernels)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    Execution().lay_out(network)
    assert all(parameter.is_contiguous() for parameter in network.parameters())
