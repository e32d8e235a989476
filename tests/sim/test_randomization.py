from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from policyloop.config import load_settings
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError
from policyloop.sim.randomization import NOMINAL, Conditions, Randomization
from policyloop.sim.rover import Rover, arena

LINEAR = 0
MIDDLE = (slice(17, 19), slice(31, 33))
"""The four pixels around the optical axis."""


def conditions(**changes: float) -> Conditions:
    return msgspec.structs.replace(NOMINAL, **changes)


def placed(profile: RobotProfile, **changes: float) -> Rover:
    rover = Rover(profile)
    rover.reset(arena(3, profile.simulation), np.random.default_rng(3), conditions(**changes))
    return rover


def seen(profile: RobotProfile, **changes: float) -> Arrays:
    return placed(profile, **changes).observe()


def speed_after(ticks: int, profile: RobotProfile, **changes: float) -> float:
    rover = placed(profile, **changes)
    for _ in range(ticks):
        rover.drive(0.6, 0.0)
    return float(rover.observe()["proprio"][LINEAR])


def test_every_quantity_is_drawn_from_its_range_and_fills_it() -> None:
    ranges, rng = Randomization(), np.random.default_rng(0)
    drawn = [ranges.draw(rng) for _ in range(300)]
    for name in Conditions.__struct_fields__:
        low, high = getattr(ranges, name)
        values = [getattr(world, name) for world in drawn]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high


def test_the_nominal_world_lies_within_every_default_range_but_that_of_the_camera_s_delay() -> None:
    outside = [
        name
        for name in Conditions.__struct_fields__
        if not getattr(Randomization(), name)[0] <= getattr(NOMINAL, name) <= getattr(Randomization(), name)[1]
    ]
    assert outside == ["observation_latency_ms"]


def test_equal_generators_draw_equal_worlds() -> None:
    first, second, other = (Randomization().draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("friction", 0.9, 0.5),
        ("friction", 0.0, 1.0),
        ("body_mass_kg", -1.0, 4.0),
        ("command_latency_ms", -5.0, 5.0),
        ("hole_share", 0.0, 1.5),
        ("brightness", math.nan, 1.0),
        ("acceleration", 0.5, math.inf),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_by_name(name: str, low: float, high: float) -> None:
    with pytest.raises(ConfigError, match=name):
        Randomization(**{name: (low, high)})


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "ranges.toml"
    path.write_text("friction = [0.3, 0.4]\n")
    assert load_settings(Randomization, path) == Randomization(friction=(0.3, 0.4))
    path.write_text("frictoin = [0.3, 0.4]\n")
    with pytest.raises(ConfigError, match="frictoin"):
        load_settings(Randomization, path)


def test_the_digest_of_a_profile_does_not_know_how_its_world_is_randomised(mini: RobotProfile) -> None:
    assert not set(Randomization.__struct_fields__) & set(type(mini.simulation).__struct_fields__)


def test_a_rover_is_nominal_again_after_an_episode_in_another_world(mini: RobotProfile) -> None:
    rover = placed(mini, friction=0.6, body_mass_kg=7.0, camera_pitch_deg=2.0, brightness=0.5, acceleration=0.7)
    rover.drive(0.6, 0.3)
    rover.reset(arena(3, mini.simulation), np.random.default_rng(3))
    fresh = placed(mini)
    for _ in range(5):
        rover.drive(0.6, 0.3)
        fresh.drive(0.6, 0.3)
        for name, array in fresh.observe().items():
            np.testing.assert_array_equal(rover.observe()[name] if name == "proprio" else array, array)


def test_motors_reach_their_share_of_the_profiles_acceleration(empty: RobotProfile) -> None:
    assert speed_after(5, empty) == pytest.approx(0.5, abs=0.02)  # 1 m/s^2 for half a second
    assert speed_after(5, empty, acceleration=0.6) == pytest.approx(0.3, abs=0.02)


def test_tyres_slip_on_a_smooth_floor(empty: RobotProfile) -> None:
    # They carry the weight and accelerate it: at most 0.05 * 9.81 m/s^2, half of what is asked for.
    assert speed_after(5, empty, friction=0.05) <= 0.05 * 9.81 * 0.5
    assert speed_after(5, empty, friction=0.8) == pytest.approx(0.5, abs=0.02)


def test_a_heavy_rover_lags_behind_for_a_moment(empty: RobotProfile) -> None:
    # The servo of a wheel gives 2 N m per rad/s: time constants of (5 kg, 81 kg) * 0.06^2 / (2 * 2), 5 and 73 ms.
    light, heavy = placed(empty), placed(empty, body_mass_kg=80.0)
    for rover in (light, heavy):
        rover.drive(0.6, 0.0, steps=4)
    light_mps, heavy_mps = (float(rover.observe()["proprio"][LINEAR]) for rover in (light, heavy))
    assert light_mps == pytest.approx(0.04, abs=0.015)
    assert heavy_mps < 0.7 * light_mps


@pytest.mark.parametrize(("pitch_deg", "raised_m"), [(10.0, 0.0), (20.0, 0.0), (20.0, 0.1)])
def test_a_camera_that_looks_down_sees_the_floor_by_hand(
    empty: RobotProfile, pitch_deg: float, raised_m: float
) -> None:
    depth = seen(empty, camera_pitch_deg=pitch_deg, camera_raised_m=raised_m)["depth"][MIDDLE]
    # On the optical axis: h / sin(pitch); half a pixel up and down of it evens out to a fraction of a percent.
    assert depth.mean() / 1000 == pytest.approx((0.18 + raised_m) / math.sin(math.radians(pitch_deg)), rel=0.02)


def test_a_camera_further_ahead_is_closer_to_the_wall(empty: RobotProfile) -> None:
    here, ahead = (seen(empty, camera_forward_m=offset_m)["depth"][MIDDLE].mean() for offset_m in (0.0, 0.3))
    assert here - ahead == pytest.approx(300, abs=3)


def test_light_changes_the_picture_and_not_the_depth(quiet: RobotProfile) -> None:
    plain, dark, flat, warm = (
        seen(quiet, **light) for light in ({}, {"brightness": 0.5}, {"contrast": 0.0}, {"warmth": 0.2})
    )
    unclipped = (plain["rgb"] > 0) & (plain["rgb"] < 255)
    halved = plain["rgb"][unclipped].astype(float) / 2
    np.testing.assert_allclose(dark["rgb"][unclipped], halved, atol=1)
    assert (flat["rgb"] == 128).all()
    for channel, gain in enumerate((1.2, 1.0, 0.8)):
        expected = np.minimum(plain["rgb"][..., channel] * gain, 255)
        clipped = plain["rgb"][..., channel] == 255
        np.testing.assert_allclose(warm["rgb"][..., channel][~clipped], expected[~clipped], atol=1.3)
    for picture in (dark, flat, warm):
        np.testing.assert_array_equal(picture["depth"], plain["depth"])


def _noise(profile: RobotProfile, quiet: RobotProfile, **changes: float) -> float:
    """Return the standard deviation of the depth noise in units of z^2."""
    true, noisy = seen(quiet)["depth"] / 1000, seen(profile, **changes)["depth"] / 1000
    both = (true > 0.5) & (noisy > 0)
    return float(np.std((noisy - true)[both] / true[both] ** 2))


def test_depth_noise_grows_by_its_factor(mini: RobotProfile, quiet: RobotProfile) -> None:
    assert _noise(mini, quiet) == pytest.approx(0.0036, rel=0.15)
    assert _noise(mini, quiet, depth_noise=3.0) == pytest.approx(0.0108, rel=0.15)


def test_so_large_a_share_of_pixels_is_without_a_measurement(mini: RobotProfile, quiet: RobotProfile) -> None:
    seen_at_all = seen(quiet)["depth"] > 0
    holes = seen(mini, hole_share=0.3)["depth"][seen_at_all] == 0
    assert holes.mean() == pytest.approx(0.3, abs=0.05)


def test_a_perfect_camera_stays_perfect(quiet: RobotProfile) -> None:
    np.testing.assert_array_equal(seen(quiet, depth_noise=5.0, hole_share=0.5)["depth"], seen(quiet)["depth"])


@pytest.fixture
def worlds() -> Callable[[int], list[Conditions]]:
    """Return the first worlds that a seed draws."""

    def draw(seed: int) -> list[Conditions]:
        rng = np.random.default_rng(seed)
        return [Randomization().draw(rng) for _ in range(3)]

    return draw


def test_no_two_episodes_have_the_same_world(worlds: Callable[[int], list[Conditions]]) -> None:
    assert len(set(map(repr, worlds(0) + worlds(1)))) == 6
