"""Annotated anatomy and phantoms -> the shipped weights."""
