"""A run's folder: its record, its checkpoints, Weights & Biases."""
