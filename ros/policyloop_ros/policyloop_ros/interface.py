"""Every topic, parameter and service of the nodes, as data: the nodes are built from it, docs and YAML checked."""

from __future__ import annotations

from typing import Literal, NamedTuple

from policyloop.robot.ros.endpoints import Quality
from policyloop.robot.ros.parameters import Parameter

__all__ = ["COLLECTOR", "DIAGNOSTICS", "INFERENCE", "NODES", "TIME_TO_LIVE", "Interface", "Service", "Topic"]


class Topic(NamedTuple):
    """One topic. `name` is that of the parameter that holds it, or the topic itself if it begins with a slash."""

    name: str
    direction: Literal["in", "out"]
    kinds: tuple[str, ...]
    quality: Quality
    about: str


class Service(NamedTuple):
    """One service."""

    name: str
    kind: str
    about: str


class Interface(NamedTuple):
    """One node."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    topics: tuple[Topic, ...]
    services: tuple[Service, ...] = ()


IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
TWISTS = ("geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped")
DISTANCES = ("std_msgs/msg/Float32", "sensor_msgs/msg/Range")

_STAMPED = Parameter(name="enable_stamped_cmd_vel", default=False, about="Commands are TwistStamped instead of Twist")

_ROBOT = (
    Parameter(name="profile", default="rover", about="Name of a shipped robot profile, or path of a .toml file"),
    Parameter(name="robot_name", default="", about="What the trainer calls this robot; empty = the machine's name"),
)

_SENSORS = (
    Parameter(
        name="rgb_topic",
        default="/camera/camera/color/image_raw",
        about="Colour, rgb8 or bgr8; ending in /compressed: JPEG",
    ),
    Parameter(
        name="depth_topic",
        default="/camera/camera/aligned_depth_to_color/image_raw",
        about="Depth aligned to colour, 16UC1 or 32FC1",
    ),
    Parameter(name="imu_topic", default="/imu/data", about="IMU of the body, or of a camera in an optical frame"),
    Parameter(name="odom_topic", default="/odom", about="Wheel odometry; only its twist is used"),
    Parameter(
        name="min_distance_topic",
        default="/min_forward_distance",
        about="Free distance ahead of another sensor than the camera; empty = there is none",
    ),
    Parameter(
        name="min_distance_is_range", default=False, about="That topic is a sensor_msgs/Range instead of a Float32"
    ),
    Parameter(
        name="depth_scale",
        default=0.001,
        unit="m",
        low=0.00001,
        high=0.1,
        about="What a 16UC1 pixel of 1 means; 32FC1 is in m",
    ),
    Parameter(
        name="depth_clip_m", default=6.0, unit="m", low=0.5, high=65.0, about="What is further away counts as this far"
    ),
    Parameter(
        name="sync_tolerance_s",
        default=0.02,
        unit="s",
        low=0.0,
        high=0.1,
        about="By how much the stamps of colour and depth may differ; half a frame",
    ),
)

_LINK = (
    Parameter(name="keys_dir", default="", about="Folder of this robot's keys; empty = no encryption, loopback only"),
    Parameter(name="gateway_key", default="", about="Public key of the trainer; needed with keys_dir"),
    Parameter(name="spool_dir", default="", about="Folder of what the trainer has not acknowledged; empty = temporary"),
)

_INPUTS = (
    Topic("rgb_topic", "in", IMAGES, "sensor", "colour"),
    Topic("depth_topic", "in", IMAGES[:1], "sensor", "depth"),
    Topic("imu_topic", "in", ("sensor_msgs/msg/Imu",), "sensor", "posture, acceleration"),
    Topic("odom_topic", "in", ("nav_msgs/msg/Odometry",), "sensor", "velocities"),
    Topic("min_distance_topic", "in", DISTANCES, "sensor", "free distance ahead, if there is such a sensor"),
)

DIAGNOSTICS = Topic(
    "/diagnostics", "out", ("diagnostic_msgs/msg/DiagnosticArray",), "state", "how everything does, once a second"
)

COLLECTOR = Interface(
    "remote_training_collector",
    "Records what a person does and streams it to the trainer; drives nothing.",
    (
        *_ROBOT,
        Parameter(name="server_address", default="tcp://127.0.0.1:5555", about="Address of the trainer's gateway"),
        *_LINK,
        *_SENSORS,
        Parameter(name="cmd_vel_topic", default="cmd_vel_teleop", about="What the person commands"),
        _STAMPED,
        Parameter(
            name="collection_rate_hz",
            default=10.0,
            unit="Hz",
            low=0.1,
            high=1000.0,
            about="Must be the profile's control_hz",
        ),
        Parameter(name="jpeg_quality", default=85, unit="1", low=1, high=100, about="Of colour on its way"),
        Parameter(name="save_calibration_samples", default=False, about="Take samples for INT8 while driving"),
        Parameter(
            name="calibration_sample_interval", default=10.0, unit="s", low=0.1, high=3600.0, about="Between two"
        ),
        Parameter(
            name="calibration_sample_count", default=100, unit="1", low=1, high=100000, about="The folder is full then"
        ),
        Parameter(name="calibration_data_dir", default="calibration", about="Folder of these samples"),
    ),
    (
        *_INPUTS,
        Topic("cmd_vel_topic", "in", TWISTS, "command", "what the person commands"),
        DIAGNOSTICS,
    ),
)

INFERENCE = Interface(
    "remote_trained_inference",
    "Drives with a policy, behind the safety gate, disarmed until somebody arms it.",
    (
        *_ROBOT,
        Parameter(name="model_path", default="/opt/models", about="A store, whose current version drives; or a bundle"),
        Parameter(
            name="trusted_keys", default="", about="Folder of keys: only what they signed drives; empty = anything"
        ),
        *_SENSORS,
        Parameter(name="cmd_vel_topic", default="cmd_vel_ai", about="Where commands go: to the multiplexer"),
        Parameter(
            name="teleop_topic",
            default="cmd_vel_teleop",
            about="What a person commands: the policy gives way; empty = nobody does",
        ),
        _STAMPED,
        Parameter(
            name="max_linear_speed",
            default=0.18,
            unit="m/s",
            low=0.01,
            high=10.0,
            live="down",
            about="Forwards and backwards; the narrower of this and the profile holds",
        ),
        Parameter(
            name="max_angular_speed",
            default=1.0,
            unit="rad/s",
            low=0.01,
            high=10.0,
            live="down",
            about="The narrower of this and the profile holds",
        ),
        Parameter(
            name="safety_distance",
            default=0.25,
            unit="m",
            low=0.05,
            high=5.0,
            live="up",
            about="Left free ahead; the wider of this and the profile holds",
        ),
        Parameter(
            name="inference_rate_hz",
            default=10.0,
            unit="Hz",
            low=0.1,
            high=1000.0,
            about="Must be the profile's control_hz",
        ),
        Parameter(name="use_npu", default=True, about="On the NPU where there is one, else on the CPU"),
        Parameter(
            name="npu_core_mask",
            default=0,
            unit="1",
            low=0,
            high=7,
            about="0: any; 1, 2, 4: core 0, 1, 2; 3: cores 0 and 1; 7: all",
        ),
        Parameter(
            name="shadow_ticks",
            default=100,
            unit="1",
            low=0,
            high=100000,
            about="Ticks that a new version answers beside the one that drives",
        ),
        Parameter(
            name="probation_s", default=30.0, unit="s", low=0.0, high=3600.0, about="How long it must drive to be good"
        ),
        Parameter(name="server_address", default="", about="Stream steps to this gateway; empty = do not"),
        *_LINK,
        Parameter(name="control_socket", default="", about="Socket for `policyloop robot`; empty = after the name"),
    ),
    (
        *_INPUTS,
        Topic("teleop_topic", "in", TWISTS, "command", "what a person commands"),
        Topic("cmd_vel_topic", "out", TWISTS, "command", "what the safety gate let through, every tick"),
        DIAGNOSTICS,
    ),
    (
        Service(
            "/reload_remote_model",
            "std_srvs/srv/Trigger",
            "drive the store's current version; answers after the swap, or with the reason why there is none",
        ),
    ),
)

TIME_TO_LIVE = Interface(
    "cmd_vel_time_to_live",
    "Stands before a motor driver that obeys the last command for ever: zero when commands cease.",
    (
        Parameter(name="cmd_vel_in", default="cmd_vel_mux", about="Commands from the multiplexer"),
        Parameter(name="cmd_vel_out", default="cmd_vel", about="Commands to the driver"),
        _STAMPED,
        Parameter(name="time_to_live_s", default=0.25, unit="s", low=0.02, high=0.5, about="How long a command counts"),
        Parameter(name="rate_hz", default=20.0, unit="Hz", low=5.0, high=100.0, about="At least so often it commands"),
    ),
    (
        Topic("cmd_vel_in", "in", TWISTS, "command", "commands"),
        Topic("cmd_vel_out", "out", TWISTS, "command", "the same, or zero"),
        DIAGNOSTICS,
    ),
)

NODES = (COLLECTOR, INFERENCE, TIME_TO_LIVE)
