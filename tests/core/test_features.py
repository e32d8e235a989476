import msgspec
import numpy as np
import pytest

from policyloop.core.features import encode_depth, feature_specs, features
from policyloop.errors import VerificationError


@pytest.mark.parametrize(
    ("depth_mm", "code"),
    [
        (0, 0),
        (1, 255),
        (249, 255),
        (250, 255),
        (251, 254),
        (500, 128),  # 127.5 rounds to even
        (510, 125),
        (1000, 64),
        (2000, 32),
        (10_000, 6),
        (42_600, 1),
        (65_535, 1),
    ],
)
def test_depth_code_by_hand(mini, depth_mm, code):
    assert encode_depth(np.full((2, 3), depth_mm, np.uint16), mini.camera).tolist() == [[code] * 3] * 2


def test_depth_codes_fall_with_distance_and_only_holes_are_zero(mini):
    codes = encode_depth(np.arange(65536, dtype=np.uint16)[None], mini.camera)[0]
    assert codes.dtype == np.uint8
    assert codes[0] == 0
    assert codes[1:].min() == 1
    assert (np.diff(codes[1:].astype(int)) <= 0).all()


def test_the_code_saturates_where_the_camera_says(mini):
    camera = msgspec.structs.replace(mini.camera, depth_near_m=1.0)
    assert encode_depth(np.array([[999, 1000, 2000]], np.uint16), camera).tolist() == [[255, 255, 128]]


def test_layout_is_channels_first(mini, make_step):
    arrays = make_step(mini, 3).observation
    seen = features(mini, mini.nominal_normalizer, arrays)
    assert list(seen) == ["rgb", "depth", "proprio"]
    assert seen["rgb"].flags.c_contiguous
    for row, column in ((0, 0), (5, 60), (35, 63)):
        assert seen["rgb"][:, row, column].tolist() == arrays["rgb"][row, column].tolist()
        expected = encode_depth(arrays["depth"], mini.camera)[row, column]
        assert seen["depth"][0, row, column] == expected


def test_features_have_the_promised_shapes_and_types(mini, make_step):
    seen = features(mini, mini.nominal_normalizer, make_step(mini).observation)
    specs = feature_specs(mini)
    assert list(specs) == list(seen)
    assert [specs[name].shape for name in specs] == [(3, 36, 64), (1, 36, 64), (6,)]
    for name, spec in specs.items():
        spec.validate(seen[name])


def test_proprioception_is_normalised_by_the_profile(mini, make_step):
    proprio = np.array([0.3, -0.6, 0.5, -20.0, 9.81, 4.0], np.float32)
    arrays = {**make_step(mini).observation, "proprio": proprio}
    seen = features(mini, mini.nominal_normalizer, arrays)
    np.testing.assert_allclose(seen["proprio"], [0.5, -0.5, 0.5, -5.0, 0.0, 1.0], atol=1e-6)


def test_a_robot_without_camera_has_only_proprioception(mini):
    blind = msgspec.structs.replace(mini, camera=None)
    seen = features(blind, blind.nominal_normalizer, {"proprio": np.zeros(6, np.float32)})
    assert list(seen) == list(feature_specs(blind)) == ["proprio"]


def test_a_network_gets_the_features_that_it_names_in_its_order(mini):
    specs = feature_specs(mini, ("proprio", "depth"))
    assert list(specs) == ["proprio", "depth"]
    assert specs["depth"] == feature_specs(mini)["depth"]
    with pytest.raises(VerificationError, match="takes 'sonar', profile 'rover-mini' has rgb, depth, proprio"):
        feature_specs(mini, ("depth", "sonar"))


def test_a_network_gets_what_it_takes_in_its_order_and_no_other_picture_is_looked_at(mini, make_step):
    arrays = dict(make_step(mini).observation)
    whole = features(mini, mini.nominal_normalizer, arrays)
    del arrays["rgb"]
    seen = features(mini, mini.nominal_normalizer, arrays, ("proprio", "depth"))
    assert list(seen) == ["proprio", "depth"]
    for name, array in seen.items():
        np.testing.assert_array_equal(array, whole[name])
