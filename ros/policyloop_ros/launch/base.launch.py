"""Between commands and motors: the multiplexer, and behind it what stops when commands cease.

cmd_vel_teleop ─▶ twist_mux ─▶ cmd_vel_mux ─▶ cmd_vel_time_to_live ─▶ cmd_vel ─▶ your driver
cmd_vel_ai     ─▶
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

CONFIG = Path(get_package_share_directory("policyloop_ros")) / "config"


def generate_launch_description() -> LaunchDescription:
    """Return what both other launch files include."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "mux_file", default_value=str(CONFIG / "twist_mux.yaml"), description="Who wins over whom"
            ),
            Node(
                package="twist_mux",
                executable="twist_mux",
                parameters=[LaunchConfiguration("mux_file")],
                remappings=[("cmd_vel_out", "cmd_vel_mux")],
                output="screen",
            ),
            Node(
                package="policyloop_ros",
                executable="cmd_vel_time_to_live",
                parameters=[str(CONFIG / "cmd_vel_time_to_live.yaml")],
                output="screen",
            ),
        ]
    )
