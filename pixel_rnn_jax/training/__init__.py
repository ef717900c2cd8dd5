"""Training, and the evaluation of trained models."""
