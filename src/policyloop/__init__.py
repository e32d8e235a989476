"""Close the loop: a robot drives and records, a policy is trained, shipped back and swapped while driving."""

__version__ = "0.1.0.dev0"
