"""Drawing images value by value: one loop over all values, sampling, and completion.

Generation may import models, data, runtime, terminal and errors.
"""
