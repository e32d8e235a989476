"""Break a simulated robot on purpose, and say what it did."""
