"""policyloop's ROS 2 nodes: thin shells around `policyloop.robot.ros`."""
