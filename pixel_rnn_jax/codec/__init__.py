"""Lossless compression: a range coder driven by the model, and the files that it writes.

The codec may import generation, models, data, config, terminal and errors.
"""
