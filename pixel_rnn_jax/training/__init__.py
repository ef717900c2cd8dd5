"""Training, and the evaluation of what was trained.

One step is `step.py`; `train.py` is the loop around it. Training may import everything but the
codec, `image_model`, `cli` and `main`.
"""
