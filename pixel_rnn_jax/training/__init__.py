"""Training, and the evaluation of what was trained: `loop.py` is around `step.py`.

It may import everything but the codec, `cli` and `main`.
"""
