"""Lossless compression by a range coder that the model drives, and exported weights."""
