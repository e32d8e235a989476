"""Export: the ONNX file is the network, says what it is, and is refused when it is not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.convert.export import MAX_PARITY_ERROR, check_parity, export_bundle, export_onnx, probe_features
from policyloop.core.features import features
from policyloop.core.normalizer import Normalizer
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.spec import Quantity, RangedQuantity
from policyloop.core.step import Observation
from policyloop.errors import ConfigError, VerificationError
from policyloop.learn.networks import ACTIVATIONS, ActorCritic, MlpNetwork, NetworkSettings, make_network
from policyloop.runtime.policy import Policy
from policyloop.runtime.trial import load_warm


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def without_camera() -> RobotProfile:
    return RobotProfile(
        name="legs",
        proprio=(
            Quantity(name="linear_vel", unit="m/s"),
            Quantity(name="angular_vel", unit="rad/s"),
            Quantity(name="min_forward_dist", unit="m"),
            Quantity(name="joints", unit="rad", size=12),
        ),
        action=tuple(RangedQuantity(name=f"hip{i}", unit="rad", low=-0.5, high=0.5) for i in range(4)),
    )


def profile_of(name: str) -> RobotProfile:
    return without_camera() if name == "legs" else load_profile(name)


def trained(name: str, profile: RobotProfile, seed: int = 0) -> ActorCritic:
    """Return a network with weights of the size that training gives them: outputs of the order of one."""
    torch.manual_seed(seed)
    network = make_network(name, profile)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5)
                assert module.bias is not None
                module.bias.normal_(0, 0.1)
    return network


EVERY_NETWORK = pytest.mark.parametrize(
    ("name", "profile_name"),
    [
        ("spatial", "rover-mini"),
        ("spatial", "rover"),
        ("depth", "rover-mini"),
        ("depth", "rover"),
        ("gray", "rover-mini"),
        ("gray", "rover"),
        ("original", "rover-mini"),
        ("original", "rover"),
        ("mlp", "rover-mini"),
        ("mlp", "rover"),
        ("mlp", "legs"),
    ],
)


@EVERY_NETWORK
def test_torch_and_onnxruntime_agree(name: str, profile_name: str) -> None:
    profile = profile_of(profile_name)
    network, probes = trained(name, profile), probe_features(profile, 6)
    parity = check_parity(network, export_onnx(network, profile), profile, probes)
    assert parity.observations == 6
    assert 0 <= parity.mean_abs_error <= parity.max_abs_error <= 1e-5
    with torch.no_grad():
        size = max(
            float(network.mean({key: torch.from_numpy(array)[None] for key, array in probe.items()}).abs().max())
            for probe in probes
        )
    assert size > 0.1  # an agreement about nothing would prove nothing


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_torch_and_onnxruntime_agree_about_every_activation(activation: str) -> None:
    profile = without_camera()
    torch.manual_seed(0)
    settings = NetworkSettings(hidden_sizes=(64, 32), activation=activation)
    network = MlpNetwork(profile, initial_log_std=-5, settings=settings)
    with torch.no_grad():
        network.actor["head"].get_parameter("4.weight").mul_(20)
    probes = probe_features(profile, 6)
    parity = check_parity(network, export_onnx(network, profile), profile, probes)
    assert parity.max_abs_error <= 1e-5
    with torch.no_grad():
        means = network.mean({"proprio": torch.from_numpy(np.stack([probe["proprio"] for probe in probes]))})
    assert float(means.abs().max()) > 0.1


@EVERY_NETWORK
def test_the_file_is_one_static_graph_of_an_opset_that_converters_take(name: str, profile_name: str) -> None:
    profile = profile_of(profile_name)
    model = onnx.load_model_from_string(export_onnx(trained(name, profile), profile))
    onnx.checker.check_model(model, full_check=True)
    assert all(entry.domain == "" and entry.version <= 19 for entry in model.opset_import)
    shapes = {value.name: value.type.tensor_type for value in (*model.graph.input, *model.graph.output)}
    camera = profile.camera
    expected = {"proprio": [1, profile.proprio_size], "mean": [1, len(profile.action)]}
    if camera is not None and name != "mlp":
        expected["depth"] = [1, 1, camera.height, camera.width]
    if camera is not None and name not in ("mlp", "depth"):
        expected["rgb"] = [1, 3, camera.height, camera.width]
    assert {key: [d.dim_value for d in value.shape.dim] for key, value in shapes.items()} == expected
    assert all(value.elem_type == onnx.TensorProto.FLOAT for value in shapes.values())
    for tensor in model.graph.initializer:
        assert tensor.data_location == onnx.TensorProto.DEFAULT
        assert not tensor.external_data


def test_the_file_holds_exactly_the_deployed_weights() -> None:
    profile = load_profile("rover")
    model = onnx.load_model_from_string(export_onnx(trained("original", profile), profile))
    numbers = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if "scale" not in tensor.name)
    assert numbers == 321_986


@pytest.mark.parametrize(
    ("name", "inputs"), [("mlp", "proprio"), ("depth", "depth,proprio"), ("gray", "rgb,depth,proprio")]
)
def test_a_robot_feeds_what_the_network_looks_at_and_no_more(
    name: str, inputs: str, mini: RobotProfile, tmp_path: Path
) -> None:
    network, probes = trained(name, mini), probe_features(mini, 4)
    about = {"network_name": name, "version": 1, "noise_hold_ticks": 1, "training": {}}
    bundle = export_bundle(network, mini, mini.nominal_normalizer, observations=probes, **about)
    model = onnx.load_model_from_string(bundle.files["policy.onnx"])
    assert {entry.key: entry.value for entry in model.metadata_props}["inputs"] == inputs
    assert [value.name for value in model.graph.input] == list(bundle.manifest.inputs) == inputs.split(",")
    path = Store(tmp_path / "store").add(bundle)
    (tmp_path / "policy.onnx").write_bytes(bundle.files["policy.onnx"])
    rng = np.random.default_rng(3)
    arrays = {
        "rgb": rng.integers(0, 256, (36, 64, 3), np.uint8),
        "depth": rng.integers(0, 9000, (36, 64), np.uint16),
        "proprio": rng.normal(size=6).astype(np.float32),
    }
    seen = features(mini, mini.nominal_normalizer, arrays)
    with torch.no_grad():
        expected = network.mean({key: torch.from_numpy(array)[None] for key, array in seen.items()})[0].numpy()
    for opened in (path, tmp_path / "policy.onnx"):
        policy = Policy.load(opened, mini, "onnx")
        assert list(policy.inputs) == inputs.split(",")
        np.testing.assert_allclose(policy.mean(Observation(arrays, 0)), expected, atol=1e-5)
        policy.close()
    load_warm(path, mini, "onnx").close()  # compares it with its golden vectors


def test_a_bundle_that_takes_what_no_robot_gives_is_refused(mini: RobotProfile, tmp_path: Path) -> None:
    data = export_onnx(trained("depth", mini), mini).replace(b"depth,proprio", b"sonar,proprio")
    (tmp_path / "policy.onnx").write_bytes(data)
    with pytest.raises(VerificationError, match="the network takes 'sonar', profile 'rover-mini' has rgb, depth"):
        Policy.load(tmp_path / "policy.onnx", mini, "onnx")


def test_the_metadata_says_what_the_file_is(mini: RobotProfile) -> None:
    normalizer = Normalizer(mean=(0.5,) * 6, std=(2.0,) * 6)
    model = onnx.load_model_from_string(export_onnx(trained("spatial", mini), mini, normalizer, 17))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["profile_digest"] == mini.digest
    assert metadata["profile_name"] == "rover-mini"
    assert metadata["version"] == "17"
    assert metadata["inputs"] == "rgb,depth,proprio"
    assert msgspec.json.decode(metadata["normalizer"], type=Normalizer) == normalizer
    assert [value.name for value in model.graph.input] == metadata["inputs"].split(",")


@pytest.mark.parametrize("name", ["spatial", "depth", "gray", "original", "mlp"])
def test_equal_weights_give_equal_bytes(name: str, mini: RobotProfile) -> None:
    first = export_onnx(trained(name, mini), mini, version=3)
    assert export_onnx(trained(name, mini), mini, version=3) == first
    assert export_onnx(trained(name, mini), mini, version=4) != first
    assert export_onnx(trained(name, mini, seed=1), mini, version=3) != first


def test_the_critic_is_not_exported(mini: RobotProfile) -> None:
    network = trained("spatial", mini)
    before = export_onnx(network, mini)
    with torch.no_grad():
        for parameter in network.critic_parameters():
            parameter += 1
    assert export_onnx(network, mini) == before


def test_a_layer_that_cannot_be_exported_is_refused_by_name(mini: RobotProfile) -> None:
    network = trained("spatial", mini)
    head = network.actor["head"]
    assert isinstance(head, nn.Sequential)
    head[1] = nn.Mish()
    with pytest.raises(ConfigError, match=r"head\.1 \(Mish\)") as caught:
        export_onnx(network, mini)
    assert "ReLU" in caught.value.remedy


def test_a_network_that_cannot_be_exported_is_refused_by_name(mini: RobotProfile) -> None:
    class Home(ActorCritic):
        pass

    with pytest.raises(ConfigError, match="Home"):
        export_onnx(Home(), mini)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_at_the_parity_check(mini: RobotProfile, poison: float) -> None:
    network = trained("spatial", mini)
    with torch.no_grad():
        network.actor["trunk"].get_parameter("0.weight")[0, 0, 0, 0] = poison
    with pytest.raises(VerificationError, match="differ by nan") as caught:
        check_parity(network, export_onnx(network, mini), mini, probe_features(mini, 2))
    assert caught.value.exit_code == 5
    assert "not finite" in caught.value.remedy


def test_other_weights_than_exported_are_refused(mini: RobotProfile) -> None:
    network = trained("spatial", mini)
    exported = export_onnx(network, mini)
    with torch.no_grad():
        network.actor["head"].get_parameter("2.bias")[0] += 1e-3
    with pytest.raises(VerificationError, match=r"differ by 1\.00e-03"):
        check_parity(network, exported, mini, probe_features(mini, 2))


def test_one_large_output_does_not_excuse_differences_elsewhere() -> None:
    profile = without_camera()
    network = trained("mlp", profile)
    exported = export_onnx(network, profile)
    ordinary, huge = probe_features(profile, 2)
    huge["proprio"][:] = 1e6
    with torch.no_grad():
        network.actor["head"].get_parameter("4.bias")[0] += 1e-3
    with pytest.raises(VerificationError):
        check_parity(network, exported, profile, [ordinary])
    with pytest.raises(VerificationError):
        check_parity(network, exported, profile, [ordinary, huge])


def test_a_file_for_another_camera_is_refused(mini: RobotProfile) -> None:
    exported = export_onnx(trained("spatial", mini), mini)
    rover = load_profile("rover")
    with pytest.raises(VerificationError, match="expected"):
        check_parity(trained("spatial", rover), exported, rover, probe_features(rover, 1))


def test_probes_are_network_inputs_and_reproducible(mini: RobotProfile) -> None:
    probes = probe_features(mini, 3)
    assert len(probes) == 3
    for probe, again in zip(probes, probe_features(mini, 3), strict=True):
        assert {name: (array.shape, array.dtype.name) for name, array in probe.items()} == {
            "rgb": ((3, 36, 64), "uint8"),
            "depth": ((1, 36, 64), "uint8"),
            "proprio": ((6,), "float32"),
        }
        assert all(np.array_equal(array, again[name]) for name, array in probe.items())
    assert not np.array_equal(probes[0]["rgb"], probes[1]["rgb"])


def bundle_of(network: ActorCritic, profile: RobotProfile, version: int = 5) -> Bundle:
    return export_bundle(
        network,
        profile,
        profile.nominal_normalizer,
        network_name="spatial",
        version=version,
        noise_hold_ticks=2,
        observations=probe_features(profile, 4),
        training={"update": 4},
    )


def test_a_bundle_drives_as_the_network_does(mini: RobotProfile, tmp_path: Path) -> None:
    network = trained("spatial", mini)
    path = Store(tmp_path).add(bundle_of(network, mini))
    manifest = open_bundle(path, mini).manifest
    assert manifest.parity.max_abs_error <= MAX_PARITY_ERROR
    assert manifest.log_std == pytest.approx((-0.5, -0.5))
    assert (manifest.version, manifest.noise_hold_ticks, manifest.training) == (5, 2, {"update": 4})
    rng = np.random.default_rng(0)
    arrays = {
        "rgb": rng.integers(0, 256, (36, 64, 3), np.uint8),
        "depth": rng.integers(0, 5000, (36, 64), np.uint16),
        "proprio": np.array([0.3, 0.1, 0.0, 0.0, 9.8, 1.5], np.float32),
    }
    policy = Policy.load(path, mini)
    action = policy.act(Observation(arrays, 0))
    policy.close()
    inputs = features(mini, mini.nominal_normalizer, arrays)
    with torch.no_grad():
        mean = network.mean({name: torch.from_numpy(array)[None] for name, array in inputs.items()})[0]
    expected = mini.action_center + mini.action_half_range * torch.tanh(mean).numpy()
    assert action.values == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_parity_check_needs_something_to_check(mini: RobotProfile) -> None:
    with pytest.raises(ConfigError, match="at least one observation"):
        export_bundle(
            trained("spatial", mini),
            mini,
            mini.nominal_normalizer,
            network_name="spatial",
            version=1,
            noise_hold_ticks=1,
            observations=[],
            training={},
        )
