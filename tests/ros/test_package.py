"""What colcon, catkin_pkg and setuptools make of the package; a malformed package.xml would be built in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ros" / "policyloop_ros"
NODES = ("remote_training_collector", "remote_trained_inference", "cmd_vel_time_to_live")


def test_package_xml_is_valid_and_of_the_right_type() -> None:
    packages = pytest.importorskip("catkin_pkg.package", reason="NOT TESTED: pip install catkin_pkg")
    warnings: list[str] = []
    package = packages.parse_package(str(PACKAGE), warnings=warnings)
    package.validate()
    assert not warnings
    assert package.name == PACKAGE.name
    assert package.package_format == 3
    assert package.get_build_type() == "ament_python"
    assert package.licenses == ["Apache-2.0"]
    needed = {dependency.name for dependency in package.exec_depends}
    imported = {"rclpy", "rcl_interfaces", "sensor_msgs", "nav_msgs", "geometry_msgs", "std_msgs", "std_srvs"}
    assert imported | {"diagnostic_msgs", "launch", "launch_ros", "ament_index_python", "twist_mux"} == needed


def test_every_ros_package_that_is_imported_is_a_dependency() -> None:
    xml = (PACKAGE / "package.xml").read_text()
    for path in [*PACKAGE.rglob("*.py")]:
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"]) and (
                "_msgs" in words[1] or "rclpy" in words[1] or "_srvs" in words[1]
            ):
                assert f"<exec_depend>{words[1].split('.')[0]}</exec_depend>" in xml, line


def test_colcon_sees_an_ament_python_package(tmp_path: Path) -> None:
    pytest.importorskip("colcon_ros", reason="NOT TESTED: pip install colcon-common-extensions")
    command = [sys.executable, "-m", "colcon", "--log-base", str(tmp_path), "list", "--base-paths", str(PACKAGE.parent)]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.split("\t")[0] == "policyloop_ros"
    assert listed.stdout.rstrip().endswith("(ros.ament_python)"), listed.stdout


def test_an_installation_puts_everything_where_ros_looks(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="NOT TESTED: pip install setuptools")
    root = tmp_path / "root"
    command = [sys.executable, "-W", "ignore", "setup.py", "-q"]
    command += ["egg_info", "--egg-base", str(tmp_path), "build", "--build-base", str(tmp_path / "build")]
    command += ["install", "--prefix", "/ros", "--root", str(root), "--record", str(tmp_path / "record")]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    share = root / "ros" / "share"
    assert (share / "ament_index" / "resource_index" / "packages" / "policyloop_ros").is_file()
    installed = {str(path.relative_to(share / "policyloop_ros")) for path in (share / "policyloop_ros").rglob("*.*")}
    wanted = {"package.xml", "README.md"}
    for folder in ("launch", "config", "foxglove"):
        wanted |= {f"{folder}/{path.name}" for path in (PACKAGE / folder).iterdir() if path.is_file()}
    assert wanted == installed
    scripts = root / "ros" / "lib" / "policyloop_ros"
    assert {path.name for path in scripts.iterdir()} == set(NODES)
    for node in NODES:
        assert (scripts / node).read_text().startswith("#!/usr/bin/env python3\n")
