"""Bytes <-> core: message headers, pictures, the v1 packet. No sockets, no files."""
