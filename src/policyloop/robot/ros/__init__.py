"""A robot that speaks ROS 2, without ROS: what messages say, and what becomes of it. The nodes are its shells."""
