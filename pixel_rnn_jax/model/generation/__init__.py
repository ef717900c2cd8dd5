"""Drawing images value by value: one loop over all values, sampling, and completion.

All of it is traceable, and works on the scales of a model. Generation may import models and
kernels.
"""
