"""Workdirs of training runs: the record of a run, its checkpoints and lock, and exported models."""
