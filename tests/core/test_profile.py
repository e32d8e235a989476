from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
import pytest

from policyloop.core.profile import Limits, Rates, RobotProfile, load_profile
from policyloop.core.spec import Quantity
from policyloop.errors import ConfigError

TEXT = """# The robot of these tests
name = "rover-test"

[rates]
control_hz = 10.0
sensor_timeout_s = 0.3

[camera]
width = 64
height = 36
vertical_fov_deg = 42.5
mount_forward_m = 0.16
mount_height_m = 0.18
depth_min_m = 0.1
depth_max_m = 10.0
depth_near_m = 0.25

[[proprio]]
name = "linear_vel"
unit = "m/s"
scale = 0.6

[[proprio]]
name = "angular_vel"
unit = "rad/s"
scale = 1.2

[[proprio]]
name = "roll"
unit = "rad"

[[proprio]]
name = "pitch"
unit = "rad"

[[proprio]]
name = "accel_mag"
unit = "m/s^2"
center = 9.81
scale = 9.81

[[proprio]]
name = "min_forward_dist"
unit = "m"
center = 2.0
scale = 2.0

[[action]]
name = "linear"
unit = "m/s"
low = -0.1
high = 0.6

[[action]]
name = "angular"
unit = "rad/s"
low = -1.2
high = 1.2

[body]
length_m = 0.36
width_m = 0.36
corridor_half_width_m = 0.26

[limits]
max_forward_mps = 0.6
max_reverse_mps = 0.1
max_angular_radps = 1.2
max_acceleration_mps2 = 1.0
max_deceleration_mps2 = 1.5
max_angular_acceleration_radps2 = 4.0
safety_distance_m = 0.25
reaction_time_s = 0.2

[episode]
collision_distance_m = 0.15
max_steps = 300

[stream]
rgb_encoding = "jpeg"
jpeg_quality = 85

[reward]
forward = 2.0
spin = -0.5
close = -5.0
near = -1.0
time = -0.01

[training_reward]
forward = 2.0
closeness = -1.5
collision = -80.0

[simulation]
obstacles = 24
gap_m = 0.9
half_size_m = 5.0
sensor_noise = true
"""
EXTRA = '\n[[proprio]]\nname = "load"\nunit = "N m"\nsize = 2\ncenter = 1.0\nscale = 4.0\n\n[body]'
WIDER = TEXT.replace("\n[body]", EXTRA)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """Return `text` with the first occurrence of each old piece replaced; every piece must be there."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def load(tmp_path: Path, text: str) -> RobotProfile:
    path = tmp_path / "robot.toml"
    path.write_text(text, encoding="utf-8")
    return load_profile(path)


# What ships


@pytest.mark.parametrize(("name", "shape"), [("rover", (240, 424)), ("rover-mini", (36, 64))])
def test_shipped_profiles_load_by_name(name, shape):
    profile = load_profile(name)
    assert profile.name == name
    assert {key: spec.shape for key, spec in profile.observation_specs.items()} == {
        "rgb": (*shape, 3),
        "depth": shape,
        "proprio": (6,),
    }
    assert profile.action_spec.shape == (2,)
    assert len(profile.digest) == 64
    assert int(profile.digest, 16) >= 0


def test_every_profile_that_ships_loads():
    names = [p.name.removesuffix(".toml") for p in (resources.files("policyloop") / "profiles").iterdir()]
    assert len({load_profile(name).digest for name in names if not name.startswith("_")}) == len(names) >= 2


@pytest.mark.parametrize("name", ["rover", "rover-mini"])
def test_a_copy_of_a_shipped_profile_is_the_same(tmp_path, name):
    text = (resources.files("policyloop") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
    assert load(tmp_path, text) == load_profile(name)


def test_the_action_map_covers_the_range(tmp_path):
    profile = load(tmp_path, TEXT)
    np.testing.assert_allclose(profile.action_center, [0.25, 0.0])
    np.testing.assert_allclose(profile.action_half_range, [0.35, 1.2])


def test_the_nominal_normaliser_repeats_a_quantity_over_its_size(tmp_path):
    profile = load(tmp_path, WIDER)
    assert profile.proprio_size == 8
    assert profile.proprio_index("min_forward_dist") == 5
    assert profile.proprio_index("load") == 6
    assert profile.nominal_normalizer.mean == (0.0, 0.0, 0.0, 0.0, 9.81, 2.0, 1.0, 1.0)
    assert profile.nominal_normalizer.std == (0.6, 1.2, 1.0, 1.0, 9.81, 2.0, 4.0, 4.0)


def test_an_unknown_quantity_is_named(mini):
    with pytest.raises(ConfigError, match="'odometer'"):
        mini.proprio_index("odometer")


def test_what_a_program_tells_is_left_out_of_what_a_robot_senses(mini):
    told = Quantity(name="last_action", unit="1", size=2), Quantity(name="delay", unit="s")
    profile = msgspec.structs.replace(mini, proprio=(told[0], *mini.proprio[:2], told[1]))
    assert profile.proprio_of({"linear_vel": 0.5, "angular_vel": -1.0, "roll": 9.0}).tolist() == [0, 0, 0.5, -1, 0]
    with pytest.raises(KeyError, match="angular_vel"):
        profile.proprio_of({"linear_vel": 0.5})


@pytest.mark.parametrize(
    ("quantity", "message"),
    [
        (Quantity(name="last_action", unit="1", size=3), "last_action has size 3, but there are 2"),
        (Quantity(name="delay", unit="s", size=2), "delay is one duration, not 2"),
        (Quantity(name="delay", unit="1"), "measured in 's'"),
    ],
)
def test_what_a_program_tells_has_one_form(mini, quantity, message):
    with pytest.raises(ConfigError, match=message):
        msgspec.structs.replace(mini, proprio=(*mini.proprio, quantity))


def test_stopping_distance_by_hand():
    limits = Limits(reaction_time_s=0.2, max_deceleration_mps2=1.5)
    assert limits.stopping_distance_m(0.6) == pytest.approx(0.6 * 0.2 + 0.36 / 3)
    assert limits.stopping_distance_m(0.0) == 0.0


def test_a_tick_lasts_one_period():
    assert Rates(control_hz=10.0).period_ns == 100_000_000
    assert Rates(control_hz=30.0).period_ns == 33_333_333


# What is refused

REFUSED = {
    "unknown key": ([("max_steps = 300", "max_stepz = 300")], "max_stepz"),
    "unknown table": ([("[stream]", "[streams]")], "streams"),
    "unknown key of a quantity": ([('unit = "m/s"\n', 'unit = "m/s"\nunits = "m"\n')], "units"),
    "missing key": ([("width = 64\n", "")], "width"),
    "text for a number": ([("control_hz = 10.0", 'control_hz = "fast"')], "control_hz"),
    "unknown picture coding": ([('rgb_encoding = "jpeg"', 'rgb_encoding = "png"')], "rgb_encoding"),
    "wrong unit": ([('unit = "m/s"', 'unit = "m"')], "linear_vel: unit 'm', but it is measured in 'm/s'"),
    "wrong unit of an action": (
        [('name = "angular"\nunit = "rad/s"', 'name = "angular"\nunit = "rad"')],
        "angular: unit 'rad', but it is measured in 'rad/s'",
    ),
    "unknown unit": ([('unit = "m/s"', 'unit = "km/h"')], "linear_vel: unknown unit 'km/h'"),
    "name given twice": ([('name = "roll"', 'name = "pitch"')], "'pitch' is defined more than once"),
    "name of an action given to a sensor": (
        [('name = "roll"', 'name = "linear"'), ('"rad"', '"m/s"')],
        "more than once",
    ),
    "no scale": ([("scale = 0.6", "scale = 0.0")], "linear_vel: size and scale"),
    "negative scale": ([("scale = 0.6", "scale = -0.6")], "linear_vel: size and scale"),
    "scale that is no number": ([("scale = 0.6", "scale = nan")], "linear_vel: size and scale"),
    "no size": ([("scale = 0.6", "size = 0")], "linear_vel: size and scale"),
    "range upside down": ([("low = -1.2\nhigh = 1.2", "low = 1.2\nhigh = -1.2")], "angular: low 1.2 must be below"),
    "empty range": ([("low = -1.2\nhigh = 1.2", "low = 0.0\nhigh = 0.0")], "angular: low 0.0 must be below"),
    "action too fast": ([("high = 0.6", "high = 0.61")], "'linear' spans -0.1..0.61 m/s, beyond the limits"),
    "action too fast backwards": ([("low = -0.1", "low = -0.2")], "'linear' spans -0.2..0.6 m/s, beyond the limits"),
    "action turns too fast": ([("high = 1.2", "high = 1.3")], "'angular' spans -1.2..1.3 rad/s, beyond the limits"),
    "limit of zero": ([("max_deceleration_mps2 = 1.5", "max_deceleration_mps2 = 0.0")], "limits.max_deceleration_mps2"),
    "negative limit": (
        [("reaction_time_s = 0.2", "reaction_time_s = -0.2")],
        "limits.reaction_time_s must be positive",
    ),
    "limit that is no number": ([("max_forward_mps = 0.6", "max_forward_mps = nan")], "limits.max_forward_mps"),
    "too fast to stop in sight": ([("max_forward_mps = 0.6", "max_forward_mps = 5.5")], "but sees only 9.75 m"),
    "too weak to stop in sight": (
        [("max_deceleration_mps2 = 1.5", "max_deceleration_mps2 = 0.018")],
        "needs 10.24 m to stop but sees only 9.75 m",
    ),
    "too slow to react in sight": (
        [("reaction_time_s = 0.2", "reaction_time_s = 16.1")],
        "m to stop but sees only 9.75 m",
    ),
    "sees too little to stop": ([("depth_max_m = 10.0", "depth_max_m = 0.45")], "0.36 m to stop but sees only 0.20 m"),
    "stops only after the collision": ([("safety_distance_m = 0.25", "safety_distance_m = 0.15")], "must exceed"),
    "observations die before the next comes": ([("sensor_timeout_s = 0.3", "sensor_timeout_s = 0.09")], "one tick"),
    "no rate": ([("control_hz = 10.0", "control_hz = 0.0")], "rates.control_hz"),
    "rate of no robot": ([("control_hz = 10.0", "control_hz = 1001.0")], "rates.control_hz"),
    "tiny picture": ([("width = 64", "width = 15")], "camera 15x36"),
    "huge picture": ([("height = 36", "height = 4097")], "camera 64x4097"),
    "depth range upside down": ([("depth_min_m = 0.1", "depth_min_m = 11.0")], "camera depth range"),
    "depth that does not fit 16 bits": ([("depth_max_m = 10.0", "depth_max_m = 65.6")], "camera depth range"),
    "unknown reward": ([("\nforward = 2.0", "\nspeed = 2.0")], r"\[reward\]: unknown reward term 'speed'"),
    "unknown training reward": ([("closeness = -1.5", "closness = -1.5")], r"\[training_reward\]: unknown.*'closness'"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_a_profile_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, replaced(TEXT, *changes))
    assert str(tmp_path / "robot.toml") in caught.value.message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("table", ["proprio", "action"])
def test_a_robot_that_senses_or_does_nothing_is_refused(mini, table):
    with pytest.raises(ConfigError, match="at least one"):
        msgspec.structs.replace(mini, **{table: ()})


def test_limits_that_can_just_be_met_are_accepted(tmp_path):
    changes = [
        ("sensor_timeout_s = 0.3", "sensor_timeout_s = 0.1"),
        ("safety_distance_m = 0.25", "safety_distance_m = 0.16"),
    ]
    assert load(tmp_path, replaced(TEXT, *changes)).limits.safety_distance_m == 0.16


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml does not exist"):
        load_profile(tmp_path / "nowhere.toml")


def test_an_unknown_name_lists_those_that_ship():
    with pytest.raises(ConfigError, match="no profile 'submarine'") as caught:
        load_profile("submarine")
    assert "rover" in caught.value.remedy


@pytest.mark.parametrize("text", ["name = ", "[rates\n", 'name = "a"\nname = "b"\n', "\x00"])
def test_a_file_that_is_not_toml_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "robot.toml"
    path.write_bytes(b'name = "\xff"\n')
    with pytest.raises(ConfigError):
        load_profile(path)


SENSELESS = {
    "sensors that never grow old": ("sensor_timeout_s = 0.3", "sensor_timeout_s = nan"),
    "sensors that live for ever": ("sensor_timeout_s = 0.3", "sensor_timeout_s = inf"),
    "a corridor without width": ("corridor_half_width_m = 0.26", "corridor_half_width_m = 0.0"),
    "a corridor narrower than the body": ("corridor_half_width_m = 0.26", "corridor_half_width_m = 0.17"),
    "a corridor of nothing": ("corridor_half_width_m = 0.26", "corridor_half_width_m = nan"),
    "a camera without field of view": ("vertical_fov_deg = 42.5", "vertical_fov_deg = 0.0"),
    "a camera that looks behind itself": ("vertical_fov_deg = 42.5", "vertical_fov_deg = 180.0"),
    "a depth code without reach": ("depth_near_m = 0.25", "depth_near_m = 0.0"),
    "a depth code that begins where depth ends": ("depth_near_m = 0.25", "depth_near_m = 10.0"),
    "a body without width": ("width_m = 0.36", "width_m = 0.0"),
    "a collision at no distance": ("collision_distance_m = 0.15", "collision_distance_m = nan"),
    "episodes without steps": ("max_steps = 300", "max_steps = 0"),
    "a quality that JPEG lacks": ("jpeg_quality = 85", "jpeg_quality = 500"),
    "a reward that is no number": ("spin = -0.5", "spin = nan"),
    "a training reward without end": ("collision = -80.0", "collision = -inf"),
    "a centre that is no number": ("center = 9.81", "center = nan"),
    "a scale without end": ("scale = 0.6", "scale = inf"),
}


@pytest.mark.parametrize(("old", "new"), SENSELESS.values(), ids=SENSELESS)
def test_numbers_that_nobody_can_mean_are_refused(tmp_path, old, new):
    with pytest.raises(ConfigError):
        load(tmp_path, replaced(TEXT, (old, new)))


# What the digest covers


def numbers(table: str) -> list[tuple[str, str]]:
    struct = getattr(load_profile("rover-mini"), table)
    return [(table, name) for name in struct.__struct_fields__]


@pytest.mark.parametrize(
    ("table", "key"), [*numbers("rates"), *numbers("camera"), *numbers("body"), *numbers("limits")]
)
def test_the_digest_changes_with_every_number_of_the_contract(mini, table, key):
    old = getattr(mini, table)
    value = getattr(old, key)
    changed = 0.3 if value is None else value + 1 if isinstance(value, int) else value * 1.0001
    new = msgspec.structs.replace(old, **{key: changed})
    assert msgspec.structs.replace(mini, **{table: new}).digest != mini.digest


CONTRACT = {
    "a range": [("high = 0.6", "high = 0.59")],
    "a rate": [("control_hz = 10.0", "control_hz = 20.0")],
    "a centre": [("center = 9.81", "center = 9.8")],
    "a scale": [("scale = 0.6", "scale = 0.61")],
    "a name": [('name = "load"', 'name = "torque"')],
    "a size": [("size = 2", "size = 3")],
    "a unit": [('unit = "N m"', 'unit = "1"')],
}


@pytest.mark.parametrize("changes", CONTRACT.values(), ids=CONTRACT)
def test_the_digest_changes_with_the_contract(tmp_path, changes):
    assert load(tmp_path, replaced(WIDER, *changes)).digest != load(tmp_path, WIDER).digest


@pytest.mark.parametrize("table", ["proprio", "action"])
def test_the_digest_changes_with_the_order(mini, table):
    entries = getattr(mini, table)
    swapped = msgspec.structs.replace(mini, **{table: (entries[1], entries[0], *entries[2:])})
    assert swapped.digest != mini.digest


def test_the_digest_changes_when_the_camera_goes(mini):
    assert msgspec.structs.replace(mini, camera=None).digest != mini.digest


FREE = {
    "reward": [("spin = -0.5", "spin = -0.7")],
    "training reward": [("collision = -80.0", "collision = -20.0")],
    "stream": [('rgb_encoding = "jpeg"', 'rgb_encoding = "raw"'), ("jpeg_quality = 85", "jpeg_quality = 60")],
    "simulation": [("obstacles = 24", "obstacles = 3"), ("sensor_noise = true", "sensor_noise = false")],
    "episode": [("max_steps = 300", "max_steps = 30"), ("collision_distance_m = 0.15", "collision_distance_m = 0.1")],
    "name": [('name = "rover-test"', 'name = "other"')],
    "comments": [("# The robot of", "# That of")],
    "spelling of a number": [("control_hz = 10.0", "control_hz = 10"), ("depth_max_m = 10.0", "depth_max_m = 1e1")],
}


@pytest.mark.parametrize("changes", FREE.values(), ids=FREE)
def test_the_digest_does_not_change_with_what_leaves_data_valid(tmp_path, changes):
    changed = replaced(TEXT, *changes)
    assert changed != TEXT
    assert load(tmp_path, changed).digest == load(tmp_path, TEXT).digest


def test_a_profile_survives_json_with_its_digest(mini):
    copy = msgspec.json.decode(msgspec.json.encode(mini), type=RobotProfile)
    assert (copy, copy.digest) == (mini, mini.digest)
