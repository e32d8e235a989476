"""Installs the nodes where `ros2 run` and `ros2 launch` look for them."""

from pathlib import Path

from setuptools import setup

NAME = "policyloop_ros"
SHARE = f"share/{NAME}"
NODES = ("remote_training_collector", "remote_trained_inference", "cmd_vel_time_to_live")


def files(pattern: str) -> list[str]:
    """Return the files of this package that match."""
    here = Path(__file__).parent
    return sorted(str(path.relative_to(here)) for path in here.glob(pattern))


setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml", "README.md"]),
        (f"{SHARE}/launch", files("launch/*.launch.py")),
        (f"{SHARE}/config", files("config/*.yaml")),
        (f"{SHARE}/foxglove", files("foxglove/*.json")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="policyloop maintainers",
    maintainer_email="maintainers@policyloop.example",
    description="ROS 2 nodes of policyloop",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"{node} = {NAME}.{node}:main" for node in NODES]},
)
