"""Lossless compression: a range coder driven by the model, and its files.

The codec may import generation, models, data, config, terminal and errors.
"""
