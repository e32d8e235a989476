"""The networks: their layers, what they keep of a picture, and which profiles they take."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch import Tensor, nn

from policyloop.core.features import feature_specs
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.errors import ConfigError
from policyloop.learn.networks import ACTIVATIONS, SCAN_COLUMNS, ActorCritic, NetworkSettings, make_network

EVERY_NETWORK = ["spatial", "depth", "gray", "original", "mlp"]


def random_features(profile: RobotProfile, count: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = {}
    for name, spec in feature_specs(profile).items():
        if spec.dtype == "uint8":
            features[name] = torch.randint(0, 256, (count, *spec.shape), generator=generator, dtype=torch.uint8)
        else:
            features[name] = torch.randn((count, *spec.shape), generator=generator)
    if profile.camera is not None:
        features["scan"] = torch.rand((count, SCAN_COLUMNS), generator=generator)
    return features


def layers(sequence: nn.Module) -> list[tuple[object, ...]]:
    described: list[tuple[object, ...]] = []
    for module in sequence.children():
        if isinstance(module, nn.Conv2d):
            described.append(
                ("conv", module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding)
            )
        elif isinstance(module, nn.Linear):
            described.append(("linear", module.in_features, module.out_features))
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            described.append(("pool", module.output_size))
        else:
            described.append((type(module).__name__.lower(),))
    return described


def conv(inputs: int, outputs: int, kernel: int) -> tuple[object, ...]:
    return ("conv", inputs, outputs, (kernel, kernel), (2, 2), (0, 0))


RELU = ("relu",)


def test_original_has_the_layers_of_the_original_documents() -> None:
    network = make_network("original", load_profile("rover"))
    assert layers(network.actor["rgb"]) == [conv(3, 32, 5), RELU, conv(32, 64, 3), RELU]
    assert layers(network.actor["depth"]) == [conv(1, 16, 5), RELU, conv(16, 32, 3), RELU]
    assert layers(network.actor["fusion"]) == [conv(96, 128, 3), RELU, conv(128, 128, 3), RELU, ("pool", 1)]
    assert layers(network.actor["proprio"]) == [("linear", 6, 64), RELU, ("linear", 64, 64), RELU]
    head = [("linear", 192, 128), RELU, ("linear", 128, 64), RELU]
    assert layers(network.actor["head"]) == [*head, ("linear", 64, 2)]
    assert layers(network.get_submodule("critic")) == [*head, ("linear", 64, 1)]


@pytest.mark.parametrize("name", ["rover", "rover-mini"])
def test_original_deploys_exactly_321986_parameters_at_any_camera(name: str) -> None:
    network = make_network("original", load_profile(name))
    assert sum(parameter.numel() for parameter in network.actor.parameters()) == 321_986


@pytest.mark.parametrize("profile_name", ["rover", "rover-mini"])
@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_every_network_takes_both_cameras(name: str, profile_name: str) -> None:
    profile = load_profile(profile_name)
    network, features = make_network(name, profile), random_features(profile, 3)
    mean, value = network.mean_and_value(features)
    assert mean.shape == (3, 2)
    assert value.shape == (3,)
    assert torch.equal(network.mean(features), mean)
    assert torch.equal(network.value(features), value)


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_states_of_a_batch_do_not_influence_each_other(name: str, mini: RobotProfile) -> None:
    network, features = make_network(name, mini), random_features(mini, 4)
    alone = {key: tensor[2:3] for key, tensor in features.items()}
    assert torch.allclose(network.mean(features)[2], network.mean(alone)[0], atol=1e-6)
    assert torch.allclose(network.value(features)[2], network.value(alone)[0], atol=1e-6)


def change_when_an_obstacle_moves(network: ActorCritic, profile: RobotProfile) -> float:
    """Return how far the output moves when a near patch goes from the left to the right, relative to its effect."""
    features = {name: torch.zeros_like(tensor) for name, tensor in random_features(profile, 3).items()}
    for row, column in ((1, 96), (2, 288)):  # 192 apart: a multiple of every stride
        features["depth"][row, :, 96:160, column : column + 48] = 255
    with torch.no_grad():
        nothing, left, right = network.mean(features)
    effect = (left - nothing).norm()
    assert effect > 0
    return float((left - right).norm() / effect)


def test_spatial_knows_where_in_the_picture_something_is_and_original_forgets() -> None:
    profile = load_profile("rover")
    torch.manual_seed(0)
    assert change_when_an_obstacle_moves(make_network("spatial", profile), profile) > 0.1
    assert change_when_an_obstacle_moves(make_network("original", profile), profile) < 1e-3


def answers(name: str, profile: RobotProfile, **changed: Tensor) -> Tensor:
    """Return what a new network says to random inputs, some of which are changed."""
    torch.manual_seed(0)
    network = make_network(name, profile)
    with torch.no_grad():
        return network.mean({**random_features(profile, 4), **changed})


def test_depth_takes_no_notice_of_colours_and_keeps_where_things_are(mini: RobotProfile) -> None:
    seen = random_features(mini, 4, seed=1)
    assert torch.equal(answers("depth", mini), answers("depth", mini, rgb=seen["rgb"]))
    assert not torch.equal(answers("depth", mini), answers("depth", mini, depth=seen["depth"]))
    profile = load_profile("rover")
    torch.manual_seed(0)
    assert change_when_an_obstacle_moves(make_network("depth", profile), profile) > 0.1


def test_gray_sees_brightness_and_no_colour(mini: RobotProfile) -> None:
    red, green = torch.zeros(2, 4, 3, 36, 64, dtype=torch.uint8)
    red[:, 0], green[:, 1] = 114, 58  # 0.299 * 114 = 34.086 and 0.587 * 58 = 34.046: equally bright
    gray = torch.full((4, 3, 36, 64), 34, dtype=torch.uint8)

    def moved(name: str, first: Tensor, second: Tensor) -> float:
        return float((answers(name, mini, rgb=first) - answers(name, mini, rgb=second)).norm())

    for picture in (red, green):
        assert moved("gray", picture, gray) < 0.05 * moved("gray", picture, 2 * picture)
        assert moved("spatial", picture, gray) > 0.2 * moved("spatial", picture, 2 * picture)


@pytest.mark.parametrize(("name", "weights"), [("spatial", 152_434), ("depth", 151_234), ("gray", 151_634)])
def test_they_stay_small(name: str, weights: int, mini: RobotProfile) -> None:
    # 16 * 25 weights of the first convolution for every plane that is looked at
    assert sum(parameter.numel() for parameter in make_network(name, mini).actor.parameters()) == weights


@pytest.mark.parametrize("profile_name", ["rover", "rover-mini"])
def test_spatial_flattens_its_last_map_without_pooling(profile_name: str) -> None:
    profile = load_profile(profile_name)
    network = make_network("spatial", profile)
    kinds = {type(module) for module in network.modules()}
    assert not {kind for kind in kinds if "Pool" in kind.__name__}
    trunk = network.actor["trunk"]
    assert isinstance(trunk, nn.Sequential)
    flatten = next(index for index, layer in enumerate(trunk) if isinstance(layer, nn.Flatten))
    features = random_features(profile, 1)
    with torch.no_grad():
        feature_map = trunk[:flatten](torch.cat([features["rgb"], features["depth"]], dim=1).float())
    _, channels, height, width = feature_map.shape
    assert 3 <= height <= 9
    assert 6 <= width <= 9
    assert trunk[flatten + 1].in_features == channels * height * width


@pytest.mark.parametrize("name", ["spatial", "depth", "gray", "original"])
def test_a_network_for_pictures_refuses_a_profile_without_camera(name: str, blind: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="needs a camera") as caught:
        make_network(name, blind)
    assert caught.value.exit_code == 3
    assert caught.value.remedy == "use 'mlp'"


def test_mlp_drives_a_robot_without_camera(blind: RobotProfile) -> None:
    network, features = make_network("mlp", blind), random_features(blind, 5)
    assert set(features) == {"proprio"}
    mean, value = network.mean_and_value(features)
    assert mean.shape == (5, 2)
    assert value.shape == (5,)


def test_an_unknown_network_is_refused_by_name(mini: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="no network 'resnet'") as caught:
        make_network("resnet", mini)
    assert "spatial" in caught.value.remedy


def test_original_refuses_a_picture_too_small_for_its_convolutions(mini: RobotProfile) -> None:
    assert mini.camera is not None
    camera = msgspec.structs.replace(mini.camera, width=20, height=16)
    with pytest.raises(ConfigError):
        make_network("original", msgspec.structs.replace(mini, camera=camera))


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_an_untrained_policy_starts_near_the_middle_of_every_range(name: str, mini: RobotProfile) -> None:
    network = make_network(name, mini, initial_log_std=-0.7)
    assert network.mean(random_features(mini, 16)).abs().max() < 0.2
    assert network.log_std.tolist() == pytest.approx([-0.7, -0.7])


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_actor_and_critic_parameters_are_all_parameters_each_once(name: str, mini: RobotProfile) -> None:
    network = make_network(name, mini)
    actor, critic = network.actor_parameters(), network.critic_parameters()
    ids = [id(parameter) for parameter in (*actor, *critic)]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in network.parameters()}
    deployed = {id(parameter) for parameter in network.actor.parameters()} | {id(network.log_std)}
    assert deployed == {id(parameter) for parameter in actor}


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_weights_come_from_the_random_state(name: str, mini: RobotProfile) -> None:
    features = random_features(mini, 2)

    def output(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return make_network(name, mini).mean(features)

    assert torch.equal(output(3), output(3))
    assert not torch.equal(output(3), output(4))


# -- what a name leaves open ------------------------------------------------------------------


def test_an_mlp_is_what_its_settings_say(blind: RobotProfile) -> None:
    settings = NetworkSettings(hidden_sizes=(8, 4), activation="elu", privileged_size=3)
    network = make_network("mlp", blind, settings=settings)
    assert layers(network.actor["head"]) == [("linear", 4, 8), ("elu",), ("linear", 8, 4), ("elu",), ("linear", 4, 2)]
    assert layers(network.get_submodule("critic"))[0] == ("linear", 4 + 3, 128)
    assert network.settings == settings


def test_an_unknown_activation_is_refused_by_name(blind: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="no activation 'sine'") as caught:
        make_network("mlp", blind, settings=NetworkSettings(activation="sine"))
    assert all(name in caught.value.remedy for name in ACTIVATIONS)


def test_a_network_for_pictures_has_no_widths_to_choose(mini: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="'depth' has no widths"):
        make_network("depth", mini, settings=NetworkSettings(hidden_sizes=(8,)))
    assert make_network("depth", mini, settings=NetworkSettings()).settings == NetworkSettings()
