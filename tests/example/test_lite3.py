"""The example of a quadruped: whole, repeatable, and honest about what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyloop.convert.mlp_description import load_description
from policyloop.convert.observation_statistics import load_observation_statistics
from policyloop.core.profile import load_profile
from policyloop.errors import StorageError, UsageError
from policyloop.example.dummy_env import SCALE_RAD, STANDING_RAD, TICK_S, make_env, make_policy
from policyloop.example.lite3 import write_lite3_example

LITE3 = load_profile("lite3")


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_lite3_example(tmp_path / name, seed)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert set(first) == {"policy.pt", "net.yaml", "obs_stats.npz", "dummy_env.py", "README.md"}
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"policy.pt", "obs_stats.npz"}


def test_the_files_fit_the_profile_and_each_other(tmp_path: Path) -> None:
    write_lite3_example(tmp_path / "example")
    described = load_description(tmp_path / "example" / "net.yaml")
    assert described.sizes == (LITE3.proprio_size, 512, 256, 128, len(LITE3.action))
    statistics = load_observation_statistics(tmp_path / "example" / "obs_stats.npz", LITE3)
    joints = LITE3.proprio_slice("joint_pos")
    assert joints is not None
    np.testing.assert_allclose(statistics.mean[joints], STANDING_RAD, atol=0.05)  # sensed, not scaled
    readme = " ".join((tmp_path / "example" / "README.md").read_text().split())
    assert "does not walk" in readme
    assert "must not be driven on a real robot" in readme


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists"):
        write_lite3_example(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_lite3_example(tmp_path / "file" / "example")


def test_the_environment_has_the_profiles_order_and_units() -> None:
    np.testing.assert_allclose(STANDING_RAD, LITE3.action_center, atol=1e-6)
    np.testing.assert_allclose(SCALE_RAD, LITE3.action_scale)
    assert pytest.approx(LITE3.rates.period_ns * 1e-9) == TICK_S
    env = make_env()
    env.reset(seed=0)
    action = np.linspace(-1, 1, 12)
    seen = env.step(action)[0]["proprio"]
    assert (seen.shape, seen.dtype) == ((45,), np.float32)
    last_action = LITE3.proprio_slice("last_action")
    assert last_action is not None
    np.testing.assert_allclose(seen[last_action], action, rtol=1e-6)
    assert LITE3.leaning(seen) == pytest.approx((0.0, 0.0), abs=0.1)  # upright


def test_episodes_end_both_ways_and_must_be_reset() -> None:
    env, policy = make_env(), make_policy()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(12))
    ends = set()
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            observation, _, fell, late, _ = env.step(policy(observation))
            over = fell or late
        ends.add((fell, late))
    assert ends >= {(True, False), (False, True)}
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(12))
