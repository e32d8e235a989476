"""Sockets and disk: the segment log (robot's Spool, trainer's Journal), the uplink, the gateway."""
