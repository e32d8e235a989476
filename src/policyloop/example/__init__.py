"""Folders with everything for a walk-through that needs neither a robot nor a network."""
