"""What may go to the NPU: convert, judge on samples held out, drive, and say what it costs."""
