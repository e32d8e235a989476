"""What stands between every proposal and the wheels. Pure, small, no I/O."""
