"""Between the robot's program and a controller in C++ that drives the joints: shared memory, sockets, ZeroMQ."""
