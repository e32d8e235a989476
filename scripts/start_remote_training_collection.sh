#!/bin/sh
# start_remote_training_collection.sh SERVER [RATE_HZ] [MAX_SPEED]: what a person drives goes to the trainer.
# Beside it: ros2 launch policyloop_ros base.launch.py, the camera, and somebody who publishes cmd_vel_teleop.
set -eu
server=${1:?SERVER is missing: the trainer, such as tcp://trainer:5555}
case $server in *://*) ;; *:*) server=tcp://$server ;; *) server=tcp://$server:5555 ;; esac
rate=$(LC_ALL=C printf '%.3f' "${2:-10}")
[ $# -lt 3 ] || echo "MAX_SPEED is not used: nothing limits a person here; set it in the teleop program" >&2
exec ros2 run policyloop_ros remote_training_collector --ros-args \
    -p "server_address:=$server" -p "collection_rate_hz:=$rate"
