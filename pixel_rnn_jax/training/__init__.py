"""Training, and the evaluation of what was trained: `train.py` is the loop around `step.py`.

It may import everything but the codec, `cli` and `main`.
"""
