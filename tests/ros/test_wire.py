"""Between two processes, over a real DDS, without ROS: `bench/ros_wire.py`, short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "ros_wire.py"


def test_a_rovers_topics_arrive_in_pairs_and_its_twists_get_back() -> None:
    pytest.importorskip("cyclonedds", reason="NOT TESTED: pip install cyclonedds, where it has a wheel")
    command = [sys.executable, str(BENCH), "--seconds", "3"]
    environment = {name: value for name, value in os.environ.items() if name != "CYCLONEDDS_URI"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["frames"] == 90
    assert found["pairs_share"] > 0.9, found  # 0.99 on a machine that does nothing else: docs/ros.md
    assert found["refused"] == 0
    assert found["late_p50_ms"] < 100, found
    assert found["twists"] >= 20, found
    assert found["moving"] >= 10, found
