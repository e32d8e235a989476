"""Checkpoint -> ONNX. With `learn`, the only part that imports torch."""
