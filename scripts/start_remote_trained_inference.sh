#!/bin/sh
# start_remote_trained_inference.sh [MODEL] [MAX_SPEED] [SAFETY_DISTANCE] [RATE_HZ] [USE_NPU]: a policy drives.
# Beside it: ros2 launch policyloop_ros base.launch.py and the camera. It starts disarmed: policyloop robot arm
set -eu
number() { LC_ALL=C printf '%.3f' "$1"; }
exec ros2 run policyloop_ros remote_trained_inference --ros-args \
    -p "model_path:=${1:-/opt/models}" -p "max_linear_speed:=$(number "${2:-0.18}")" \
    -p "safety_distance:=$(number "${3:-0.25}")" -p "inference_rate_hz:=$(number "${4:-10}")" -p "use_npu:=${5:-true}"
