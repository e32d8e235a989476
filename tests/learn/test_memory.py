"""How much memory there is, and which replays fit into it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyloop.core.profile import load_profile
from policyloop.errors import ConfigError
from policyloop.learn.inputs import input_specs
from policyloop.learn.memory import check_replays_fit, memory_bytes
from policyloop.learn.replay import state_bytes
from policyloop.learn.rlpd import RlpdSettings


def test_a_container_may_have_less_than_its_machine(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    small, large, none = (tmp_path / name for name in ("small", "large", "none"))
    small.write_text("1000000\n")
    large.write_text("9223372036854771712\n")
    none.write_text("max\n")
    assert memory_bytes([none, large, tmp_path / "missing"]) == machine
    assert memory_bytes([large, small]) == 1_000_000


def test_replays_that_fit_by_hand() -> None:
    # 2 x 100 x 1000 bytes are two thirds of 300,000
    check_replays_fit(100, 1000, 300_000)
    with pytest.raises(ConfigError, match="two replays of 101 states of 1000 bytes") as caught:
        check_replays_fit(101, 1000, 300_000)
    assert "capacity = 100 under [rlpd]" in caught.value.remedy
    assert caught.value.exit_code == 3


def test_what_does_not_fit_is_said_in_gigabytes() -> None:
    with pytest.raises(ConfigError, match=r"take 16.3 GB when they are full, and of the 16.0 GB .* here 10.7 GB can"):
        check_replays_fit(20_000, 407_216, 16 * 10**9)


def test_the_rovers_replays_fit_an_ordinary_machine() -> None:
    rover, capacity = load_profile("rover"), RlpdSettings().capacity
    check_replays_fit(capacity, state_bytes(input_specs(rover), len(rover.action)), 31 << 30)
