"""A simulated rover: a Gymnasium env and a robot behind the same io protocols as a real one."""
