"""Zip or tar -> files, of which none escapes the folder they go to."""
