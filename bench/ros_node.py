"""What the inference node costs under rclpy with a camera of 424x240 at 30 Hz, and how fresh its pictures are.

.ros/bin/python bench/ros_node.py [--seconds 20]     (`make test-ros` makes that environment; PYTHONPATH=src)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from machine import machine
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, Imu

from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import load_profile
from policyloop.learn.networks import make_network

ROOT = Path(__file__).parents[1]
TOPICS = {"rgb_topic": "/rgb", "depth_topic": "/depth", "odom_topic": "/odom", "imu_topic": "/imu"}


def cpu_s(process: int) -> float:
    """Return the processor time that a process has used, s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Camera:
    """Publishes everything that a rover senses at 30 Hz, and keeps what the node says of it."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("camera")
        kinds = {"/rgb": Image, "/depth": Image, "/odom": Odometry, "/imu": Imu}
        self._publishers = {
            topic: self.node.create_publisher(kind, topic, qos_profile_sensor_data) for topic, kind in kinds.items()
        }
        rng = np.random.default_rng(0)
        self._rgb = [rng.integers(0, 255, 240 * 424 * 3, np.uint8).tobytes() for _ in range(4)]
        self._depth = [rng.integers(3000, 3100, 240 * 424).astype("<u2").tobytes() for _ in range(4)]
        self.ages_ms: list[float] = []
        self.frames = 0
        self.said: dict[str, str] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.node.create_timer(1 / 30, self._publish)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if status.name.endswith(": /depth") and "age_ms" in values:
                self.ages_ms.append(float(values["age_ms"]))
            if status.name.endswith((": control loop", ": pairs", ": policy")):
                self.said |= values

    def _publish(self) -> None:
        self.frames += 1
        image = {"height": 240, "width": 424}
        odometry, imu = Odometry(), Imu()
        imu.orientation.w, imu.linear_acceleration.z = 1.0, 9.81
        rgb, depth = Image(encoding="rgb8", step=1272, **image), Image(encoding="16UC1", step=848, **image)
        # Past the setter, which would look at every byte.
        rgb._data.frombytes(self._rgb[self.frames % 4])
        depth._data.frombytes(self._depth[self.frames % 4])
        stamp = self.node.get_clock().now().to_msg()
        for topic, message in {"/odom": odometry, "/imu": imu, "/rgb": rgb, "/depth": depth}.items():
            message.header.stamp = stamp
            self._publishers[topic].publish(message)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    profile = load_profile("rover")
    os.environ["ROS_DOMAIN_ID"] = "77"
    rclpy.init()
    camera, executor = Camera(), SingleThreadedExecutor()
    executor.add_node(camera.node)
    thread = threading.Thread(target=executor.spin)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        network, seen = make_network("spatial", profile), probe_features(profile, 2)
        about = {"network_name": "spatial", "version": 1, "noise_hold_ticks": 1, "observations": seen, "training": {}}
        path = store.add(export_bundle(network, profile, profile.nominal_normalizer, **about))
        store.activate(path)
        store.mark(path, "good")
        values = {**TOPICS, "min_distance_topic": "''", "model_path": store.directory, "use_npu": "false"}
        command = [
            sys.executable,
            "-c",
            "from policyloop_ros.remote_trained_inference import main; main()",
            "--ros-args",
        ]
        for name, value in {**values, "control_socket": f"{folder}/socket"}.items():
            command += ["-p", f"{name}:={value}"]
        paths = os.pathsep.join([str(ROOT / "ros" / "policyloop_ros"), str(ROOT / "src")])
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.DEVNULL) as node:
            thread.start()
            time.sleep(8)
            cpu_before_s, frames_before = cpu_s(node.pid), camera.frames
            camera.ages_ms.clear()
            time.sleep(seconds)
            used_s, frames = cpu_s(node.pid) - cpu_before_s, camera.frames - frames_before
            node.terminate()
    executor.shutdown()
    thread.join()
    print(machine())
    print(
        f"{frames / seconds:.1f} frames/s of RGB and depth; the node, disarmed: {1e3 * used_s / frames:.1f} ms CPU "
        f"a frame ({used_s / seconds:.0%} of a core); depth {np.median(camera.ages_ms):.0f} ms old, at most "
        f"{max(camera.ages_ms):.0f}; {camera.said}"
    )


if __name__ == "__main__":
    main()
