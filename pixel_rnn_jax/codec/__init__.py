"""Lossless compression: a range coder driven by the model, and its files.

The codec may import `pixel_rnn`, generation, models, data, config, runtime, terminal and errors.
"""
