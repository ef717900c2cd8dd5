"""Devices, the processes of a run, and what is computed at a time."""
