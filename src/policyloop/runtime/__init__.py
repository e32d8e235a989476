"""Inference on the robot: backends, the policy as one object, and its swap. No torch, no ROS."""
