"""Evaluation: figures with intervals, on held-out text (bits per byte) and on held-out questions (graded answers)."""
