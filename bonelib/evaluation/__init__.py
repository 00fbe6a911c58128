"""Weights + test slices -> scores on disk; scores -> intervals and comparisons."""
