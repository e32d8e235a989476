"""The NPU backend against a double with RKNNLite's return conventions: codes and None, never an exception."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from policyloop.bundle.build import Bundle, build_bundle
from policyloop.bundle.manifest import RKNN_NAME, Conversion
from policyloop.bundle.verify import VerifiedBundle
from policyloop.core.features import feature_specs, features
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Observation
from policyloop.errors import ConfigError, IncompatibleError, VerificationError
from policyloop.runtime import rknn_backend
from policyloop.runtime.backend import open_backend
from policyloop.runtime.rknn_backend import CORE_MASKS, RknnBackend


class Lite:
    """RKNNLite, as far as its callers can tell: `load_rknn` takes any bytes, `init_runtime` finds out."""

    load_code = 0
    init_code = 0
    version: str | None = "RKNN VERSION:\n  API: 2.5.0 (429f97ae6b@2025-04-09T09:09:27)\n  DRV: rknn_server/0.9.8"
    output: Any = None
    last: Lite

    def __init__(self, verbose: bool = False) -> None:
        type(self).last = self
        self.calls: list[list[np.ndarray]] = []
        self.released = False
        self.core_mask = -1
        self.loaded = b""

    def load_rknn(self, path: str) -> int:
        self.loaded = Path(path).read_bytes()
        self.path = Path(path)
        return self.load_code

    def init_runtime(self, target: None = None, core_mask: int = 0) -> int:
        self.core_mask = core_mask
        return self.init_code

    def get_sdk_version(self) -> str | None:
        return self.version

    def inference(self, inputs: list[np.ndarray], **options: Any) -> list[np.ndarray] | None:
        self.calls.append(inputs)
        cycle: list[Any] = [inputs]
        cycle.append(cycle)  # what the real one leaves behind at every call
        return [np.array([[0.25, -0.5]], np.float32)] if self.output is None else self.output

    def release(self) -> None:
        self.released = True


def lite(**conventions: Any) -> type[Lite]:
    return type("Lite", (Lite,), conventions)


def backend(profile: RobotProfile, kind: type[Lite], **more: Any) -> RknnBackend:
    return RknnBackend(b"RKNN bytes", feature_specs(profile), 2, toolkit="2.5.0", lite=kind, **more)


def test_pictures_go_in_channels_last_and_contiguous_and_vectors_as_floats(
    mini: RobotProfile, make_step: Callable[..., Any]
) -> None:
    kind = lite()
    opened = backend(mini, kind)
    inputs = features(mini, mini.nominal_normalizer, make_step(mini).observation)
    assert opened.infer(inputs).tolist() == [0.25, -0.5]
    rgb, depth, proprio = kind.last.calls[-1]
    assert (rgb.shape, depth.shape, proprio.shape) == ((1, 36, 64, 3), (1, 36, 64, 1), (1, 6))
    assert (rgb.dtype, depth.dtype, proprio.dtype) == (np.uint8, np.uint8, np.float32)
    assert all(array.flags.c_contiguous for array in (rgb, depth, proprio))
    np.testing.assert_array_equal(rgb[0], make_step(mini).observation["rgb"])
    np.testing.assert_array_equal(depth[0, :, :, 0], inputs["depth"][0])


def test_it_is_fed_what_the_network_takes_in_its_order(mini: RobotProfile, make_step: Callable[..., Any]) -> None:
    kind = lite()
    opened = RknnBackend(b"RKNN", feature_specs(mini, ("depth", "proprio")), 2, toolkit="2.5.0", lite=kind)
    opened.infer(features(mini, mini.nominal_normalizer, make_step(mini).observation))
    assert [array.shape for array in kind.last.calls[-1]] == [(1, 36, 64, 1), (1, 6)]


def test_the_verified_bytes_are_what_is_loaded_and_nothing_stays_on_disk(mini: RobotProfile) -> None:
    kind = lite()
    backend(mini, kind)
    assert kind.last.loaded == b"RKNN bytes"
    assert not kind.last.path.exists()


@pytest.mark.parametrize(("core", "mask"), [("auto", 0), ("0", 1), ("1", 2), ("2", 4), ("0_1", 3), ("0_1_2", 7)])
def test_the_core_is_chosen_by_name(core: str, mask: int, mini: RobotProfile) -> None:
    kind = lite()
    backend(mini, kind, core=core)
    assert kind.last.core_mask == mask == CORE_MASKS[core]


def test_every_return_value_is_checked_and_the_context_released(mini: RobotProfile) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"load_code": -1}, VerificationError, "cannot load"),
        ({"init_code": -1}, ConfigError, "does not start"),
        ({"inference": lambda self, inputs, **options: None}, VerificationError, "no output"),
        ({"output": [np.zeros((1, 3), np.float32)]}, VerificationError, "gives 3 numbers, expected 2"),
    ]
    for conventions, kind_of_error, message in cases:
        kind = lite(**conventions)
        with pytest.raises(kind_of_error, match=message):
            backend(mini, kind)
        assert kind.last.released, message


def test_a_runtime_older_than_the_converter_is_refused_with_both_versions(mini: RobotProfile) -> None:
    kind = lite(version="RKNN VERSION:\n  API: 2.3.2 (429f97ae6b@2025-04-09T09:09:27)\n  DRV: 0.9.8")
    with pytest.raises(IncompatibleError, match=r"librknnrt is 2\.3\.2, .* toolkit 2\.5\.0") as caught:
        backend(mini, kind)
    assert "librknnrt 2.5.0" in caught.value.remedy
    assert caught.value.exit_code == 7
    assert kind.last.released


def test_the_version_triple_is_kept(mini: RobotProfile) -> None:
    assert backend(mini, lite()).versions == {"toolkit": "2.5.0", "runtime": "2.5.0", "driver": "0.9.8"}
    assert backend(mini, lite(version=None)).versions == {"toolkit": "2.5.0", "runtime": "", "driver": ""}
    assert backend(mini, lite(version="API: 2.10.1 DRV: 0.9.8")).versions["runtime"] == "2.10.1"


def test_what_inference_leaves_behind_is_collected_now_and_then(mini: RobotProfile) -> None:
    opened = backend(mini, lite())
    empty = {name: np.zeros(spec.shape, spec.dtype) for name, spec in feature_specs(mini).items()}
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(100):
            opened._lite.calls.clear()
            opened.infer(empty)
        assert len(gc.get_objects()) - before < 60
    finally:
        gc.enable()


def test_a_closed_backend_is_released(mini: RobotProfile) -> None:
    kind = lite()
    backend(mini, kind).close()
    assert kind.last.released


# -- which backend ----------------------------------------------------------------------------


def converted(make_bundle: Callable[..., Bundle], rknn: bytes | None) -> VerifiedBundle:
    bundle = make_bundle()
    if rknn is not None:
        conversion = Conversion(
            target="rk3588", precision="int8", toolkit="2.5.0", calibration_digest="", reason="", errors={}
        )
        about = msgspec.structs.replace(bundle.manifest, conversion=conversion)
        bundle = build_bundle(about, {**bundle.files, RKNN_NAME: rknn})
    return VerifiedBundle(bundle.manifest, bundle.digest, bundle.files)


def test_auto_takes_the_npu_where_there_is_one_and_a_network_for_it(
    mini: RobotProfile, make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rknn_backend, "_rknn_lite", lambda: lite())
    for present, rknn, name in (
        (True, b"RKNN", "rknn"),
        (True, None, "onnxruntime"),
        (False, b"RKNN", "onnxruntime"),
    ):
        monkeypatch.setattr(rknn_backend, "npu_present", lambda present=present: present)
        opened = open_backend("auto", converted(make_bundle, rknn), feature_specs(mini), 2)
        assert opened.name == name
        opened.close()


def test_the_npu_can_be_asked_for_by_name_and_says_what_is_missing(
    mini: RobotProfile, make_bundle: Callable[..., Bundle]
) -> None:
    with pytest.raises(ConfigError, match="no network for the NPU") as caught:
        open_backend("rknn", converted(make_bundle, None), feature_specs(mini), 2)
    assert "policyloop convert" in caught.value.remedy
    with pytest.raises(ConfigError, match="RKNNLite cannot be imported") as caught:
        open_backend("rknn", converted(make_bundle, b"RKNN"), feature_specs(mini), 2)
    assert "rknn-toolkit-lite2" in caught.value.remedy


def test_cores_are_named_behind_the_backend(
    mini: RobotProfile, make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = lite()
    monkeypatch.setattr(rknn_backend, "_rknn_lite", lambda: kind)
    for name, mask in (("rknn", 1), ("rknn:2", 4), ("rknn:0_1_2", 7)):
        open_backend(name, converted(make_bundle, b"RKNN"), feature_specs(mini), 2).close()
        assert kind.last.core_mask == mask
    with pytest.raises(ConfigError, match="no core '5'") as caught:
        open_backend("rknn:5", converted(make_bundle, b"RKNN"), feature_specs(mini), 2)
    assert "0_1_2" in caught.value.remedy


def test_a_policy_records_that_the_npu_proposed(
    mini: RobotProfile, make_bundle: Callable[..., Bundle], make_step: Callable[..., Any]
) -> None:
    from policyloop.runtime.policy import Policy

    policy = Policy(converted(make_bundle, b"RKNN"), mini, backend(mini, lite()))
    action = policy.act(Observation(make_step(mini).observation, 0))
    assert action.behaviour is not None
    assert (action.behaviour.backend, action.behaviour.mean) == ("rknn", (0.25, -0.5))
