"""Ship a signed bundle to a robot over ssh; nothing here trusts the network, and the robot trusts only signatures."""
