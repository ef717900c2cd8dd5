"""Workdirs of training runs: identity, checkpoints, lock; and exported models."""
