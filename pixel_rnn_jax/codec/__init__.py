"""Lossless compression: a range coder driven by the model, and its portable files.

The codec may import `pixel_rnn`, generation, models, `batches`, data, config, terminal and errors.
"""
