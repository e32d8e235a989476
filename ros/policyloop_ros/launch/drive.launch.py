"""Drive: a policy behind the safety gate, and the multiplexer in which a person wins."""

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
    """Return what `ros2 launch policyloop_ros drive.launch.py` starts."""
    parameters = SHARE / "config" / "remote_trained_inference.yaml"
    return LaunchDescription(
        [
            DeclareLaunchArgument("params_file", default_value=str(parameters), description="Parameters of the node"),
            DeclareLaunchArgument("profile", default_value="rover", description="Name or path of the robot's profile"),
            DeclareLaunchArgument("model_path", default_value="/opt/models", description="Store or bundle"),
            DeclareLaunchArgument("trusted_keys", default_value="", description="Folder of the keys that count"),
            Node(
                package="policyloop_ros",
                executable="remote_trained_inference",
                parameters=[
                    LaunchConfiguration("params_file"),
                    {
                        "profile": text("profile"),
                        "model_path": text("model_path"),
                        "trusted_keys": text("trusted_keys"),
                    },
                ],
                output="screen",
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(SHARE / "launch" / "base.launch.py"))),
        ]
    )
