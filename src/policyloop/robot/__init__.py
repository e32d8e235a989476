"""The on-robot program: sense, propose, gate, command, record. No torch, no ROS."""
