"""Weights and test slices -> scores on disk, and what is read from them."""
