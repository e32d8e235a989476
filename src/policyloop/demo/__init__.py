"""The whole loop on one machine: real processes, real sockets, simulated robots."""
