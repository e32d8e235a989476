"""Record: what a person does goes to the trainer, and through the multiplexer to the base."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory("policyloop_ros"))


def text(argument: str) -> ParameterValue:
    """Return an argument as a string, also where it is empty or looks like a number."""
    return ParameterValue(LaunchConfiguration(argument), value_type=str)


def generate_launch_description() -> LaunchDescription:
    """Return what `ros2 launch policyloop_ros collect.launch.py` starts."""
    parameters = SHARE / "config" / "remote_training_collector.yaml"
    return LaunchDescription(
        [
            DeclareLaunchArgument("params_file", default_value=str(parameters), description="Parameters of the node"),
            DeclareLaunchArgument("profile", default_value="rover", description="Name or path of the robot's profile"),
            DeclareLaunchArgument(
                "server_address", default_value="tcp://127.0.0.1:5555", description="The trainer's gateway"
            ),
            Node(
                package="policyloop_ros",
                executable="remote_training_collector",
                parameters=[
                    LaunchConfiguration("params_file"),
                    {
                        "profile": text("profile"),
                        "server_address": text("server_address"),
                    },
                ],
                output="screen",
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(SHARE / "launch" / "base.launch.py"))),
        ]
    )
