"""One table: YAML, README, launch files and the nodes' code say the same."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.ros.tables import parameter_row, service_row, topic_row, yaml_of

from policyloop.core.clock import MonotonicClock
from policyloop.robot.ros.collector import Collector
from policyloop.robot.ros.inference import Inference
from policyloop.robot.ros.parameters import why_refused

PACKAGE = Path(__file__).parents[2] / "ros" / "policyloop_ros"
CODE = PACKAGE / "policyloop_ros"
SHELLS = sorted(path.stem for path in CODE.glob("*.py") if path.stem not in ("interface", "__init__"))


@pytest.fixture(scope="module")
def interface() -> Iterator[ModuleType]:
    """The table, imported where there is no rclpy."""
    sys.path.insert(0, str(PACKAGE))
    try:
        import policyloop_ros.interface as module

        yield module
    finally:
        sys.path.remove(str(PACKAGE))


class Asked(dict[str, Any]):
    """Values that remember which of them were asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)


def defaults(node: Any) -> dict[str, Any]:
    return {parameter.name: parameter.default for parameter in node.parameters}


def test_the_originals_names_are_the_defaults(interface: ModuleType) -> None:
    collector, inference = defaults(interface.COLLECTOR), defaults(interface.INFERENCE)
    both = {
        "rgb_topic": "/camera/camera/color/image_raw",
        "depth_topic": "/camera/camera/aligned_depth_to_color/image_raw",
        "odom_topic": "/odom",
        "min_distance_topic": "/min_forward_distance",
        "depth_scale": 0.001,
        "depth_clip_m": 6.0,
    }
    assert both.items() <= collector.items()
    assert both.items() <= inference.items()
    assert {
        "collection_rate_hz": 10.0,
        "jpeg_quality": 85,
        "calibration_sample_interval": 10.0,
        "calibration_sample_count": 100,
    }.items() <= collector.items()
    assert {"server_address", "imu_topic", "cmd_vel_topic", "save_calibration_samples", "calibration_data_dir"} <= set(
        collector
    )
    assert {
        "cmd_vel_topic": "cmd_vel_ai",
        "max_linear_speed": 0.18,
        "max_angular_speed": 1.0,
        "safety_distance": 0.25,
        "inference_rate_hz": 10.0,
        "npu_core_mask": 0,
    }.items() <= inference.items()
    assert {"model_path", "use_npu"} <= set(inference)
    (service,) = interface.INFERENCE.services
    assert service[:2] == ("/reload_remote_model", "std_srvs/srv/Trigger")


def test_limits_of_safety_only_tighten(interface: ModuleType) -> None:
    live = {parameter.name: parameter.live for parameter in interface.INFERENCE.parameters}
    assert {name: kind for name, kind in live.items() if kind != "fixed"} == {
        "max_linear_speed": "down",
        "max_angular_speed": "down",
        "safety_distance": "up",
    }


def test_yaml_says_what_the_table_says(interface: ModuleType) -> None:
    assert {path.stem for path in (PACKAGE / "config").glob("*.yaml")} == {
        "twist_mux",
        *(node.name for node in interface.NODES),
    }
    for node in interface.NODES:
        text = (PACKAGE / "config" / f"{node.name}.yaml").read_text()
        assert text == yaml_of(node), f"{node.name}.yaml is not what the table says"
        read = YAML(typ="safe").load(text)["/**"]["ros__parameters"]
        assert read == defaults(node)
        assert {name: type(value) for name, value in read.items()} == {p.name: type(p.default) for p in node.parameters}


def test_the_readme_says_what_the_table_says(interface: ModuleType) -> None:
    readme = (PACKAGE / "README.md").read_text()
    for node in interface.NODES:
        section = re.split(r"^##", readme.partition(f"### {node.name}\n")[2], flags=re.MULTILINE)[0]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        expected = [
            *map(topic_row, node.topics),
            *map(service_row, node.services),
            *map(parameter_row, node.parameters),
        ]
        assert rows == expected


def test_defaults_are_within_their_range_and_topics_name_parameters(interface: ModuleType) -> None:
    for node in interface.NODES:
        names = [parameter.name for parameter in node.parameters]
        assert len(set(names)) == len(names)
        assert why_refused(node.parameters, {}, defaults(node)) == ""
        for topic in node.topics:
            assert topic.name in names or topic.name == "/diagnostics"
        for parameter in node.parameters:
            assert parameter.about
            if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
                assert parameter.unit
                assert abs(parameter.low) + abs(parameter.high) < float("inf")


def test_every_parameter_has_an_effect(interface: ModuleType, tmp_path: Path) -> None:
    by_the_shell = {"min_distance_is_range", "enable_stamped_cmd_vel"}
    values = Asked({**defaults(interface.COLLECTOR), "save_calibration_samples": True})
    values["calibration_data_dir"] = str(tmp_path)
    collector = Collector(values, MonotonicClock())
    collector.close()
    assert set(values) - values.asked == by_the_shell
    asked = Asked(defaults(interface.INFERENCE))
    asked["model_path"] = str(tmp_path / "nothing")
    inference = Inference(interface.INFERENCE.parameters, asked, lambda *_: None, MonotonicClock())
    inference.close()
    assert set(asked) - asked.asked == by_the_shell | {"cmd_vel_topic"}


def test_shells_are_thin_and_rclpy_is_imported_nowhere_else() -> None:
    for name in SHELLS:
        assert len((CODE / f"{name}.py").read_text().splitlines()) < 150, name
    ros = ("rclpy", "launch", "ament", "sensor_msgs", "geometry_msgs", "std_msgs", "cv_bridge")
    for path in [*(Path(__file__).parents[2] / "src").rglob("*.py"), CODE / "interface.py"]:
        for statement in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in getattr(statement, "names", [])] if isinstance(statement, ast.Import) else []
            )
            names += [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
            assert not any(name.split(".")[0].startswith(ros) for name in names), path


def test_launch_files_start_what_there_is_with_what_it_knows(interface: ModuleType) -> None:
    nodes = {node.name: set(defaults(node)) for node in interface.NODES}
    for path in (PACKAGE / "launch").glob("*.launch.py"):
        text = path.read_text()
        compile(text, str(path), "exec")
        executables = re.findall(r'package="policyloop_ros",\s+executable="(\w+)"', text)
        assert executables
        for executable in executables:
            assert set(re.findall(r'text\("(\w+)"\)', text)) <= nodes[executable], path.name
        for file in re.findall(r'"(\w+\.yaml)"', text):
            assert (PACKAGE / "config" / file).is_file()
        declared = set(re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', text))
        assert set(re.findall(r'(?:LaunchConfiguration|text)\("(\w+)"\)', text)) == declared


def test_a_person_wins_over_the_policy_and_what_stops_stands_last(interface: ModuleType) -> None:
    mux = YAML(typ="safe").load((PACKAGE / "config" / "twist_mux.yaml").read_text())["/**"]["ros__parameters"]
    topics = {row["topic"]: row for row in mux["topics"].values()}
    inference, base = defaults(interface.INFERENCE), defaults(interface.TIME_TO_LIVE)
    assert topics[inference["teleop_topic"]]["priority"] > topics[inference["cmd_vel_topic"]]["priority"]
    assert max(row["timeout"] for row in topics.values()) <= 0.5
    text = (PACKAGE / "launch" / "base.launch.py").read_text()
    assert f'("cmd_vel_out", "{base["cmd_vel_in"]}")' in text


def test_the_foxglove_layout_shows_topics_that_there_are(interface: ModuleType) -> None:
    layout = json.loads((PACKAGE / "foxglove" / "rover.json").read_text())
    known = {str(value) for node in interface.NODES for value in defaults(node).values()} | {"/diagnostics"}
    shown = set(re.findall(r'"(/[a-z_/]+)', json.dumps(layout["configById"])))
    assert shown
    for topic in shown:
        assert topic in known or topic.removeprefix("/") in known, topic
    panels = set(re.findall(r'"(\w+!\w+)"', json.dumps(layout["layout"])))
    assert panels == set(layout["configById"])
