"""What makes a run: steps, their loop, its log, and the evaluation of trained models."""
