"""Drawing images value by value: one loop over all values, sampling, and completion.

Generation may import models, layers, data, runtime, terminal and errors.
"""
